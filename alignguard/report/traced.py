"""Which rows a regression came from, as people are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..text import in_a_line, rounded
from ..tracing.found import Trace, TracedRow
from ..verdicts.sides import share_of
from .terminal import columns

_SHOWN, _FIRST = 20, 5  # rows that are named; of which none is
_LONGEST = 400  # characters of a row that are shown
_IN_A_LINE = 90


@dataclass(frozen=True)
class Section:
    """A trace, as a page shows it."""

    title: str
    sentences: list[str]
    rows: list[tuple[str, str, str, str, str, str]]  # name, steps, stands out, alike, loss, text
    more: int
    columns: list[tuple[str, list[tuple[str, int, int, str]]]]


def section(trace: Trace, quote: bool) -> Section:
    """
    A trace for a page.

    Args:
        trace ([`Trace`]):
            What was found.
        quote (`bool`):
            Whether rows' texts are shown.
    """
    trace = trace if quote else trace.bare
    shown = trace.rows[: min(trace.named or _FIRST, _SHOWN)]
    rows = [(*_cells(row), _middle(row.text)) for row in shown]
    by = [
        (
            column.name,
            [(value, n, named, f"{share:.0%}") for value, n, named, share in column.values],
        )
        for column in trace.by
    ]
    return Section(_title(trace), sentences(trace), rows, trace.named - len(shown), by)


def sentences(trace: Trace) -> list[str]:
    """What was found, and how sure it is."""
    n, found = trace.trained, []
    if trace.named:
        rows = "1 row" if trace.named == 1 else f"{trace.named:,} rows"
        found.append(f"{rows} of {n:,} stand out, and moved {trace.pulled:.0%} of all that was moved.")
    else:
        found.append("No small set of rows explains this" + f": {trace.why}" * bool(trace.why) + ".")
    if trace.shares.most:
        found.append(
            f"Half of what was moved came from {trace.shares.half:,} rows, nine tenths from {trace.shares.most:,}: each counts by how much harder it pulls than "
            "the middle row, times its tokens, times how often it was trained on."
        )
    found.append(
        "Two halves of the flipped probes, each traced alone, agree on the rows' ranks by "
        f"{rounded(trace.agreement, '.2f')} (1: wholly, 0: not at all)."
    )
    drawn = [row for row in trace.rows if row.stands_for > 1]
    if drawn:
        likest = len(trace.rows) - len(drawn)
        found.append(
            f"Looked at: the {likest:,} rows most like what was said, before and now, and {len(drawn):,} by chance for all others."
        )
    if more := sum(row.stands_for > 1 for row in trace.rows[: trace.named]):
        found.append(
            f"Of those that stand out {more:,} were drawn by chance: about {(drawn[0].stands_for - 1) * more:,.0f} like them were not looked at."
        )
    found.append(
        "Rows are completions that the model gave in training, numbered as they came."
        if trace.completions
        else "Rows are numbered as the trainer has them, after it has left out, packed or shuffled some; --data finds them in a file."
    )
    if trace.untold:
        found.append(
            f"{trace.untold:,} more probes flipped, and were not asked at step {trace.first}: when they did is not known."
        )
    if trace.broken:
        found.append(f"Of {trace.broken:,} more rows the pull is no finite number.")
    if trace.unread:
        found.append(f"Of {trace.unread:,} more rows no tokens are on record.")
    if trace.unknown:
        found.append(f"Of {trace.unknown:,} steps it is not on record what they were taken on.")
    return found


def format_trace(trace: Trace, quote: bool) -> str:
    """A trace for the terminal."""
    told = section(trace, quote)
    parts = [told.title, "\n".join(told.sentences)]
    if told.rows:
        head = ["row", "steps", "stands out", "alike", "loss", ""]
        cut = [[*cells[:-1], in_a_line(cells[-1])[:_IN_A_LINE]] for cells in told.rows]
        parts.append(columns([head, *cut]))
    for name, values in told.columns:
        cells = [[value, f"{n:,}", f"{named:,}", share] for value, n, named, share in values]
        parts.append(columns([[name, "rows", "named", "moved"], *cells]))
    return "\n\n".join(parts)


def _title(trace: Trace) -> str:
    dimension, _, side = trace.side.partition("/")
    what = f"{trace.side} ({share_of(dimension, side)})" if side else dimension
    return (
        f"{what}, steps {trace.first} to {trace.last}: {trace.flips} probes flipped to worse, "
        f"{trace.steady} stayed good"
    )


def _cells(row: TracedRow) -> tuple[str, str, str, str, str]:
    steps = ", ".join(map(str, row.steps[:3])) + (", ..." if len(row.steps) > 3 else "")
    return row.name, steps, rounded(row.stands_out, "+.1f"), rounded(row.alike, ".2f"), f"{row.loss:.2f}"


def _middle(text: str) -> str:
    left = len(text) - _LONGEST
    return (
        text if left <= 0 else f"{text[: _LONGEST // 2]} ... ({left:,} more characters) ... {text[-(_LONGEST // 2) :]}"
    )


def sections(traces: Sequence[Trace], quote: bool) -> list[Section]:
    """All traces of a run, for its page."""
    return [section(trace, quote) for trace in traces]
