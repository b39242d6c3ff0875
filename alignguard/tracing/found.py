"""What a trace has found: rows, how far they pull, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..records.rows import name_of
from .named import Shares

NOT_FOUND, NOT_TOLD = "(not found in the data set)", "(of rows that say the same, several)"  # in place of a value


@dataclass(frozen=True)
class TracedRow:
    """
    One row that was trained on between two audits.

    Args:
        row, part (`int`):
            Its place in the training set; of a packed row, which of its documents.
        steps (`tuple[int, ...]`):
            It went into.
        pull (`float`):
            How much a step of Adam on it raises what is traced: nats per token of the answers, per unit of step, a mean over its tokens.
        stands_out (`float`):
            By how many robust standard deviations of all rows' pulls.
        least (`float`, *optional*):
            The same in that of the two halves of the flipped probes, each traced alone, where it stands out less; of rows that do not stand
            out it is known of some.
        loss (`float`):
            Under the start, nats per token.
        tokens (`int`):
            That are learnt of it.
        alike (`float`, *optional*, defaults to `0.0`):
            How like it is to what the policy says to the flipped probes, by n-grams of tokens, in [0, 1].
        stands_for (`float`, *optional*, defaults to `1.0`):
            How many rows: more than one where it was drawn by chance from those that were not looked at.
        text (`str`, *optional*):
            Of those that are shown.
    """

    row: int
    part: int
    steps: tuple[int, ...]
    pull: float
    stands_out: float
    least: float | None
    loss: float
    tokens: int
    alike: float = 0.0
    stands_for: float = 1.0
    text: str = ""

    @property
    def moved(self) -> float:
        """
        What training on it moved, beyond what the middle row's pull would have: the pull is of one token, and a batch's loss is a mean
        over tokens, so it counts by its tokens and by how often it was trained on. 0 of one that pulls less.
        """
        return max(self.stands_out, 0.0) * self.tokens * len(self.steps)

    @property
    def name(self) -> str:
        """As people are told of it: `17`, or of a packed row `17.2`."""
        return name_of(self.row, self.part)


@dataclass(frozen=True)
class ByColumn:
    """
    The pull by a column of the data set.

    Args:
        name (`str`):
            Of the column.
        values (`list[tuple[str, int, int, float]]`):
            Of each value how many rows have it, how many of those are named, and their share of all that was moved.
    """

    name: str
    values: list[tuple[str, int, int, float]]

    @property
    def bare(self) -> ByColumn:
        """The same with numbers for values, which are the data set's."""
        told = [
            (value if value in (NOT_FOUND, NOT_TOLD) else f"value {i}", n, named, share)
            for i, (value, n, named, share) in enumerate(self.values, start=1)
        ]
        return replace(self, values=told)


@dataclass(frozen=True)
class Trace:
    """
    Where a regression came from.

    Args:
        side (`str`), first, last (`int`):
            What was traced, between which steps.
        flips, steady (`int`):
            Probes that went from good to bad, and that stayed good.
        rows (`list[TracedRow]`):
            Those that were looked at, of all that were trained on between those steps, the strongest pull first.
        named (`int`):
            How many of them, from the first on, are named; 0 where no small set of rows explains it.
        agreement (`float`):
            Rank correlation between the pulls on two halves of the flipped probes.
        shares ([`Shares`]):
            How much was moved by how few rows.
        untold (`int`):
            More probes that flipped, of which it is not known whether before the first step.
        unknown (`int`):
            Steps between the two of which it is not on record what they were taken on.
        unread (`int`):
            Rows of those steps whose tokens are not on record.
        model (`str`):
            At whose weights it was looked.
        share (`float`):
            Of its layers that were looked at.
        seconds (`float`):
            It took.
        broken (`int`, *optional*, defaults to `0`):
            More rows that were looked at, whose pull is no finite number.
        completions (`bool`, *optional*, defaults to `False`):
            Whether rows are completions that the model gave in training, numbered as they came.
        by (`list[ByColumn]`, *optional*):
            The pull by columns of the data set.
        why (`str`, *optional*):
            Where no row is named, the rule that forbade it.
    """

    side: str
    first: int
    last: int
    flips: int
    steady: int
    rows: list[TracedRow]
    named: int
    agreement: float
    shares: Shares
    untold: int
    unknown: int
    unread: int
    model: str
    share: float
    seconds: float
    broken: int = 0
    completions: bool = False
    by: list[ByColumn] = field(default_factory=list)
    why: str = ""

    @property
    def pulled(self) -> float:
        """The share of all that was moved that the rows named moved, see [`TracedRow`]."""
        moved = _moved(self.rows)
        return _moved(self.rows[: self.named]) / moved if moved else 0.0

    @property
    def bare(self) -> Trace:
        """The same without a word of the data set: neither texts of rows nor values of columns."""
        rows = [replace(row, text="") for row in self.rows]
        return replace(self, rows=rows, by=[column.bare for column in self.by])

    @property
    def trained(self) -> int:
        """How many rows were trained on, whether they were looked at or others stand for them."""
        return round(sum(row.stands_for for row in self.rows))


def _moved(rows: Sequence[TracedRow]) -> float:
    """What rows, and those that they stand for, moved."""
    return sum(row.moved * row.stands_for for row in rows)


def by_column(trace: Trace, name: str, value_of: Mapping[int, str]) -> ByColumn:
    """
    The pull by a column of the data set.

    Args:
        trace ([`Trace`]):
            Of a run.
        name (`str`):
            Of the column.
        value_of (`Mapping[int, str]`):
            By a row's place in `trace.rows`; those that are not in it stand together under [`NOT_FOUND`].
    """
    rows: dict[str, list[int]] = {}
    for i in range(len(trace.rows)):
        rows.setdefault(value_of.get(i, NOT_FOUND), []).append(i)
    moved = _moved(trace.rows) or 1.0
    found = []
    for value, here in rows.items():
        own = [trace.rows[i] for i in here]
        n = round(sum(row.stands_for for row in own))
        found.append((value, n, sum(i < trace.named for i in here), _moved(own) / moved))
    return ByColumn(name, sorted(found, key=lambda line: -line[3]))
