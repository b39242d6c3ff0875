"""`alignguard report RUN`: the report of a run, or of a matched audit, from what is on disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..report import write_report
from .record import read_record
from .show import dumps, exit_code, headline, summary, tables

_DESCRIPTION = """Rebuild the HTML report of a run from what is on disk, and show its latest audit.

    alignguard report runs/sft
    alignguard report runs/sft --no-quote --output share.html     without a word of what was asked and said

exit codes: 0 fine, 1 a mistake (told in one line), or answers that cannot be judged, 2 wrong options, 3 the run has a
regression"""


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "report",
        help="rebuild a run's HTML report from what is on disk",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("record", metavar="RUN", help="a trainer's output_dir, or what `alignguard audit` wrote")
    parser.add_argument("--output", metavar="FILE", help="the HTML file (default: report.html of the record)")
    parser.add_argument("--no-quote", action="store_true", help="leave out what was asked and said")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(options: argparse.Namespace) -> int:
    record = read_record(options.record)
    target = Path(options.output) if options.output else record.store.report
    write_report(target, record.about | ({"quote": False} if options.no_quote else {}), record.audits, record.verdict)
    if options.json:
        print(dumps(summary(record) | {"report": str(target)}))
    else:
        of = f"step {record.audits[-1].step}, held against" if record.is_run else "held against"
        print(f"{record.name}: {of} {record.about.get('against', 'the model at step 0')}: {headline(record)}\n")
        print(tables(record))
        print(f"\nreport  {target}")
    return exit_code([record])
