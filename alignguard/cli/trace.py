"""`alignguard trace RUN`: which rows of the training set a regression came from, and the set without them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import join
from shlex import quote as quoted
from typing import Any

from tqdm.auto import tqdm

from ..drift.fingerprint import fingerprint
from ..errors import RunError, StartError
from ..model.chat import Chat
from ..model.loading import device_of, load_model, load_tokenizer
from ..records.record import Record, read_record
from ..records.rows import RowStore, TrainedRow
from ..report.html import write_report
from ..report.terminal import dumps
from ..report.traced import format_trace
from ..text import own_lines
from ..tracing.data import columns_to_tell_by, load_data
from ..tracing.found import NOT_TOLD, ByColumn, Trace, by_column
from ..tracing.kept import read_trace, read_traces, summary, write_trace
from ..tracing.match import Said, find_rows
from ..tracing.query import query
from ..tracing.trace import Cost, store_of, trace
from ..tracing.without import check_copied, name_without, write_without
from .output import target
from .said import say, tell

_OTHERS = 64  # completions by which it is told what a template puts around all prompts


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    if options.drop:
        return _drop(options)
    record = read_record(options.record)
    side, name = options.side or record.verdict.regressed_side, options.model or record.about.model
    if not side:
        raise RunError(f"{record.name}: no dimension has regressed; name what is to be traced, as --side safety/refuse")
    data = load_data(options.data) if options.data else None
    columns, asked = _columns(options, data), (side, options.first, options.last)
    query(record, *asked)  # what is wrong is told before a model is loaded
    tokenizer = _tokenizer(options, record)
    model = load_model(name, options.dtype, device_of(options.device))
    if fingerprint(model, False) != record.about.model_fingerprint:
        tell(f"{name}: its weights are not, value for value, those the run began with; pulls are of these weights")
    if tokenizer is None:
        raise RunError(f"{name}: holds no tokenizer; give the start with it, as --model")
    if Chat.of(model, tokenizer, record.about.template_kwargs).fingerprint() != record.about.tokenizer_fingerprint:
        tell(f"{name}: its tokenizer is not the one that the run was asked with; the texts of rows may be read wrongly")
    with tqdm(desc="AlignGuard traces", unit="reading", disable=options.json) as bar:

        def begin(cost: Cost) -> None:
            tell(f"traces {side} to {cost}")
            bar.reset(cost.readings)

        found = trace(
            record, model, tokenizer, *asked, options.layers, screen=options.screen, tell=begin, tick=bar.update
        )
    path = write_trace(record.store, found)  # before its rows are looked for in the data set, which may take long
    if columns:
        found = replace(found, by=_by(found, record, tokenizer, data, columns, options.json))
        write_trace(record.store, found)
    page = record.store.report(record.about.quote)
    pulses, traces = record.store.lines("pulses.jsonl"), read_traces(record.store)
    write_report(page, record.about, record.audits, record.verdict, pulses, traces)
    quote = record.about.quote and not options.no_quote
    if options.json:
        print(dumps({**summary(found if quote else found.bare), "rows": str(path)}))
    else:
        say(format_trace(found, quote))
        say(f"\nrows    {path}\nreport  {page}")
        if found.named:
            drop = join(["alignguard", "trace", options.record, "--drop", str(path), "--data", options.data or "DATA"])
            say(f"next    look at them; then: {drop}")
    return 0


def _columns(options: argparse.Namespace, data: Any) -> list[str]:
    """
    The columns that the pull is told by.

    Raises:
        RunError: One is named that is not there.
    """
    if data is None:
        if options.by:
            raise RunError("--by tells the pull by columns of the data set: give it as --data")
        return []
    for name in options.by or ():
        if name not in data.column_names:
            raise RunError(f"--by {name}: no such column; the data set has {', '.join(data.column_names)}")
    return options.by or columns_to_tell_by(data)


def _by(
    found: Trace, record: Record, tokenizer: Any, data: Any, columns: list[str], silent: bool = False
) -> list[ByColumn]:
    """The pull by columns of the data set; rows that say the same and differ in one are told apart in none."""
    place = {(row.row, row.part): i for i, row in enumerate(found.rows)}
    store = store_of(record)
    texts = [text for text in store.texts({row.row for row in found.rows}) if (text.row, text.part) in place]
    here = _find(data, _said(texts, record, store, tokenizer), silent)
    rows = {place[text.row, text.part]: there for text, there in zip(texts, here, strict=True) if there}

    def value(name: str, there: Sequence[int]) -> str:
        values = {str(data[row][name]) for row in there}
        return values.pop() if len(values) == 1 else NOT_TOLD

    return [by_column(found, name, {i: value(name, there) for i, there in rows.items()}) for name in columns]


def _find(data: Any, said: Sequence[Said], silent: bool = False) -> list[list[int]]:
    """Documents in the data set, under a bar."""
    total = 2 * len(data) + len(said)
    with tqdm(desc="AlignGuard looks rows up", total=total, unit="row", disable=silent, delay=2) as bar:
        return find_rows(data, said, bar.update)


def _said(texts: Sequence[TrainedRow], record: Record, store: RowStore, tokenizer: Any) -> list[Said]:
    """Documents in words; what of a completion must be a row's is its prompt, but for what a template puts around all of them."""
    completions = store.folder == record.store.said

    def words(text: TrainedRow) -> tuple[str, str]:
        part = [int(t) for t, learnt in zip(text.ids, text.learnt, strict=True) if bool(learnt) != completions]
        whole, own = (tokenizer.decode(list(ids), skip_special_tokens=True) for ids in (text.ids, part))
        return whole, own

    told = [words(text) for text in texts]
    if not completions:
        return [Said(text.row, whole, own) for text, (whole, own) in zip(texts, told, strict=True)]
    others = [words(text)[1] for text in store.texts(set(sorted(store.kept())[:_OTHERS]))]
    prompts = own_lines([*(own for _, own in told), *others])
    return [Said(-1, whole, prompt) for (whole, _), prompt in zip(told, prompts, strict=False)]


def _tokenizer(options: argparse.Namespace, record: Record) -> Any:
    """The run's, from its start, which may lie elsewhere by now."""
    try:
        return load_tokenizer(options.model or record.about.model)
    except StartError as error:
        if options.model:
            raise
        raise RunError(f"{error}; where the run's start lies elsewhere by now, give it as --model") from None


def _drop(options: argparse.Namespace) -> int:
    """Write the data set without the rows that a file names."""
    if not options.data:
        raise RunError("--drop writes the data set without some rows: give it as --data")
    record, data = read_record(options.record), load_data(options.data)
    output = target("--output", options.output or name_without(options.data))
    check_copied(options.data, data, output)  # before rows are looked for, which may take long
    wanted = _rows_in(Path(options.drop))
    tokenizer = _tokenizer(options, record)
    store = store_of(record)
    texts = [t for t in store.texts(set(wanted)) if (parts := wanted[t.row]) is None or t.part in parts]
    # how rows are written into documents is told by more of them than are looked for
    others = [*store.texts(set(sorted(store.kept() - wanted.keys())[:_OTHERS]))]
    found = _find(data, _said([*texts, *others], record, store, tokenizer))[: len(texts)]
    lost = [text.name for text, here in zip(texts, found, strict=True) if not here]
    lost += [str(row) for row in sorted(wanted.keys() - {text.row for text in texts})]
    if lost:
        raise RunError(
            f"{options.data}: rows {', '.join(lost[:5])} of the run are not found in it, each as one row, or several fit as well; give "
            "the data set that the run was trained on, or leave them out of --drop"
        )
    dropped = {index for here in found for index in here}
    kept = write_without(options.data, data, dropped, output)
    say(f"{output}: {kept:,} rows, {len(data) - kept:,} fewer than {options.data}")
    say(f"next: train again from {record.about.model} on {output}, with the same settings, and compare the two runs:")
    say(f"  alignguard compare {quoted(options.record)} NEW_RUN")
    return 0


def _rows_in(path: Path) -> dict[int, set[int] | None]:
    """
    Rows, and which parts of packed ones, or all of them: those that a trace names, or a JSON list of numbers.

    Raises:
        RunError: It is neither.
    """
    wrong = RunError(f"--drop {path}: give what `alignguard trace` wrote, or a JSON list of rows, as [17, 203]")
    if not path.is_file():
        raise RunError(f"--drop {path}: no such file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        try:
            found = read_trace(path)
        except RunError:
            raise wrong from None
        parts: dict[int, set[int] | None] = {}
        for row in found.rows[: found.named]:
            parts[row.row] = (parts.get(row.row) or set()) | {row.part}
        if not parts:
            raise RunError(f"--drop {path}: no row is named in it") from None
        return parts
    if not isinstance(value, list) or not all(isinstance(row, int) and row >= 0 for row in value) or not value:
        raise wrong
    return dict.fromkeys(value)
