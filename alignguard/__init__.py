"""AlignGuard: whether a model in training is still the model that was aligned."""

from .__about__ import __version__
from .audit import Audit, audit
from .budget import DriftBudget
from .callback import AlignGuardCallback
from .chat import Chat
from .errors import AlignGuardError, ProbeError, RunError, StartError
from .generation import TokenBudget
from .probes import Probe, load_probes
from .probes.public import load_public
from .schedule import Schedule
from .stop import StopRule
from .verdict import Verdict, compare

__all__ = [
    "AlignGuardCallback",
    "AlignGuardError",
    "Audit",
    "Chat",
    "DriftBudget",
    "Probe",
    "ProbeError",
    "RunError",
    "Schedule",
    "StartError",
    "StopRule",
    "TokenBudget",
    "Verdict",
    "__version__",
    "audit",
    "compare",
    "load_probes",
    "load_public",
]
