"""Which rows of a data set are which of the documents that were trained on: by their texts, since a trainer numbers rows anew.

A row is told by the columns that are written into documents. Others say where it is from (`source`, an id), and their words may stand in
another row's document, or in what a template writes around all of them: they count for nothing. Which columns are written, and what a
template writes, is seen on some documents first ([`_Written`]). A text counts where it has a place of its own, beside those of the row's
other texts; and two rows that fit equally well, and do not say the same, cannot be told apart.

A row is looked up by one piece of what must be in its document, the one that fewest rows have: openings are shared by many. Rows that
differ in further texts alone (one instruction for all) are looked up by those in turn.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_PIECE, _PIECES = 16, 16  # characters of a piece; of one text so many are held against each other
_MOST, _HALF = 0.8, 0.4  # of what is learnt of a document that a row must be
_WHOLE = 0.9  # of a document: all of it is learnt
_SAMPLE, _FEWEST = 64, 8  # documents by which it is told what is written, at least
_WRITTEN = 0.5  # of the rows that fit those best more have not the column in the document: it is not written
_ALL = 0.9  # of documents: a template writes it
_FEW = 8  # rows that are tried one by one
_COUNTS = 2**22


@dataclass(frozen=True)
class Said:
    """
    A document that was trained on, in words.

    Args:
        row (`int`):
            Its place in the trainer's set; -1 where it has none.
        text (`str`):
            All of it.
        learnt (`str`):
            What of it must be from the row: what is learnt; of a completion its prompt.
    """

    row: int
    text: str
    learnt: str


@dataclass(frozen=True)
class _Row:
    """Texts of a row, with their columns, in the order in which they are placed; the first `needed` must be in its document."""

    texts: tuple[tuple[str, str], ...]
    needed: int


@dataclass(frozen=True)
class _Fit:
    """How a row fits a document: the columns that are not in it and those that are, where, and how many characters those have."""

    index: int
    lost: frozenset[str]
    there: frozenset[str]
    spans: tuple[tuple[int, int], ...]
    size: int
    says: tuple[tuple[str, str], ...]

    @property
    def places(self) -> set[int]:
        """All characters of the document that are the row's."""
        return {at for begin, end in self.spans for at in range(begin, end)}


class _Written:
    """
    What is known of how documents are written: columns that are not (`aside`), and words that stand in all of them whatever their rows.

    Of few documents it is not known. A row is then better than another only if it has all of the document that the other has, and more.
    """

    def __init__(self, index: _Index | None = None, sample: Sequence[Said] = ()) -> None:
        self.known = index is not None and len(sample) >= _FEWEST
        self.aside: frozenset[str] = frozenset()
        self._rests: list[str] = []
        self._around: dict[str, bool] = {}
        if index is None or not self.known:
            return
        rests = []
        for said in sample:
            if fits := index.fits(said, self):
                rest = squeezed(said.text)
                for text in max((index.needed(fit.index) for fit in fits), key=lambda texts: sum(map(len, texts))):
                    rest = rest.replace(text, "\0", 1)
                rests.append(rest)
        self._rests, self._around = rests, {}
        seen: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        for said in sample:
            if fits := index.fits(said, self):
                best = max(fits, key=lambda fit: (fit.size, -len(fit.lost)))
                seen.update(best.there | best.lost)
                lost.update(best.lost)
        self.aside = frozenset(column for column, n in seen.items() if lost[column] > _WRITTEN * n)

    def around(self, text: str) -> bool:
        """Whether a template writes it around all rows, or as good as all."""
        if len(self._rests) < _FEWEST:
            return False
        if text not in self._around:
            self._around[text] = sum(text in rest for rest in self._rests) >= _ALL * len(self._rests)
        return self._around[text]

    def better(self, one: _Fit, other: _Fit) -> bool:
        """Whether one row fits better than another."""
        if not self.known:
            return one.places > other.places
        return one.lost < other.lost or (one.lost == other.lost and one.size > other.size)


@dataclass(frozen=True)
class _Further:
    """Further texts of rows with one beginning: whose and of which column each piece is, and which rows have which columns."""

    pieces: Mapping[str, Sequence[tuple[int, str]]]
    columns: Mapping[int, frozenset[str]]
    rows: Mapping[frozenset[str], Sequence[int]]
    lengths: Sequence[int]


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a row, but names of roles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("role", "from"):
                yield from texts_of(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_of(inner)


def squeezed(text: str) -> str:
    """Without its white space, which templates and packing change."""
    return "".join(text.split())


def find_rows(data: Any, trained: Sequence[Said], tick: Callable[[int], Any] = lambda n: None) -> list[list[int]]:
    """
    Which rows of a data set some documents are that were trained on. A row is in a document if all its turns are, or, without turns, its
    longest text; and if its texts are most of what is learnt of the document, white space apart. Of several the one is taken that has
    most of its columns in the document, and is most of it; of those that say the same, the one of the same place.

    Args:
        data (`Dataset`):
            What people have.
        trained (`Sequence[Said]`):
            The documents; by some of them it is told which columns are written into documents.
        tick (`Callable[[int], Any]`, *optional*):
            Is told how many were read, of all rows twice, and of all documents.

    Returns:
        `list[list[int]]`: of each, one row, or several that say the same, or none, also where several rows are in it that do not.
    """
    index = _Index(data, tick)
    written = _Written(index, trained[:: max(1, len(trained) // _SAMPLE)])
    found = []
    for said in trained:
        found.append(_best(index.fits(said, written), written, said.row))
        tick(1)
    return found


def _best(fits: Sequence[_Fit], written: _Written, place: int) -> list[int]:
    """The rows that fit best, where they say the same."""
    best = [fit for fit in fits if not any(written.better(other, fit) for other in fits)] if len(fits) > 1 else fits
    if len({fit.says for fit in best}) != 1:
        return []
    rows = [fit.index for fit in best]
    return [place] if place in rows else sorted(rows)


class _Index:
    """The rows of a data set by the piece of each that fewest have; of their texts no more is held."""

    def __init__(self, data: Any, tick: Callable[[int], Any]) -> None:
        self._row = lru_cache(maxsize=1024)(lambda index: _read(data[index]))
        self._had = array("I", bytes(4 * _COUNTS))  # how often a piece is there, by its hash: a few share one
        for raw in data:
            for _, text in _read(raw).texts:
                for piece in _pieces(text):
                    self._had[hash(piece) % _COUNTS] += 1
            tick(1)
        self._groups: dict[str, dict[int, list[int]]] = defaultdict(dict)
        for index, raw in enumerate(data):
            row = _read(raw)
            if must := tuple(text for _, text in row.texts[: row.needed]):
                self._groups[self._rarest(must)].setdefault(hash(must), []).append(index)
            tick(1)
        self._lengths = sorted({len(piece) for piece in self._groups})
        self._further: dict[int, _Further] = {}  # by the first row

    def needed(self, index: int) -> list[str]:
        """What of a row must be in its document."""
        row = self._row(index)
        return [text for _, text in row.texts[: row.needed]]

    def fits(self, said: Said, written: _Written) -> list[_Fit]:
        """How rows fit a document that they are in; those than which others fit better for certain are left out."""
        document, learnt = squeezed(said.text), squeezed(said.learnt)
        found: list[_Fit] = []
        for piece in _in(document, self._lengths) & self._groups.keys():
            for rows in self._groups[piece].values():
                must = self.needed(rows[0])
                if not all(text in document for text in must):
                    continue
                tried = self._by_lost(rows, must, document, written.aside) if written.known else [(frozenset(), rows)]
                for lost, likely in tried:
                    if not any(fit.lost < lost for fit in found):
                        fits = (_fit(i, self._row(i), document, learnt, written) for i in likely)
                        found += [fit for fit in fits if fit]
        return found

    def _by_lost(
        self, rows: Sequence[int], must: Sequence[str], document: str, aside: frozenset[str]
    ) -> Iterator[tuple[frozenset[str], Iterable[int]]]:
        """Rows with one beginning by the columns of which at least no piece is in a document, the fewest first."""
        if len(rows) <= _FEW:
            yield frozenset(), rows
            return
        further = self._further.get(rows[0]) or self._further.setdefault(rows[0], self._read_further(rows))
        for text in must:
            document = document.replace(text, "\0", 1)
        here: dict[int, set[str]] = defaultdict(set)
        for piece in _in(document, further.lengths) & further.pieces.keys():
            for index, column in further.pieces[piece]:
                here[index].add(column)
        lost: dict[frozenset[str], list[int]] = defaultdict(list)
        for index, columns in here.items():
            lost[further.columns[index] - columns - aside].append(index)
        yield from sorted(lost.items(), key=lambda item: len(item[0]))
        for those, others in further.rows.items():
            yield those - aside, (index for index in others if index not in here)

    def _read_further(self, rows: Sequence[int]) -> _Further:
        pieces: dict[str, list[tuple[int, str]]] = defaultdict(list)
        columns: dict[int, frozenset[str]] = {}
        having: dict[frozenset[str], list[int]] = defaultdict(list)
        for index in rows:
            row = self._row(index)
            more = row.texts[row.needed :]
            columns[index] = frozenset(column for column, _ in more)
            having[columns[index]].append(index)
            for column, text in more:
                pieces[self._rarest([text])].append((index, column))
        return _Further(pieces, columns, having, sorted({len(piece) for piece in pieces}))

    def _rarest(self, texts: Sequence[str]) -> str:
        """The piece of some texts that is there the least often."""
        pieces = (piece for text in texts for piece in _pieces(text))
        return min(pieces, key=lambda piece: (self._had[hash(piece) % _COUNTS], -len(piece)))


def _read(row: Mapping[str, Any]) -> _Row:
    """What of a row must be in what was trained on, its turns or its longest text, and then its others."""
    texts = [
        (column, text, _has_turns(value)) for column, value in row.items() for text in map(squeezed, texts_of(value))
    ]
    order = sorted((t for t in texts if t[1]), key=lambda t: (not t[2], -len(t[1])))
    turns = sum(of_turns for _, _, of_turns in order)
    return _Row(tuple((column, text) for column, text, _ in order), turns or min(1, len(order)))


def _has_turns(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(
        isinstance(t, Mapping) and ("role" in t or "from" in t) for t in value
    )


def _pieces(text: str) -> Iterator[str]:
    """Of a text some that lie apart, or, where it is short, all of it."""
    last = max(0, len(text) - _PIECE)
    for at in {round(i * last / (_PIECES - 1)) for i in range(_PIECES)}:
        yield text[at : at + _PIECE]


def _in(document: str, lengths: Sequence[int]) -> set[str]:
    """All pieces of a document of some lengths."""
    return {document[at : at + n] for n in lengths for at in range(len(document) - n + 1)}


def _fit(index: int, row: _Row, document: str, learnt: str, written: _Written) -> _Fit | None:
    """How a row fits; `None` where it is too little of what is learnt of the document. What must be in it is."""
    # where all is learnt, what a template writes is too
    least = (_MOST if len(learnt) < _WHOLE * len(document) else _HALF) * len(learnt)
    says = tuple(t for i, t in enumerate(row.texts) if i < row.needed or t[0] not in written.aside)
    left, own_left, lost, there, spans, own = document, learnt, set(), set(), [], 0
    for i, (column, text) in enumerate(says):
        if i >= row.needed and written.around(text):
            continue
        if (at := left.find(text)) < 0:
            lost.add(column)
            continue
        there.add(column)
        spans.append((at, at + len(text)))
        left = left[:at] + "\0" * len(text) + left[at + len(text) :]
        if text in own_left:
            own_left, own = own_left.replace(text, "\0", 1), own + len(text)
        elif learnt in text:
            own = len(learnt)
    size = sum(end - begin for begin, end in spans)
    return _Fit(index, frozenset(lost), frozenset(there - lost), tuple(spans), size, says) if own >= least else None
