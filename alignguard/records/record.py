"""A record on disk, of a training run or of a matched audit, read back as it was when it was written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..auditing.audit import Audit
from ..auditing.result import Result
from ..errors import RunError, one_line
from ..probes.pool import load_probes
from ..probes.probe import Probe, pool_hash
from ..verdicts.verdict import Verdict
from ..verdicts.watch import Watch
from .about import About
from .results import read_results
from .store import Store

_EXPECTED = "give a trainer's output_dir, its folder alignguard/, or what `alignguard audit` wrote"


@dataclass(frozen=True)
class Record:
    """
    One record.

    Args:
        name (`str`):
            As people gave it.
        store ([`Store`]):
            Where it is.
        about ([`About`]):
            What was asked of whom.
        baseline (`dict[str, Result]`):
            The reference's answers, by probe id.
        audits (`list[Audit]`):
            All; the latest with its results.
        verdict ([`Verdict`]):
            Of the latest.
        note (`str`, *optional*, defaults to `""`):
            What cannot be told any more, in a line.
    """

    name: str
    store: Store
    about: About
    baseline: dict[str, Result]
    audits: list[Audit]
    verdict: Verdict
    note: str = ""


def store_at(path: str | Path) -> Store:
    """The store of a record whose folder is `path`: a run has another beside it, for texts."""
    root = Path(path).resolve()
    private = root.with_name(f"_{root.name}")
    return Store(root, private if private.is_dir() else None)


def read_record(path: str) -> Record:
    """
    Read a record.

    Args:
        path (`str`):
            A trainer's output directory, the folder `alignguard/` in it, or what `alignguard audit` wrote.

    Raises:
        RunError: There is none, it holds no audit, or it cannot be read.
    """
    if not Path(path).is_dir():
        raise RunError(f"{path}: no such folder; {_EXPECTED}")
    stores = [store_at(path), store_at(Path(path) / "alignguard")]
    store = next((s for s in stores if (s.root / "baseline.json").exists()), None)
    if store is None:
        raise RunError(f"{path}: no record is in it (neither baseline.json nor alignguard/baseline.json); {_EXPECTED}")
    _no_way_out(store)
    strange = [path for path in (store.root / "audits.jsonl", store.baseline) if path.is_dir()]
    if strange:
        raise RunError(f"{strange[0]}: is a folder, where a file of a record should be; take the record from a copy")
    if not store.lines():
        raise RunError(f"{path}: no audit is on record; the run has not come to its first, or ended before it")
    if not store.baseline.exists():
        raise RunError(
            f"{path}: answers/baseline.parquet is missing, without which nothing can be held against the start; a run keeps it "
            "in the folder _alignguard beside"
        )
    try:
        about = store.read_about() or About()
        pool, note = _asked(store, about)
        baseline, audits = store.read_baseline(pool), store.read_audits(pool, last=sys.maxsize)
        unknown = [id for audit in audits for id in audit.scores if id not in baseline]
        if unknown:
            raise ValueError(f"audits.jsonl tells of probe {unknown[0]!r}, which the start was not asked")
        watch = Watch(baseline, about.stop_rule, about.looks or 1, about.alpha_until, seed=about.seed)
        verdicts = [watch.look(audit) for audit in audits]
    except Exception as error:  # what others wrote, or what was cut off, makes libraries raise many kinds
        line = f"{type(error).__name__}: {one_line(error)}"
        raise RunError(f"{path}: its record cannot be read ({line}); take it from a copy, or audit anew") from error
    return Record(path, store, about, baseline, audits, verdicts[-1], note)


def audits_of(record: Record) -> Iterator[Audit]:
    """
    Every audit of a record, each with its results, one at a time: those of a long run would fill the memory.

    Raises:
        RunError: The answers of one are not there any more.
    """
    pool = [result.probe for result in record.baseline.values()]
    for audit in record.audits:
        path = record.store.answers(audit.step)
        if not path.exists():
            raise RunError(f"{path}: the answers of step {audit.step} are missing; take the record from a copy")
        yield replace(audit, results=read_results(path, pool))


def _no_way_out(store: Store) -> None:
    """A record may have been made by anybody: what is read of it, and written into it, is within it."""
    home = store.root.parent
    for path in (store.private, *store.root.rglob("*"), *store.private.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise RunError(
                f"{path}: a link that leads out of the record, to {path.resolve()}; put there what it leads to"
            )


def _asked(store: Store, about: About) -> tuple[list[Probe], str]:
    """The probes of a record, and a note where they are not all there is to know of them."""
    kept = store.read_probes()
    if kept:
        return kept, ""
    core = load_probes("core")
    if about.pool_hash == pool_hash(core):
        return core, ""
    rows = pq.read_table(store.baseline).to_pylist()
    return [_remembered(row) for row in rows], (
        "probes.jsonl is missing: prompts are shown as their last turn, and evidence is of whole dimensions"
    )


def _remembered(row: dict[str, Any]) -> Probe:
    """A probe as far as an answer tells of it."""
    turns = ({"role": "user", "content": row["prompt"]},)
    judge = "own" if row["logprobs"] is None else "choice"
    return Probe(row["id"], row["dimension"], turns, judge, row["family"], row["group"])
