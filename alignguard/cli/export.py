"""`alignguard export RUN --to inspect` or `--to lm-eval`: the audits of a record as logs that other tools read."""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote

from ..errors import RunError
from ..export.inspect_log import write_inspect_logs
from ..export.lm_eval_results import write_lm_eval_results
from ..records.record import read_record
from ..report.terminal import dumps
from .said import say

# what writes each format, and what opens it
_FORMATS = {
    "inspect": (write_inspect_logs, "inspect view --log-dir {}"),
    "lm-eval": (write_lm_eval_results, "lm_eval.utils.make_table of {}/*/results_*.json, read as JSON"),
}


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    record = read_record(options.record)
    if options.quote and not record.about.quote:
        raise RunError(f"{options.record}: the run was told to quote nothing (quote=False); export it without --quote")
    write, opened = _FORMATS[options.to]
    folder = Path(options.output or f"alignguard-{options.to}")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--output {folder}: a file; give a folder")
    files = write(record, folder, options.quote)
    if options.json:
        print(dumps({"to": options.to, "audits": len(record.audits), "files": [str(path) for path in files]}))
        return
    quoted = "with" if options.quote else "without"
    say(f"{record.name}: {len(record.audits)} audits as {len(files)} files, {quoted} what was asked and said")
    say(f"\nlogs    {folder}\nopen    {opened.format(quote(str(folder)))}")
