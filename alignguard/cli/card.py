"""`alignguard card RUN`: what a run says of trust, as a section of a model card and for those who gather such figures."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ..errors import RunError
from ..files import write_text
from ..records.record import Record, read_record
from ..report.card import TrustCard, flat, shown
from ..report.markdown import section
from ..report.model_card import PICTURE, front_matter, put_into
from ..report.picture import write_picture
from ..report.terminal import dumps
from .codes import exit_code
from .output import target
from .said import say, tell


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    record = read_record(options.record)
    notes = (*record.about.notes, *filter(None, [record.note]))
    card = TrustCard(_name(record), replace(record.about, notes=notes), record.audits, record.verdict)
    if options.into and (options.json or options.metadata):
        raise RunError("--into puts in the whole card; write --json or --metadata to a file of its own with --output")
    if record.about.note:
        tell(f"{record.about.note} Metadata and --json have none of them")
    if options.into:
        path = Path(options.into)
        say(f"card  {path}{'' if put_into(path, card) else ' (unchanged)'}")
    elif options.output:
        write_text(target("--output", options.output), _text(card, options))
        say(f"card  {options.output}")
    else:
        sys.stdout.write(_text(card, options))
    return exit_code([record.verdict])


def _text(card: TrustCard, options: argparse.Namespace) -> str:
    if options.json:
        return dumps(flat(card)) + "\n"
    if options.metadata:
        return front_matter(card)
    # where it is printed, nobody knows which folder a picture would be looked for in
    return section(card, write_picture(Path(options.output).with_name(PICTURE), card) if options.output else "")


def _name(record: Record) -> str:
    """Of the model: a matched audit says it, a run is called as its folder is."""
    root = record.store.root
    folder = root.parent if record.about.is_run and root.name == "alignguard" else root
    return shown(folder.name if record.about.is_run else record.about.model)
