"""`alignguard rejudge RUN`: what is on record judged anew, without asking any model."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from .. import __about__
from ..auditing.audit import Audit
from ..auditing.metrics import gather
from ..auditing.rejudged import Scorers, rejudged
from ..auditing.result import Result
from ..errors import RunError
from ..judging.scorers import INSTALL, judge_of, scorer_name, scorer_of
from ..records.about import APART
from ..records.record import Record, read_record
from ..records.results import read_results
from ..records.store import Store
from ..report.terminal import dumps, format_table
from ..verdicts.watch import Watch
from .codes import exit_code
from .said import say

_LINES = ("budget.jsonl", "pulses.jsonl", "pace.jsonl")  # what no judge has a say in


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    record = read_record(options.record)
    if record.note:
        raise RunError(f"{options.record}: cannot be judged anew; {record.note}")
    scorers = Scorers(scorer_of(options.toxicity), judge_of(options.judge))
    if scorers.toxicity is None and any(r.probe.judge == "toxicity" for r in record.baseline.values()):
        raise RunError(f"nothing here scores toxicity; {INSTALL}, or give --toxicity NAME")
    folder = Path(options.output or f"{record.name.rstrip('/')}-rejudged")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder}: is there already; give another --output, or remove it")
    changed, judged = _write(record, scorers, folder)
    found = read_record(str(folder))
    told = {"record": str(folder), "audits": len(found.audits), "answers": judged, "changed": changed}
    if options.json:
        print(dumps({**told, "regressed": found.verdict.since}))
    else:
        say(format_table(found.audits[-1], found.verdict))
        say(f"\n{judged:,} answers of {len(found.audits)} audits judged anew, {changed:,} scores are others")
        say(f"record  {folder}")
    return exit_code([found.verdict])


def _write(record: Record, scorers: Scorers, folder: Path) -> tuple[int, int]:
    """Write the record with its new scores; how many scores are others than they were, and of how many answers."""
    about = replace(
        record.about,
        alignguard=__about__.__version__,
        toxicity=scorer_name(scorers.toxicity),
        judge=scorer_name(scorers.judge),
        notes=tuple(note for note in record.about.notes if not note.startswith(APART)),
    )
    store = Store.of_run(folder) if about.is_run else Store(folder)
    store.prepare()
    baseline = rejudged(record.baseline, scorers)
    changed, judged = _difference(record.baseline, baseline)
    watch = Watch(baseline, about.stop_rule, about.looks or 1, about.alpha_until, seed=about.seed)
    store.write_baseline(about, baseline)
    pool = [result.probe for result in baseline.values()]
    for audit in tqdm(record.audits, desc="AlignGuard judges anew", unit="audit"):
        then = read_results(record.store.answers(audit.step), pool)
        now = rejudged(then, scorers)
        others, of = _difference(then, now)
        changed, judged = changed + others, judged + of
        # drift, cost and the like are what they were; a figure that has gone, as of what is unscored now, goes
        own = gather(then, record.baseline)
        kept = {key: value for key, value in audit.metrics.items() if key not in own or "/kl" in key}
        found = Audit(audit.step, now, {**gather(now, baseline), **kept}, audit.time, audit.profile)
        found.metrics |= watch.look(found).metrics()
        store.append(found)
    for name in _LINES:
        if (record.store.root / name).exists():
            shutil.copy(record.store.root / name, store.root / name)
    return changed, judged


def _difference(then: Mapping[str, Result], now: Mapping[str, Result]) -> tuple[int, int]:
    read = [id for id, result in now.items() if result.probe.judge not in ("choice", "none")]
    return sum(then[id].score.value != now[id].score.value for id in read), len(read)
