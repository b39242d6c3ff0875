"""What a trainer had its model say and trained it on: completions with their advantages, where the trainer keeps them for its logs.

TRL's GRPO and RLOO trainers gather them on every process in `_logs`, which is private: where it is no dictionary of these columns any
more, completions are not told, and `tests/trainer/test_rows.py` fails. Other trainers that generate (distillation) keep none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.chat import Chat
from ..records.rows import TrainedRow


@dataclass(frozen=True)
class Completion:
    """
    One completion that a step was taken on.

    Args:
        prompt, said (`Any`):
            Chat turns, or text.
        advantage (`float`):
            How much better than the others of its prompt it was rewarded; the loss is -advantage times its log-probability.
    """

    prompt: Any
    said: Any
    advantage: float


def completions_of(trainer: Any) -> list[Completion]:
    """Those of a trainer's latest generation; none where it keeps none, or not one advantage for each."""
    if not keeps_completions(trainer):
        return []
    logs = trainer._logs
    columns = [list(logs.get(name) or ()) for name in ("prompt", "completion", "advantages")]
    if not columns[0] or len({len(column) for column in columns}) > 1:
        return []
    return [Completion(prompt, said, float(advantage)) for prompt, said, advantage in zip(*columns, strict=True)]


def keeps_completions(trainer: Any) -> bool:
    """Whether a trainer gathers what its model says in training."""
    return isinstance(getattr(trainer, "_logs", None), dict)


def documents(first: int, completions: Sequence[Completion], chat: Chat) -> Iterator[TrainedRow]:
    """
    Completions as what is learnt of them: every token, as much as the advantage says.

    Args:
        first (`int`):
            The number of the first one.
        completions (`Sequence[Completion]`):
            In order.
        chat ([`Chat`]):
            How the policy is spoken to.
    """
    for number, completion in enumerate(completions, first):
        prompt, said = completion.prompt, _text(completion.said)
        if said is None:  # tools were called, or it is no text
            continue
        before = chat.encode(prompt, special=True) if isinstance(prompt, str) else chat.prompt_ids(prompt)
        after = [*chat.encode(said), *chat.eos_token_ids[:1]]
        learnt = [False] * len(before) + [True] * len(after)
        yield TrainedRow(number, [*before, *after], learnt, weight=completion.advantage)


def _text(said: Any) -> str | None:
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], dict):
        said = said[0].get("content")
    return said if isinstance(said, str) and said else None
