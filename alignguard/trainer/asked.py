"""Which probes an audit asks."""

from __future__ import annotations

from ..probes.draw import draw
from ..probes.probe import Probe
from .pace import Pace
from .start import RunContext, RunState


def asked_now(context: RunContext, state: RunState, pace: Pace | None, step: int) -> list[Probe]:
    """
    The probes of the next audit, on every process the same.

    Args:
        context ([`RunContext`]), state ([`RunState`]):
            Of the run.
        pace ([`Pace`], *optional*):
            Where there is an overhead: the last audit asks the whole pool if what is left of it allows for that.
        step (`int`):
            Of the trainer.
    """
    settings, known = context.settings, context.settings.pool
    # a run that we join later asks what it would have asked; where audits are left out, what was asked decides
    number = settings.schedule.number(step, context.last) if pace is None else len(state.audits)
    asked = settings.drawn(number)
    if context.reference.model is None and any(probe.id not in state.baseline for probe in asked):
        # a cache knows what was planned; an audit that was not (a run stopped early) asks among that
        known = [probe for probe in known if probe.id in state.baseline]
        asked = draw(known, settings.schedule.draw, settings.seed, number)
    if 0 < step == context.last and pace is not None and context.reference.model is not None:
        # the start is asked what it was not
        ahead = 2 - sum(probe.id in state.baseline for probe in known) / len(known)
        if context.asking.ranks.first(pace.affords(pace.audit * ahead * len(known) / len(asked))):
            return known
    return asked
