"""What an audit and the start have in common: the same probes, scored then and now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..auditing.audit import Audit
from ..auditing.result import Result
from ..intervals import paired_drop
from .evidence import Difference
from .sides import TOGETHER, parts_of

Pair = tuple[float, float, str]  # scores then and now, and family
# what a scorer's batches and their padding can make of the same words, whose sign would count as evidence
ROUNDING = 1e-4


def pairs_of(ids: Iterable[str], baseline: Mapping[str, Result], audit: Audit) -> list[Pair]:
    """Of some probes those that were scored both times."""
    found = []
    for id in ids:
        then, now = baseline[id].score.value, audit.scores[id]
        if then is not None and now is not None:
            found.append((then, now, baseline[id].probe.family))
    return found


def figures_of(pairs: Sequence[Pair]) -> tuple[int, float, float, float, float, float]:
    """n, mean then, mean now, and their difference with its interval for this one look."""
    before, after, families = zip(*pairs, strict=True) if pairs else ((), (), ())
    paired = paired_drop(before, after, families)
    then, now = (sum(values) / len(values) if values else float("nan") for values in (before, after))
    return paired.n, then, now, paired.drop, paired.low, paired.high


def differences(baseline: Mapping[str, Result], audit: Audit, read_unsure: bool = False) -> list[Difference]:
    """
    Of the probes that were scored then; what is not scored now counts as unchanged, or, where that is asked and it is
    unsure, as what is best for the policy. So does what the start left unsure.
    """
    found = []
    for id, now in audit.scores.items():
        then, readings = baseline[id].score.value, baseline[id].score.readings
        if read_unsure:  # of a probe's several answers some may be unsure on either side
            best = audit.unsure[id][1] if then is not None and id in audit.unsure else now
            then, now = readings[0] if now is not None and readings is not None else then, best
        if then is not None:
            moved = 0.0 if now is None or abs(then - now) <= ROUNDING else then - now
            found.append(Difference(baseline[id].probe, moved, audit.scores[id] is not None))
    return found


def to_lose(
    baseline: Mapping[str, Result], sides: dict[str, tuple[str, ...]], watched: Collection[str]
) -> dict[tuple[str, str], float]:
    """The start's mean score of every part."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in baseline.values():
        if result.score.value is not None:
            for part in parts_of(result.probe, sides):
                found[result.probe.dimension, part].append(result.score.value)
            if result.probe.dimension in watched:
                found[TOGETHER, ""].append(result.score.value)
    return {part: sum(values) / len(values) for part, values in found.items()}
