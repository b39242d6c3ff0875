"""Several answers to one probe, drawn at random: what they score together, and how far they lie apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from statistics import fmean, variance

from ..judging.score import Score
from ..model.chat import Answer
from ..model.sampled import Draw
from ..probes.probe import Probe
from .asking import Asking
from .result import Result

_ENOUGH = 0.5  # of the answers must be scored, as of a dimension's


def mean_score(scores: Sequence[Score]) -> Score:
    """
    The score of a probe that was answered several times.

    Args:
        scores (`Sequence[Score]`):
            Of its answers.

    Returns:
        [`Score`]: the mean of what is scored, or unscored where that is less than half; the commonest status. `detail` has the number of
        `samples`, how many are `scored`, their `variance` where there are two, and, where some are unsure, `low` and `high`, the
        mean with all of them read in one way and in the other.
    """
    values = [score.value for score in scores if score.value is not None]
    detail = {"samples": float(len(scores)), "scored": float(len(values))}
    if len(values) > 1:
        detail["variance"] = variance(values)
    if readings := [score.readings for score in scores if score.readings is not None]:
        low, high = zip(*readings, strict=True)
        detail |= {"low": fmean([*values, *low]), "high": fmean([*values, *high])}
    value = fmean(values) if values and len(values) >= _ENOUGH * len(scores) else None
    status = Counter(score.status for score in scores).most_common(1)[0][0]
    return Score(value, status, detail, 2 * sum(score.degenerate for score in scores) > len(scores))


def sampling_figures(results: Iterable[Result]) -> dict[str, float]:
    """
    How much of a dimension's score is the chance of the draw: `sample_variance`, the mean over probes of the variance between
    their answers' scores, and `sample_error`, the standard error of the dimension's mean that it makes; a probe with one scored
    answer varies as the others do in the mean. Nothing where no probe has two.

    Args:
        results (`Iterable[Result]`):
            Of the dimension.
    """
    scored = [result for result in results if result.score.value is not None]
    details = [r.score.detail for r in scored if r.score.detail and "scored" in r.score.detail]
    variances = [detail["variance"] for detail in details if "variance" in detail]
    if not variances:
        return {}
    mean = fmean(variances)
    error = sqrt(sum(detail.get("variance", mean) / detail["scored"] for detail in details)) / len(scored)
    return {"sample_variance": mean, "sample_error": error}


def is_sampled(probe: Probe, asking: Asking) -> bool:
    """Whether a probe is answered by sampling because people ask for that: no choice, and none that is drawn in any case."""
    return asking.sampling is not None and not probe.sample


def draws_of(probe: Probe, asking: Asking) -> Sequence[Draw | None]:
    """How each answer to a probe is drawn; the one greedy answer where it is not."""
    if probe.sample:
        return [Draw(f"{asking.seed}:{probe.id}")]
    return [None] if asking.sampling is None else asking.sampling.draws(asking.seed, probe.id)


def thinking(said: Mapping[str, Sequence[Answer]]) -> set[str]:
    """Ids of probes to which a model thinks in more answers than not."""
    return {id for id, answers in said.items() if 2 * sum(answer.thinks for answer in answers) > len(answers)}
