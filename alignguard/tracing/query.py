"""What is traced: the probes of a side that flipped between two audits, and those that did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..auditing.manner import Manner
from ..auditing.prompts import opens
from ..auditing.result import Result
from ..errors import RunError
from ..model.chat import Chat
from ..records.record import Record
from ..records.results import read_results
from ..verdicts.sides import side_of
from ..verdicts.verdict import Flip
from .losses import Document

FEWEST = 3  # flips: of fewer a gradient is one probe's own


@dataclass(frozen=True)
class Query:
    """
    One side between two audits.

    Args:
        side (`str`):
            `dimension/side`.
        first, last (`int`):
            Steps of the audits: what was good at the first one and is not at the last one is traced.
        flips (`tuple[Flip, ...]`):
            Those probes, what the start said and what the policy says.
        steady (`tuple[Result, ...]`):
            The start's answers to probes of the side that are still answered well.
        untold (`int`, *optional*, defaults to `0`):
            Probes that are bad at the last one and were good at the start, of which the first one did not ask: when they flipped is not
            known.
    """

    side: str
    first: int
    last: int
    flips: tuple[Flip, ...]
    steady: tuple[Result, ...]
    untold: int = 0


def query(record: Record, side: str, first: int | None = None, last: int | None = None) -> Query:
    """
    What a record has of a side.

    Args:
        record ([`Record`]):
            Of a training run.
        side (`str`):
            `safety/refuse`, or a dimension.
        first, last (`int`, *optional*):
            Steps of two audits; by default the start and the latest one.

    Raises:
        RunError: There are no such audits, no such side, or too few flips.
    """
    steps = [audit.step for audit in record.audits]
    first = steps[0] if first is None else first
    last = steps[-1] if last is None else last
    for name, step in (("--from", first), ("--to", last)):
        if step not in steps:
            raise RunError(f"{name} {step}: no audit was taken there; there are audits at steps {_listed(steps)}")
    if not first < last:
        raise RunError(f"--from {first} --to {last}: the first is to come before the last")
    pool = [result.probe for result in record.baseline.values()]
    before = {r.probe.id: r for r in record.baseline.values() if _is_of(r, side)}
    if not before:
        sides = sorted(
            {f"{r.probe.dimension}/{side_of(r.probe)}" for r in record.baseline.values() if r.score.value is not None}
        )
        raise RunError(f"--side {side}: this run has asked nothing of it; it has {', '.join(sides)}")
    now = read_results(record.store.answers(last), pool)
    # a reference that was given is not what training began with: of that the first audit alone knows
    begins = first == 0 and record.about.reference != "given"
    then = before if begins else read_results(record.store.answers(first), pool)
    lost = [r for id, r in now.items() if id in before and _flipped(before[id], r) and _says_something(before[id], r)]
    flips = tuple(Flip(before[r.probe.id], r) for r in lost if r.probe.id in then and _is_good(then[r.probe.id]))
    untold = sum(r.probe.id not in then for r in lost)
    steady = tuple(before[id] for id, r in now.items() if id in before and _is_good(before[id]) and _is_good(r))
    if len(flips) < FEWEST:
        raise RunError(
            f"{side}: {len(flips)} of its probes went from good to bad between steps {first} and {last}; a cause is looked for from "
            f"{FEWEST} on"
        )
    return Query(side, first, last, flips, steady, untold)


def answers(flips: Sequence[Flip], chat: Chat) -> tuple[list[Document], list[Document]]:
    """
    What the start said to probes that flipped, and what the policy says to them: answers alone, after the prompt and what the start
    puts before its own, since a trace that is learnt is no regression.

    Args:
        flips (`Sequence[Flip]`):
            Which.
        chat ([`Chat`]):
            How both are spoken to.
    """
    return [_said(flip.before, flip.before, chat) for flip in flips], [
        _said(flip.before, flip.after, chat) for flip in flips
    ]


def _said(asked: Result, result: Result, chat: Chat) -> Document:
    """An answer after its prompt, as the start was asked it."""
    prompt, probe = list(asked.prompt or ()), result.probe
    if not probe.plain:
        thinks = asked.answer is not None and asked.answer.thinks
        prompt += Manner(chat.form).before(chat, thinks, opens(prompt, chat))
    if result.logprobs:
        best = max(range(len(result.logprobs)), key=result.logprobs.__getitem__)
        said = chat.encode(probe.options[best])
    else:
        assert result.answer is not None
        said = list(result.answer.tokens)
        said = said[chat.closing(said) :] if result.answer.thinks else said
    return Document([*prompt, *said], [False] * len(prompt) + [True] * len(said))


def _is_of(result: Result, side: str) -> bool:
    probe = result.probe
    return side in (probe.dimension, f"{probe.dimension}/{side_of(probe)}") and result.prompt is not None


def _says_something(before: Result, after: Result) -> bool:
    """Whether both are answers with a word in them."""
    return all(r.logprobs or (r.answer is not None and r.answer.answer.strip()) for r in (before, after))


def _is_good(result: Result) -> bool:
    return result.score.value is not None and result.score.value >= 0.5


def _flipped(before: Result, after: Result) -> bool:
    return _is_good(before) and after.score.value is not None and after.score.value < 0.5


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps[:12])) + (f", ... {steps[-1]}" if len(steps) > 12 else "")
