"""`alignguard report RUN`: the report of a run, or of a matched audit, from what is on disk."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..records.record import read_record
from ..report.html import write_report
from ..report.terminal import dumps, headline, summary, tables
from ..tracing.kept import read_traces
from .codes import check_gate, exit_code
from .output import target
from .said import say


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    record = read_record(options.record)
    check_gate([record], options.max_missed_drop)
    about = replace(record.about, quote=record.about.quote and not options.no_quote)
    page = target("--output", options.output) if options.output else record.store.report(about.quote)
    write_report(
        page, about, record.audits, record.verdict, record.store.lines("pulses.jsonl"), read_traces(record.store)
    )
    if options.json:
        print(dumps(summary(record) | {"report": str(page)}))
    else:
        of = f"step {record.audits[-1].step}, held against" if record.about.is_run else "held against"
        say(f"{record.name}: {of} {record.about.held_against}: {headline(record)}\n")
        say(tables(record))
        say(f"\nreport  {page}")
    return exit_code([record.verdict], options.max_missed_drop)
