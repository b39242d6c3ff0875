"""What came of a probe in one audit: its score, its answer, its drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..judging.score import Score
from ..model.chat import Answer
from ..probes.probe import Probe
from ..text import clean


@dataclass(frozen=True)
class ProbeDrift:
    """
    Drift on one probe, on the reference's own answer.

    Args:
        raw (`list[float]`):
            KL(reference || policy) at each token of the answer as it stands, in nats.
        answer (`list[float]`):
            The same for the answer proper: after an empty, closed trace where the policy thinks and the reference does
            not; after the reference's own trace where the reference thinks.
        thinks (`float`):
            Probability that the policy opens a trace here.
        same (`int`):
            How many of the answer's tokens the policy would say too, greedily, before it first departs.
        departs (`int`):
            The token it would say there instead; -1 where it does not depart.
    """

    raw: list[float]
    answer: list[float]
    thinks: float
    same: int
    departs: int


@dataclass(frozen=True)
class Sample:
    """One of several answers to a probe, and how it was judged."""

    answer: Answer
    score: Score


@dataclass(frozen=True)
class Result:
    """
    One probe in one audit.

    Args:
        probe (`Probe`):
            What was asked.
        score (`Score`):
            How it was judged.
        answer (`Answer`, *optional*):
            What was said; `None` for a policy's choices, which are likelihoods.
        logprobs (`list[float]`, *optional*):
            Of each option, nats per byte.
        drift (`ProbeDrift`, *optional*):
            `None` in a baseline.
        prompt (`Sequence[int]`, *optional*):
            In a baseline, token ids of what was asked: the same are asked for as long as the run lasts.
        leaning (`float`, *optional*):
            In [0, 1], from likelihoods alone, see [`lean`]; `None` where there is none.
        opening (`str`, *optional*, defaults to `""`):
            In a baseline, how the start's own refusals open: leanings are read off it, too, for as long as the run lasts.
        samples (`tuple[Sample, ...]`, *optional*):
            Where it was answered by sampling, all answers: `answer` is the first, and `score` their mean (see [`mean_score`]).
    """

    probe: Probe
    score: Score
    answer: Answer | None = None
    logprobs: list[float] | None = None
    drift: ProbeDrift | None = None
    prompt: Sequence[int] | None = None
    leaning: float | None = None
    opening: str = ""
    samples: tuple[Sample, ...] = ()

    @property
    def each(self) -> list[Result]:
        """Answer by answer: what figures that count answers are made of."""
        return [replace(self, answer=s.answer, score=s.score, samples=()) for s in self.samples] or [self]


def said(result: Result) -> str:
    """What was answered: in words, or by the likeliest option."""
    if result.logprobs:
        text = result.probe.options[max(range(len(result.logprobs)), key=result.logprobs.__getitem__)]
    else:
        text = result.answer.answer if result.answer is not None else ""
    return clean(text)
