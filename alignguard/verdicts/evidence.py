"""Evidence of a regression that stays valid however often one looks, over all dimensions together.

**Claims.** (1) Under the null hypothesis that training has changed nothing systematically, over prompts like those of the pool,
the probability that the run-wise p of any dimension ever falls to alpha is at most alpha. (2) The interval of a dimension lies
above the true drop, at any look of the run, with probability alpha at most, and below it likewise.

**Assumptions.** Families of probes are a sample of independent families. For (1): without a systematic change a family is as
likely to have fallen as to have risen: the whole history of its differences (baseline score minus score) has the same
distribution with its sign flipped. At one look, answers that are right or wrong are so when they are as often lost as won. For
(2) the same of differences less the drop that is tested, which holds for large n only (Janssen 1997: the statistic is
studentized); where few answers are lost the error is on the safe side. Which probes are asked at a look needs no assumption.

**Sign-flip test** (`sign_flip.py`, the default; a randomization test). Each family's history is multiplied by +1 or -1 at
random, 20,000 times over: worlds in which nothing systematic happened, with the same churn, the same draws and the same
dependence between looks. For every part of a dimension (all of it, and each side: requests to refuse and to comply with, say),
for all dimensions together, and for every window of recent looks

    z(d) = sum over families s_f / sqrt(sum over families s_f^2),    s_f = sum over its probes of latest difference - d

which a flip changes in its numerator only. (The latest, not all of a window: a start that was lucky in its answers would
otherwise be held against the policy once an audit.) What is unscored now counts as unchanged. The real
world alone is taken to hold one family more, that no draw has met (a mean of bounded values has no interval without it: Gaffke
2005; all of twelve answers lost do not prove that all would be). For p, and for a lower end of an interval above zero, it is
unchanged, and where scores lie in between it has risen from 0 to 1: a few answers that became much better, unseen, would else make the
many that became a little worse look proven. For a lower end below zero, which tells what may have been gained, it has risen too, and
for the upper end it has fallen from 1 to 0.

The largest z(0) of a world, over parts, windows and dimensions, is what chance can do at this look (Westfall & Young 1993,
maxT). By a look at most the share A of all worlds may have crossed the line (`spending.py`). The **run-wise p** of a part is the
smallest alpha at which its z(0) crosses; its **evidence** is log p / log alpha, 1 or more where it is significant for the whole
run. The **interval** of a part holds every drop d at which z(d) lies within the line that its dimension alone has at alpha
(repeated confidence intervals: Jennison & Turnbull 1989). So a drop above `min_drop` is proven where the lower end is above it.

**Sign test** (`sign_test.py`, the simplest). Families that fell against families that rose, latest answers of the last 8
looks, exact binomial, at alpha spent at this look / number of dimensions (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, isnan, log, nan
from typing import Protocol

from ..probes.probe import Probe


@dataclass(frozen=True)
class Difference:
    """
    One probe at one look.

    Args:
        probe (`Probe`):
            Which.
        value (`float`):
            Baseline score minus score, where both are known.
        scored (`bool`, *optional*, defaults to `True`):
            Whether it is scored now; if not, it counts as unchanged.
    """

    probe: Probe
    value: float
    scored: bool = True


@dataclass(frozen=True)
class Evidence:
    """
    What there is against a dimension, or a side of it.

    Args:
        p (`float`):
            Chance of as much, ever in this run and in any dimension, if nothing changed; below 1e-4 it is told as that.
        strength (`float`):
            log p / log alpha: from 1 on a fall is proven; below, how near it is.
        part (`str`):
            The side of the dimension that is strongest, e.g. `"refuse"`; empty for all of it.
        looks (`int`):
            Recent looks it rests on.
        n (`int`):
            Pairs in them.
        unscored (`int`):
            Of those, how many are not scored now: they count as unchanged, so that `drop` is the least it can be.
        drop, low, high (`float`):
            Mean drop over those pairs, with an interval for the whole run: either end is on the wrong side of the true drop,
            ever, with probability alpha at most.
        detectable (`float`):
            The smallest drop that would have been found by now with a probability of 80 %, had it been there since the first
            look; NaN where none would have been.
        sides (`Mapping[str, Evidence]`):
            Of a dimension with sides, each of them.
    """

    p: float = 1.0
    strength: float = 0.0
    part: str = ""
    looks: int = 0
    n: int = 0
    unscored: int = 0
    drop: float = 0.0
    low: float = -1.0
    high: float = 1.0
    detectable: float = nan
    sides: Mapping[str, Evidence] = field(default_factory=dict)

    def __str__(self) -> str:
        """p in two digits; what is not significant is not rounded to what is."""
        return f"{self.p:.2g}" if self.p < 0.995 else "1"


class Test(Protocol):
    """A test of a run. Looks are given in order; all that it keeps follows from them."""

    def look(
        self, differences: Sequence[Difference], done: float, scores: Mapping[tuple[str, str], float]
    ) -> dict[str, Evidence]:
        """
        Take in a look.

        Args:
            differences (`Sequence[Difference]`):
                Of the probes asked now and scored then.
            done (`float`):
                Share of the run that is done.
            scores (`Mapping[tuple[str, str], float]`):
                The start's mean score by dimension and side (`""` for all of it): what there is to lose.

        Returns:
            `dict[str, Evidence]`: of each dimension watched.
        """
        ...


def strength_of(p: float, alpha: float) -> float:
    """log p / log alpha."""
    return 0.0 if p >= 1 else log(max(p, 1e-300)) / log(alpha)


def doubted(evidence: Evidence, doubt: Evidence | None) -> Evidence:
    """Evidence that counts only where the same, with unsure answers read in the policy's favour, is evidence too."""
    if doubt is None:
        return evidence
    sides = {side: doubted(e, doubt.sides.get(side, Evidence())) for side, e in evidence.sides.items()}
    return replace(evidence, detectable=_largest([evidence, doubt]), sides=sides)


def in_a_row(looks: Sequence[Mapping[str, Evidence]], patience: int) -> dict[str, Evidence]:
    """
    The latest of some looks, with the drop that each of so many in a row would have found.

    Args:
        looks (`Sequence[Mapping[str, Evidence]]`):
            The last `patience` ones, or all where there were fewer: then none would have been found yet.
        patience (`int`):
            Audits in a row that must call a regression.
    """

    def found(evidence: Evidence, before: Sequence[Evidence]) -> Evidence:
        sides = {side: found(e, [b.sides.get(side, Evidence()) for b in before]) for side, e in evidence.sides.items()}
        drop = _largest([evidence, *before]) if len(looks) >= patience else nan
        return replace(evidence, detectable=drop, sides=sides)

    *before, now = looks or [{}]
    return {name: found(e, [look.get(name, Evidence()) for look in before]) for name, e in now.items()}


def _largest(evidence: Sequence[Evidence]) -> float:
    """The drop that all would have found; NaN where one of them would have found none."""
    found = least_found(evidence)
    return found if isfinite(found) else nan


def least_found(evidence: Iterable[Evidence]) -> float:
    """The smallest drop that would have been found in any of these; infinite where in some none would have been."""
    return max((inf if isnan(e.detectable) else e.detectable for e in evidence), default=inf)


def latest(looks: Sequence[Sequence[Difference]]) -> list[Difference]:
    """The latest difference of every probe asked in these looks."""
    return list({d.probe.id: d for look in looks for d in look}.values())
