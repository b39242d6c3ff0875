"""How the policy answers: greedily, in batches, within a budget for the trace and one for the answer.

A draft (the reference's answer) saves work: as far as one teacher-forced pass shows that the policy would say the same,
it is taken over, and only the rest is generated. The result is what plain greedy decoding gives, up to ties of
floating-point arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from .chat import Answer, Chat, split_trace
from .forward import batches

_LOOK_EVERY = 16  # tokens between two looks at a row's text, for its thinking tags


@dataclass(frozen=True)
class TokenBudget:
    """
    How long the model may speak.

    Args:
        answer (`int`, *optional*, defaults to `64`):
            Tokens of the answer proper.
        trace (`int`, *optional*, defaults to `512`):
            Tokens of a trace, if it opens one.
        force_close (`bool`, *optional*, defaults to `True`):
            Close a trace that ran out of its budget, so that the answer can still be asked for; such answers are
            marked `forced`. Otherwise they are TRUNCATED and unscored.
        batch_tokens (`int`, *optional*, defaults to `8192`):
            Padded tokens, prompt and answer, that are worked on at once.
    """

    answer: int = 64
    trace: int = 512
    force_close: bool = True
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        for name in ("answer", "trace", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"TokenBudget: {name} must be at least 1, not {getattr(self, name)}")


@dataclass
class _Asked:
    """One prompt on its way to an answer."""

    prompt: list[int]
    inside: bool  # the prompt itself opened a trace
    said: list[int]  # generated so far
    forced: bool = False


class _Budgets(StoppingCriteria):
    """Stops each row at its own limit, which depends on whether it thinks: known from its text, looked at now and then."""

    def __init__(self, rows: list[_Asked], start: int, chat: Chat, budget: TokenBudget, seen: list[int]) -> None:
        self.rows, self.start, self.chat, self.budget = rows, start, chat, budget
        self.seen = seen  # tokens of each row that stand before `start`
        self.caps = [0] * len(rows)
        self.done = [False] * len(rows)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        new = input_ids.shape[1] - self.start
        said = [n + new for n in self.seen]
        due = [i for i, n in enumerate(said) if not self.done[i] and (n % _LOOK_EVERY == 0 or n >= self.caps[i])]
        if due:
            fresh = input_ids[due, self.start :].tolist()
            for i, tokens in zip(due, fresh, strict=True):
                row = self.rows[i]
                self.caps[i] = _limit(row, row.said + tokens, self.chat, self.budget)
                self.done[i] = said[i] >= self.caps[i] or any(t in self.chat.eos_token_ids for t in tokens)
        return torch.tensor(self.done, device=input_ids.device)


def _limit(row: _Asked, said: list[int], chat: Chat, budget: TokenBudget) -> int:
    """How many tokens this row may have said in all, judged by what it has said so far."""
    if row.forced:
        return len(row.said) + budget.answer
    _, _, thinks, closed = split_trace(chat.decode(said), chat.tags, row.inside)
    if not thinks:
        return budget.answer
    if not closed:
        return budget.trace
    return chat.closing(said) + budget.answer


@contextmanager
def _plain_defaults(model: Any) -> Iterator[None]:
    """What a checkpoint's own generation config asks for (penalties, stop strings, ...) is no part of a greedy answer."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base.generation_config
    base.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    try:
        yield
    finally:
        base.generation_config = own


def _generate(
    model: Any, rows: list[_Asked], chat: Chat, budget: TokenBudget, synced: bool, tick: Callable[[int], None]
) -> None:
    """Continue every row until it ends or its budget does."""
    device = next(model.parameters()).device
    room = budget.answer if all(row.forced for row in rows) else budget.trace + budget.answer
    lengths = [len(row.prompt) + len(row.said) for row in rows]
    for batch in batches([n + min(room, 4 * budget.answer) for n in lengths], budget.batch_tokens):
        part = [rows[i] for i in batch]
        width = max(lengths[i] for i in batch)
        ids = torch.full((len(part), width), chat.pad_token_id, dtype=torch.long)
        mask = torch.zeros((len(part), width), dtype=torch.long)
        for k, row in enumerate(part):  # padding on the left: every row goes on at the same position
            sequence = row.prompt + row.said
            ids[k, width - len(sequence) :] = torch.tensor(sequence)
            mask[k, width - len(sequence) :] = 1
        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=room,
            eos_token_id=list(chat.eos_token_ids) or None,
            pad_token_id=chat.pad_token_id,
            use_cache=True,
        )
        criterion = _Budgets(part, width, chat, budget, [len(row.said) for row in part])
        with _plain_defaults(model):
            out = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([criterion]),
                synced_gpus=synced,
            )
        for row, tokens in zip(part, out[:, width:].tolist(), strict=True):
            said = row.said + tokens
            end = next((i + 1 for i, t in enumerate(said) if t in chat.eos_token_ids and i >= len(row.said)), len(said))
            said = said[:end]
            row.said = said[: max(_limit(row, said, chat, budget), len(row.said))]
        tick(len(part))


def answer_all(
    model: Any,
    prompts: Sequence[list[int]],
    inside: Sequence[bool],
    chat: Chat,
    budget: TokenBudget,
    drafts: Sequence[list[int]] | None = None,
    synced: bool = False,
    tick: Callable[[int], None] = lambda n: None,
) -> list[Answer]:
    """
    Answer every prompt, greedily.

    Args:
        model (`PreTrainedModel`):
            The model that answers; in eval mode, without gradients, see `observe.py`.
        prompts (`Sequence[list[int]]`):
            Token ids.
        inside (`Sequence[bool]`):
            Whether a prompt itself opens a trace.
        chat (`Chat`):
            Tags and end tokens.
        budget (`TokenBudget`):
            Of trace and answer.
        drafts (`Sequence[list[int]]`, *optional*):
            For each prompt tokens already known to be what the model would say greedily.
        synced (`bool`, *optional*, defaults to `False`):
            Whether all ranks must take the same number of steps (FSDP, ZeRO-3).
        tick (`Callable[[int], None]`, *optional*):
            Called with the number of prompts answered, for a progress bar.

    Returns:
        `list[Answer]`, in the order of the prompts.
    """
    rows = [
        _Asked(list(prompt), opens, list(draft))
        for prompt, opens, draft in zip(prompts, inside, drafts or [[]] * len(prompts), strict=True)
    ]
    # a draft that ends the answer, or fills the budget, leaves nothing to generate
    for row in rows:
        row.said = row.said[: _limit(row, row.said, chat, budget)] if row.said else row.said
    todo = [row for row in rows if not _is_done(row, chat, budget)]
    tick(len(rows) - len(todo))
    if todo:
        _generate(model, todo, chat, budget, synced, tick)
    if budget.force_close:
        cut = [row for row in rows if not chat.answer(row.said, row.inside).closed and not _ended(row, chat)]
        for row in cut:
            row.said, row.forced = row.said + chat.close_ids(), True
        if cut:
            _generate(model, cut, chat, budget, synced, lambda n: None)
    return [chat.answer(row.said, row.inside, row.forced) for row in rows]


def _ended(row: _Asked, chat: Chat) -> bool:
    return bool(row.said) and row.said[-1] in chat.eos_token_ids


def _is_done(row: _Asked, chat: Chat, budget: TokenBudget) -> bool:
    return _ended(row, chat) or (bool(row.said) and len(row.said) >= _limit(row, row.said, chat, budget))
