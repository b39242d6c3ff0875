"""How what a model said is judged, and what comes of each probe: one way for whoever was asked, and wherever it ran."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import ProbeError
from ..judging.judge import judge_answer, judge_choice, toxicity_texts
from ..judging.score import Score, ToxicityScorer, checked
from ..judging.scorers import seconds_of
from ..model.chat import Answer
from ..probes.probe import Probe
from ..timed import LateError
from .asking import Asking, Judges
from .result import Result, Sample
from .samples import is_sampled, mean_score

T = TypeVar("T")
_LEAST = 1e-3  # seconds: what is late is interrupted at once


def judged(
    probes: Sequence[Probe],
    asking: Asking,
    answers: Mapping[str, Sequence[Answer]],
    logprobs: Mapping[str, list[float]],
    margins: Mapping[str, float],
    leaning: Mapping[str, float],
) -> dict[str, Result]:
    """
    What came of each probe.

    Args:
        probes (`Sequence[Probe]`), asking (`Asking`):
            What was asked, and how.
        answers (`Mapping[str, Sequence[Answer]]`):
            By probe id, what was said.
        logprobs (`Mapping[str, list[float]]`), margins (`Mapping[str, float]`), leaning (`Mapping[str, float]`):
            By probe id, what was read off likelihoods: of each choice its options, see [`ask_choices`]; and of those that have one
            the refusal margin and the leaning.

    Returns:
        `dict[str, Result]` by probe id, in the order of the probes.

    Raises:
        ProbeError: A scorer failed, unless `asking.failed` is told instead.
    """
    others = [probe for probe in probes if probe.judge != "choice"]
    said = [(probe, answer) for probe in others for answer in answers[probe.id]]
    found = iter(judge_all([probe for probe, _ in said], [answer for _, answer in said], asking, margins))
    samples = {p.id: tuple(Sample(answer, next(found)) for answer in answers[p.id]) for p in others}
    scores = {p.id: score_of(samples[p.id], is_sampled(p, asking), margins.get(p.id)) for p in others}
    scores |= {p.id: judge_choice(p, logprobs[p.id]) for p in probes if p.judge == "choice"}
    return {
        p.id: Result(
            p,
            scores[p.id],
            answers[p.id][0] if p.id in answers else None,
            logprobs.get(p.id),
            leaning=leaning.get(p.id),
            samples=samples[p.id] if p.id in samples and is_sampled(p, asking) else (),
        )
        for p in probes
    }


def judge_all(
    probes: Sequence[Probe], answers: Sequence[Answer], asking: Judges, margins: Mapping[str, float]
) -> list[Score]:
    """
    Judge generated answers; texts go to the toxicity scorer all at once.

    Args:
        probes (`Sequence[Probe]`), answers (`Sequence[Answer]`):
            What was asked and said.
        asking ([`Judges`]):
            With the scorers.
        margins (`Mapping[str, float]`):
            Refusal margins by probe id, kept in the scores' detail.

    Raises:
        ProbeError: A scorer failed, unless `asking.failed` is told instead.
    """
    asked = list(zip(probes, answers, strict=True))
    toxicity, judge = _toxicity(asked, asking), _timed("judge=", asking.judge, asking)
    scores = []
    for probe, answer in asked:
        looked_up = None if toxicity is None else _LookedUp(toxicity, probe.prompt, asking.toxicity)
        try:
            score = judge_answer(probe, answer, looked_up, judge)
        except ProbeError as error:
            _give_up(error, asking)
            judge = None
            score = judge_answer(probe, answer, looked_up, judge)
        if probe.id in margins:
            score = _with_margin(score, margins[probe.id])
        scores.append(score)
    return scores


class _LookedUp:
    """A scorer that has been asked already, of the answers to one prompt."""

    def __init__(self, found: Mapping[tuple[str, str], float], prompt: str, scorer: ToxicityScorer | None) -> None:
        self.found, self.prompt = found, prompt
        self.only_english = getattr(scorer, "only_english", False)

    def __call__(self, texts: list[str]) -> list[float]:
        return [self.found[self.prompt, text] for text in texts]


def _toxicity(asked: Sequence[tuple[Probe, Answer]], asking: Judges) -> dict[tuple[str, str], float] | None:
    """What the toxicity scorer says of every text, by prompt and text; `None` where there is none, or it failed."""
    scorer = _timed("toxicity=", asking.toxicity, asking)
    if scorer is None or asking.toxicity is None:
        return None
    pairs = [(probe.prompt, text) for probe, answer in asked for text in toxicity_texts(probe, answer, asking.toxicity)]
    if not pairs:
        return {}
    prompts, texts = map(list, zip(*pairs, strict=True))
    given = (texts, prompts) if getattr(asking.toxicity, "reads_prompts", False) else (texts,)
    try:
        return dict(zip(pairs, checked("the toxicity scorer", lambda: scorer(*given), len(texts)), strict=True))
    except ProbeError as error:
        _give_up(error, asking)
        return None


def _timed(name: str, scorer: Callable[..., T] | None, asking: Judges) -> Callable[..., T] | None:
    """A scorer that is interrupted where all its calls together take too long: other processes wait for this one."""
    if scorer is None:
        return None
    seconds = seconds_of(scorer)
    ends = time.monotonic() + seconds

    def timed(*given: Any) -> T:
        try:
            return asking.patience.call(name, max(_LEAST, ends - time.monotonic()), lambda: scorer(*given))
        except LateError:  # of its last call, which had what the others had left
            raise LateError(
                f"it took longer than {seconds:.3g} s, and was interrupted; a scorer with an attribute `seconds` may take that long"
            ) from None

    return timed


def _give_up(error: Exception, asking: Judges) -> None:
    if asking.failed is None:
        raise error
    asking.failed(error)


def score_of(samples: Sequence[Sample], sampled: bool, margin: float | None) -> Score:
    """A probe's score from those of its answers, with its refusal margin where it has one."""
    if not sampled:
        return samples[0].score
    score = mean_score([sample.score for sample in samples])
    return score if margin is None else _with_margin(score, margin)


def _with_margin(score: Score, margin: float) -> Score:
    return replace(score, detail={**(score.detail or {}), "margin": margin})
