"""The pool: everything that `load_probes()` takes, as one list of probes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ProbeError
from ..given import meant
from ..text import in_a_line
from .probe import DIMENSIONS, Probe, repeats
from .public.benchmarks import BENCHMARKS, find_benchmark
from .public.load import load_public
from .rows import need, need_seen, probe_from_row, probes_from_rows, read_probe_file

logger = logging.getLogger("alignguard")
_FIRST = 5  # repeated questions that are named
_HALF = re.compile("[\\ud800-\\udfff]")  # of a surrogate pair: no tokenizer reads it, and no file can hold it
_EXPECTED = "a name, a path, a dataset or probes are expected"


def load_probes(sources: Any = "core") -> list[Probe]:
    """
    The pool: every probe of the sources, in order.

    Args:
        sources (*optional*, defaults to `"core"`):
            One or a list of: `"core"` (all built-in probes), the name of a dimension (its built-in probes), the name or
            hub id of a published benchmark (see [`load_public`]), a path to a JSONL file, a `datasets.Dataset` or
            dictionaries of the same fields, and [`Probe`]s themselves, or lists of any of them.

    Returns:
        `list[Probe]`, ids unique. Where your own rows ask a question again under another family, that is told, once.

    Raises:
        ProbeError: A source is unknown, a file is wrong, or two probes share an id.

    Example:
    ```python
    >>> from alignguard import load_probes
    >>> pool = load_probes(["safety", "privacy", "my_probes.jsonl"])
    ```
    """
    pool, own = read_pool(sources)
    again = [(p, q) for p, q in repeats(pool) if p.family != q.family and {p.id, q.id} & own] if own else []
    if again:
        ask = "probe asks" if len(again) == 1 else "probes ask"
        _tell(f"{len(again)} {ask} again, word for word, what another asks ({named(again)})")
    return pool


@cache
def _tell(what: str) -> None:
    """Once: what is loaded here is loaded again where it is used."""
    logger.warning(f"AlignGuard: {what}; give them one family, or leave them out: each counts as independent evidence")


def named(again: Sequence[tuple[Probe, Probe]]) -> str:
    """The first of some probes that ask again what others ask."""
    told = [f"{probe.id} as {before.id}" for probe, before in again[:_FIRST]]
    return in_a_line(", ".join([*told, "..."] if len(again) > _FIRST else told))


def read_pool(sources: Any) -> tuple[list[Probe], set[str]]:
    """The pool, see [`load_probes`], and the ids of what people wrote themselves: rows of their files and tables."""
    if isinstance(sources, (str, Path, Probe, dict)) or hasattr(sources, "column_names") or hasattr(sources, "iloc"):
        sources = [sources]
    if not isinstance(sources, Iterable):
        raise ProbeError(f"probes: {_EXPECTED}, e.g. 'core', not a {type(sources).__name__}")

    pool: list[Probe] = []
    own: set[str] = set()

    def add(probes: Sequence[Probe]) -> None:
        pool.extend(probes)
        own.update(probe.id for probe in probes)

    core = Path(__file__).parent / "core"
    for source in sources:
        if isinstance(source, Probe):
            pool.append(source)
        elif hasattr(source, "iloc"):
            raise ProbeError("a pandas table is no source of probes; give datasets.Dataset.from_pandas(table)")
        elif isinstance(getattr(source, "column_names", None), dict):
            raise ProbeError(
                f"a {type(source).__name__} is no source of probes; give a split of it: {', '.join(source)}"
            )
        elif hasattr(source, "column_names"):  # a datasets.Dataset
            add(probes_from_rows(source, "dataset"))
        elif isinstance(source, dict):
            add([probe_from_row(source, f"probe {len(pool)}")])
        elif isinstance(source, (list, tuple)):
            there, written = read_pool(source)
            pool.extend(there)
            own |= written
        elif not isinstance(source, (str, Path)):
            raise ProbeError(f"{_EXPECTED}, not a {type(source).__name__}")
        elif source == "core":
            for dimension in DIMENSIONS:
                pool.extend(read_probe_file(core / f"{dimension}.jsonl"))
        elif source in DIMENSIONS:
            pool.extend(read_probe_file(core / f"{source}.jsonl"))
        elif isinstance(source, str) and find_benchmark(source):
            pool.extend(load_public(source))
        elif isinstance(source, Path) or Path(source).suffix or os.path.exists(source):
            need(Path(source).suffix == ".jsonl", str(source), "probe files are JSONL and end in .jsonl")
            add(read_probe_file(source))
        else:
            names = ("core", *DIMENSIONS, *(b.name for b in BENCHMARKS))
            raise ProbeError(f"no probe set '{source}'{meant(str(source), names)}")
    seen: set[str] = set()
    for probe in pool:
        need(probe.id not in seen, f"probe {probe.id!r}", "the id stands twice in the pool; ids must be unique")
        seen.add(probe.id)
        need_seen("secrets", probe.secrets, f"probe {probe.id!r}")
        need_seen("facts", probe.facts, f"probe {probe.id!r}")
        turns = [text for turn in probe.messages for text in turn.values()]
        for text in (probe.id, probe.family, probe.group, *turns, *probe.options, *probe.secrets, *probe.facts):
            half = None if text.isascii() else _HALF.search(text)
            need(
                half is None, f"probe {probe.id!r}", f"holds half of a character ({half and half[0]!r}); write it whole"
            )
    need(pool, "probes", "the pool is empty; give at least one source, e.g. 'core'")
    return pool, own
