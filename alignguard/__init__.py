"""AlignGuard: whether a model in training is still the model that was aligned."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .__about__ import __version__

if TYPE_CHECKING:
    from .auditing.asking import Asking
    from .auditing.audit import Audit, audit
    from .errors import AlignGuardError, ProbeError, RunError, StartError
    from .holding.budget import DriftBudget
    from .judging.guards import GuardModel, TextClassifier, load_scorer
    from .model.chat import Chat
    from .model.generation import TokenBudget
    from .model.sampled import Sampling
    from .probes.pool import load_probes
    from .probes.probe import Probe
    from .probes.public.load import load_public
    from .tracing.found import Trace
    from .tracing.trace import trace
    from .trainer.callback import AlignGuardCallback
    from .trainer.schedule import Schedule
    from .verdicts.rule import StopRule
    from .verdicts.verdict import Verdict
    from .verdicts.watch import compare

# where each name is; it is imported when it is first used, so that `alignguard --help` need not wait for torch
_HOMES = {
    "AlignGuardCallback": "trainer.callback",
    "AlignGuardError": "errors",
    "Asking": "auditing.asking",
    "Audit": "auditing.audit",
    "Chat": "model.chat",
    "DriftBudget": "holding.budget",
    "GuardModel": "judging.guards",
    "Probe": "probes.probe",
    "ProbeError": "errors",
    "RunError": "errors",
    "Sampling": "model.sampled",
    "Schedule": "trainer.schedule",
    "StartError": "errors",
    "StopRule": "verdicts.rule",
    "TextClassifier": "judging.guards",
    "TokenBudget": "model.generation",
    "Trace": "tracing.found",
    "Verdict": "verdicts.verdict",
    "audit": "auditing.audit",
    "compare": "verdicts.watch",
    "load_probes": "probes.pool",
    "load_public": "probes.public.load",
    "load_scorer": "judging.guards",
    "trace": "tracing.trace",
}

__all__ = [
    "AlignGuardCallback",
    "AlignGuardError",
    "Asking",
    "Audit",
    "Chat",
    "DriftBudget",
    "GuardModel",
    "Probe",
    "ProbeError",
    "RunError",
    "Sampling",
    "Schedule",
    "StartError",
    "StopRule",
    "TextClassifier",
    "TokenBudget",
    "Trace",
    "Verdict",
    "__version__",
    "audit",
    "compare",
    "load_probes",
    "load_public",
    "load_scorer",
    "trace",
]


_ROOMS = "auditing cli distributed drift errors holding intervals judging model probes records report tracing trackers trainer verdicts"


def __getattr__(name: str) -> Any:
    if name in _ROOMS.split():
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
