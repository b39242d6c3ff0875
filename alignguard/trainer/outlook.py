"""What the audits that are planned will be able to find, in words, before step 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isnan

from ..probes.probe import TRUST_DIMENSIONS
from ..report.words import points
from ..verdicts.evidence import Evidence, least_found
from ..verdicts.plan import Plan, foreseen
from ..verdicts.rule import StopRule
from .settings import Settings

_WANTED = 0.15  # where less is found, it is said what would find it
_LARGER = (24, 48, 96)  # draws that are tried


def outlook(settings: Settings, last: int) -> str:
    """
    What the audits that are planned will be able to find.

    Args:
        settings ([`Settings`]):
            What people ask.
        last (`int`):
            The trainer's last step.
    """
    schedule, rule = settings.schedule, settings.stop or StopRule()
    steps = schedule.planned(last)[1:]
    found = _foreseen(settings, steps)
    if not found:
        return ""
    worst = least_found(found.values())
    audits = "audit" if len(steps) == 1 else "audits"
    text = (
        f"\nAlignGuard: {len(steps)} {audits} with {schedule.draw} {'' if schedule.rotate else 'fixed '}probes a dimension find "
        f"{_reach(found)} (with a probability of 80 %; churn of 6 % assumed)"
    )
    if schedule.overhead is not None and len(steps) > 1:
        text += f"; the last alone {points(least_found(_foreseen(settings, steps[-1:]).values()))}"
    if worst > _WANTED and not rule.looks:
        for draw in (d for d in _LARGER if d > schedule.draw or not schedule.rotate):
            better = least_found(
                _foreseen(replace(settings, schedule=replace(schedule, draw=draw, rotate=True)), steps).values()
            )
            if better < 0.8 * min(worst, 1.0):
                text += f"; draw={draw}{'' if schedule.rotate else ', rotate=True'} finds {points(better)}"
                if round(better, 2) <= _WANTED:
                    break
    asked = {probe.dimension for probe in settings.pool}
    ignored = [name for name in TRUST_DIMENSIONS if name in asked and name not in rule.dimensions]
    return text + (f"; not watched: {', '.join(ignored)}" if ignored else "")


def _foreseen(settings: Settings, steps: list[int]) -> dict[str, Evidence]:
    plan = Plan(settings.pool, settings.drawn, steps)
    return foreseen(plan, settings.stop or StopRule(), settings.seed)


def _reach(found: Mapping[str, Evidence]) -> str:
    blind = [name for name, e in found.items() if isnan(e.detectable)]
    seen = [e.detectable for e in found.values() if not isnan(e.detectable)]
    if not seen:
        return "no drop in any dimension, however large: ask more probes"
    text = f"drops of {points(max(seen))} or more"
    return text if not blind else f"{text}, and in {', '.join(blind)} none, however large"
