"""Answers on record judged anew: by a scorer that was not there, or by judges of a later version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..judging.judge import OwnJudge, ToxicityScorer, judge_choice
from ..probes.probe import Probe
from ..timed import Patience
from .judged import judge_all, score_of
from .result import Result, Sample


@dataclass(frozen=True)
class Scorers:
    """
    Who judges.

    Args:
        toxicity (`Callable[[list[str]], list[float]]`, *optional*):
            Texts to probabilities of being toxic.
        judge (`Callable[[str, str], float]`, *optional*):
            For probes with the judge `own`.
    """

    toxicity: ToxicityScorer | None = None
    judge: OwnJudge | None = None
    failed: None = None
    patience: Patience = field(default_factory=Patience)


def rejudged(results: Mapping[str, Result], scorers: Scorers) -> dict[str, Result]:
    """
    The same answers with new scores. What was read off likelihoods stays what it was, and so does what a judge of people's own has
    scored, where none is given.

    Args:
        results (`dict[str, Result]`):
            By probe id, of the start or of one audit.
        scorers ([`Scorers`]):
            Who judges.

    Raises:
        ProbeError: A scorer failed.
    """
    said = {
        id: r.samples or (Sample(r.answer, r.score),)
        for id, r in results.items()
        if r.answer and is_read(r.probe, scorers)
    }
    margins = {id: value for id, r in results.items() if (value := (r.score.detail or {}).get("margin")) is not None}
    asked = [(results[id].probe, sample.answer) for id, samples in said.items() for sample in samples]
    scores = iter(judge_all([probe for probe, _ in asked], [answer for _, answer in asked], scorers, margins))
    found = {}
    for id, result in results.items():
        if id in said:
            samples = tuple(Sample(sample.answer, next(scores)) for sample in said[id])
            score = score_of(samples, bool(result.samples), margins.get(id))
            result = replace(result, score=score, samples=samples if result.samples else ())
        elif result.logprobs is not None and result.probe.judge == "choice":
            result = replace(result, score=judge_choice(result.probe, result.logprobs))
        found[id] = result
    return found


def is_read(probe: Probe, scorers: Scorers) -> bool:
    """Whether its answers are judged by what they say: a training prompt's are not, and a choice is one of likelihoods."""
    return probe.judge not in ("choice", "none") and (probe.judge != "own" or scorers.judge is not None)
