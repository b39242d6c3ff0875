"""What is asked: the core pool, published benchmarks and people's own probes, each a `Probe`; no model is known here."""

from ..errors import ProbeError
from .pool import load_probes
from .probe import DIMENSIONS, JUDGES, TRUST_DIMENSIONS, Probe, pool_hash
from .rows import probe_from_row, read_probe_file

__all__ = [
    "DIMENSIONS",
    "JUDGES",
    "TRUST_DIMENSIONS",
    "Probe",
    "ProbeError",
    "load_probes",
    "pool_hash",
    "probe_from_row",
    "read_probe_file",
]
