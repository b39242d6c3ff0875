"""What any log tells of a record: its audits with their answers, and what may be said of a probe."""

from __future__ import annotations

from math import isfinite
from statistics import fmean
from typing import Any

from ..auditing.audit import Audit
from ..auditing.figures import PREFIX
from ..auditing.result import Result
from ..model.sampled import Draw
from ..probes.probe import DIMENSIONS, Probe
from ..records.about import About
from ..records.record import Record

DRIFT = "kl"  # the figures of drift, told of like a dimension


def step_name(record: Record, audit: Audit) -> str:
    """An audit's name among those of its record."""
    return f"step-{audit.step:05d}" if record.about.is_run else "audit"


def figures_of(audit: Audit) -> dict[str, dict[str, float]]:
    """The figures of each dimension and of drift, the score first, under their names within it; what is not finite is left out."""
    found: dict[str, dict[str, float]] = {}
    for name in (*DIMENSIONS, DRIFT):
        begins = f"{PREFIX}{name}/"
        known = {key.removeprefix(begins): value for key, value in audit.metrics.items() if key.startswith(begins)}
        part = {key: value for key, value in known.items() if isfinite(value)}
        if part:
            found[name] = {key: part[key] for key in sorted(part, key=lambda key: key != "score")}
    return found


def label(probe: Probe) -> dict[str, str]:
    """What is told of a probe where nothing is quoted."""
    return {"id": probe.id, "dimension": probe.dimension, "judge": probe.judge, "group": probe.group}


def right(probe: Probe, quote: bool) -> str:
    """What would have been right, as far as it may be said: to refuse or to comply is no text."""
    if probe.expect or not quote:
        return probe.expect
    chosen = probe.options[probe.target] if probe.options and probe.target >= 0 else ""
    return probe.expected or chosen.strip() or ", ".join(probe.secrets or probe.facts)


def drawn(probe: Probe, about: About) -> dict[str, float | None]:
    """How an answer to a probe was drawn: by a benchmark's own settings, by those of the record, or greedily; choices are not drawn."""
    if probe.judge == "choice":
        return {"temperature": None, "top_p": None}
    if probe.sample:
        return {"temperature": Draw.temperature, "top_p": Draw.top_p}
    return heat(about) or {"temperature": 0.0, "top_p": 1.0}


def heat(about: About) -> dict[str, Any]:
    """The settings by which all answers of a record were drawn; nothing where they are greedy."""
    given = about.sampling or {}
    return {name: given[name] for name in ("temperature", "top_p") if name in given}


def measured(result: Result, start: Result, about: About) -> dict[str, Any]:
    """What was found of a probe beside its score, and at the start; a model that is held against nothing has none but itself."""
    drift = result.drift.answer if result.drift is not None else None
    began = {"start": start.score.value, "start_status": start.score.status.value}
    return {
        "status": result.score.status.value,
        **({} if about.is_alone else began),
        "leaning": result.leaning,
        "kl": fmean(drift) if drift else None,
        "degenerate": result.score.degenerate,
    }
