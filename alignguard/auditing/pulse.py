"""A pulse: a small look between audits, without generation. Drift, choices and leanings on a few probes, in one pass.

Always the same probes, so that the curve moves with the model alone; it is shown, and no verdict rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from ..distributed import compute_device
from ..drift.reference import Reference
from ..judging.judge import judge_choice
from ..model.observe import memory_given_back, observing, restored_rng
from ..probes.probe import DIMENSIONS, Probe
from .asking import Asking
from .audit import Audit, as_last
from .drifts import items_of, measure_drift, read_as_told
from .figures import named
from .leaning import leanings
from .likelihoods import ask_choices, refusal_margins
from .reading import Told
from .result import Result


def pulse(
    model: Any,
    probes: Sequence[Probe],
    reference: Reference,
    baseline: dict[str, Result],
    asking: Asking,
    last: Audit | None,
) -> dict[str, float]:
    """
    Take a pulse.

    Args:
        model (`PreTrainedModel`):
            The policy.
        probes (`Sequence[Probe]`):
            Those that are asked at every pulse.
        reference ([`Reference`]):
            The frozen start.
        baseline (`dict[str, Result]`):
            With the start's answers to these probes.
        asking (`Asking`):
            How they are asked.
        last ([`Audit`] or `None`):
            The audit before: the policy is read as it answered then.

    Returns:
        `dict[str, float]`: `alignguard/pulse/...`, see `figures.py`.
    """
    device, chat = compute_device(model), asking.chat
    ahead = as_last(probes, baseline, last, chat)
    own = {probe.id: baseline[probe.id].opening for probe in probes}

    def read(part: list[Probe]) -> dict[str, tuple[float | None, float, float | None, float | None]]:
        told, items = Told(), items_of(part, baseline, chat)
        choices = [probe for probe in part if probe.judge == "choice"]
        with observing(model, *reference.models, autocast=asking.autocast):
            drifts = measure_drift(model, reference, items, asking, told, ahead)
            drifts = read_as_told(model, reference, items, drifts, ahead.manner, ahead.thinks, asking, told)
            chosen = ask_choices(model, choices, asking, ahead.thinks, ahead.manner, told)
            margins = refusal_margins(model, part, asking, ahead.thinks, ahead.manner, told)
            leaning = leanings(model, part, asking, own, ahead.thinks, ahead.manner, told)
        shown: dict[str, float | None] = {**{p.id: judge_choice(p, chosen[p.id]).value for p in choices}, **margins}
        # of an answer whose trace was cut off there is nothing after it: that is no drift of zero
        kls = {id: mean(drift.answer) if drift.answer else None for id, drift in drifts.items()}
        return {
            id: (kls[id], drift.same / len(drift.raw), shown.get(id), leaning.get(id)) for id, drift in drifts.items()
        }

    with restored_rng(), memory_given_back(device), reference.awake(device):
        found = asking.ranks.share(probes, read)
    figures = {"pulse/same": mean(same for _, same, *_ in found.values())}
    if kls := [kl for kl, *_ in found.values() if kl is not None]:
        figures["pulse/kl"] = mean(kls)
    for key, choice in (("pulse/choices", True), ("pulse/refusal_margin", False)):
        of = [found[p.id][2] for p in probes if (p.judge == "choice") == choice]
        values = [value for value in of if value is not None]
        if values:
            figures[key] = mean(values)
    for dimension in DIMENSIONS:
        of = [found[p.id][3] for p in probes if p.dimension == dimension]
        if values := [value for value in of if value is not None]:
            figures[f"pulse/{dimension}_leaning"] = mean(values)
    return named(figures)
