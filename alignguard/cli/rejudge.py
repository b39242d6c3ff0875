"""`alignguard rejudge RUN`: what is on record judged anew, without asking any model."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from .. import __about__
from ..auditing.audit import Audit
from ..auditing.figures import PREFIX, compares
from ..auditing.metrics import gather
from ..auditing.rejudged import Scorers, is_read, rejudged
from ..auditing.result import Result
from ..errors import RunError
from ..judging.scorers import INSTALL, judge_of, scorer_name, scorer_of
from ..records.about import APART
from ..records.record import Record, audits_of, read_record
from ..records.store import Store
from ..report.terminal import dumps, headline, tables
from ..verdicts.watch import Watch
from .codes import exit_code
from .said import say

# what no judge has a say in: files of lines, and figures of an audit
_LINES = ("budget.jsonl", "pulses.jsonl", "pace.jsonl")
_FIGURES = tuple(f"{PREFIX}{name}/" for name in ("kl", "cost", "budget"))


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    record = read_record(options.record)
    if record.note:
        raise RunError(f"{options.record}: cannot be judged anew; {record.note}")
    scorers = Scorers(scorer_of(options.toxicity), judge_of(options.judge))
    if scorers.toxicity is None and any(r.probe.judge == "toxicity" for r in record.baseline.values()):
        raise RunError(f"nothing here scores toxicity; {INSTALL}, or give --toxicity NAME")
    own = sum(result.probe.judge == "own" for result in record.baseline.values())
    kept = own if scorers.judge is None else 0
    folder = Path(options.output or f"{record.name.rstrip('/')}-rejudged")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: is there already; give another --output, or remove it")
    place = folder.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as beside:
        whole = Path(beside) / place.name
        changed, judged = _write(record, scorers, whole)
        whole.rename(place)  # half of a record would be read as a shorter run
    found = read_record(str(folder))
    told = {"record": str(folder), "audits": len(found.audits), "answers": judged, "changed": changed, "kept": kept}
    if options.json:
        print(dumps({**told, "verdict": headline(found), "regressed": found.verdict.since}))
    else:
        say(f"{folder}: {headline(found)}\n\n{tables(found)}\n")
        say(f"{judged:,} answers of {len(found.audits)} audits judged anew, {changed:,} scores are others")
        if kept:
            say(
                f"{kept:,} probes keep their scores, by {found.about.judge}: a judge of your own; --judge NAME gives another"
            )
        if found.about.toxicity != record.about.toxicity:
            say(f"toxicity by {found.about.toxicity}; before, by {record.about.toxicity}")
        say(f"record  {folder}")
    return exit_code([found.verdict])


def _write(record: Record, scorers: Scorers, folder: Path) -> tuple[int, int]:
    """Write the record with its new scores; how many scores are others than they were, and of how many answers."""
    notes = tuple(note for note in record.about.notes if not note.startswith(APART))
    about = replace(record.about, alignguard=__about__.__version__, toxicity=scorer_name(scorers.toxicity), notes=notes)
    if scorers.judge is not None:
        about = replace(about, judge=scorer_name(scorers.judge))
    store = Store.of_run(folder) if about.is_run else Store(folder)
    store.prepare()
    baseline = rejudged(record.baseline, scorers)
    changed, judged = _difference(record.baseline, baseline, scorers)
    watch = Watch(baseline, about.stop_rule, about.looks or 1, about.alpha_until, seed=about.seed)
    store.write_baseline(about, baseline)
    for audit in tqdm(audits_of(record), desc="AlignGuard judges anew", total=len(record.audits), unit="audit"):
        then = audit.results
        now = rejudged(then, scorers)
        others, of = _difference(then, now, scorers)
        changed, judged = changed + others, judged + of
        # a figure that has gone goes, as of what is unscored now: only what no judge has a say in is what it was
        kept = {k: v for k, v in audit.metrics.items() if k.startswith(_FIGURES) or k.endswith("/kl")}
        found = Audit(audit.step, now, {**gather(now, baseline), **kept}, audit.time, audit.profile)
        found.metrics |= watch.look(found).metrics()
        if about.is_alone:
            found.metrics = {name: value for name, value in found.metrics.items() if not compares(name)}
        store.append(found)
    for name in _LINES:
        if (record.store.root / name).exists():
            shutil.copy(record.store.root / name, store.root / name)
    for trained_on, there in ((record.store.rows, store.rows), (record.store.said, store.said)):
        if trained_on.is_dir():
            shutil.copytree(trained_on, there)
    return changed, judged


def _difference(then: Mapping[str, Result], now: Mapping[str, Result], scorers: Scorers) -> tuple[int, int]:
    read = [id for id, result in now.items() if is_read(result.probe, scorers)]
    return sum(then[id].score.value != now[id].score.value for id in read), len(read)
