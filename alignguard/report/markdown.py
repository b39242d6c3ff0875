"""A trust card as a section of a model card, in Markdown. What others have named is escaped; no probe and no answer is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite

from ..text import rounded
from .card import Row, TrustCard, shown, told_in_public
from .terminal import headline_of
from .words import finds

BEGIN, END = "<!-- alignguard -->", "<!-- /alignguard -->"
# all that Markdown, HTML, formulas and GitHub's own links may be made of
_SPECIAL = re.compile(r"""[\\`*_\[\](){}<>|~&$#!@:"'+=^]|(?<=www)\.""")
_UNITS = "nats per token"


def escaped(name: str) -> str:
    """A name that others gave, as text in a line of Markdown."""
    return _as_text(shown(name))


def _as_text(line: str) -> str:
    return _SPECIAL.sub(lambda match: f"\\{match[0]}", line)


def section(card: TrustCard, picture: str = "") -> str:
    """
    The section, between the two comments by which a later one finds it.

    Args:
        card ([`TrustCard`]):
            What is told.
        picture (`str`, *optional*):
            The file of its picture, beside the model card.
    """
    about = card.about
    parts = [
        f"## Trust\n\nAudited by AlignGuard {escaped(about.alignguard)}: **{headline_of(about, card.verdict, escaped)}**.",
        _as_text(told_in_public(about.note)),
        f"![Drift from the start, and the drop of each dimension, by step]({picture})" if picture else "",
        _table(*(_scores(card) if about.is_alone else _trust(card))),
        _read(card),
        _table([f"drift from the start, {_UNITS}", ""], _drift(card)),
        _table(["asked", ""], _asked(card)),
        "\n".join(f"- {_as_text(note)}" for note in card.notes),
    ]
    return "\n\n".join([BEGIN, *filter(None, parts), END]) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, what are figures to the right; nothing where there is no row."""
    if not rows:
        return ""
    sides = ["---"] + ["---:" if len(head) > 2 else "---"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, sides, *rows))


def _scores(card: TrustCard) -> tuple[list[str], list[list[str]]]:
    """Of a model that is held against nothing: its scores, and how many they are of."""
    rows = [[row.dimension, _figure(row.last, ".2f"), str(row.n), _unjudged(row)] for row in card.rows]
    return ["dimension", "score", "answers", "not judged"], rows


def _trust(card: TrustCard) -> tuple[list[str], list[list[str]]]:
    found = []
    for row in card.rows:
        drop, low, high = map(rounded, (row.drop, row.low, row.high))
        part = f" ({escaped(row.part)})" if row.part else ""
        few = "too few judged" if isfinite(row.last) else "none judged"
        told = f"{drop} [{low}, {high}]{part}" if isfinite(row.drop) else few
        proof = [_p(row.p), finds(row.detectable)] if isfinite(row.p) else ["-", "-"]
        scores, counts = [_figure(row.start, ".2f"), _figure(row.last, ".2f")], [str(row.pairs), _unjudged(row)]
        found.append([row.dimension, *scores, told, *counts, *proof, row.verdict])
    head = ["dimension", "start", "now", "drop [interval]", "pairs", "not judged", "p", "would have been found"]
    return [*head, "verdict"], found


def _unjudged(row: Row) -> str:
    return f"{row.unscored} of {row.asked}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p < 0.995 else "1"


def _figure(value: float, form: str) -> str:
    return rounded(value, form) if isfinite(value) else "-"


def _read(card: TrustCard) -> str:
    """How the table is read."""
    rule = card.about.stop_rule
    if card.about.is_alone:
        return (
            "Scores lie in [0, 1], higher is more trustworthy. They are held against nothing: whether this model has lost or gained "
            "anything is not told."
        )
    return (
        "Scores lie in [0, 1], higher is more trustworthy; `reasoning` is the capability that the training was for. A drop is the "
        f"{card.about.was}'s score less the model's on the same probes, positive is worse: over all audits that the evidence rests "
        f"on, with an interval that holds for the whole run (at alpha {rule.alpha:g}); where there is no p, of the last audit alone; and "
        "where a side is named behind it, of that side alone, in which the evidence is strongest. "
        f"A drop is called a regression where it is proven and larger than {rule.min_drop:g}. *Would have been found* is the "
        "smallest drop that this run would have found with a probability of 80 %; where it is `none`, too little was asked. *Not judged* "
        "are answers of the last audit; where they are too many, nothing is told of a drop. The verdict in a word is of the last audit alone, "
        "by its own 95 % interval; `regressed` is of the whole run."
    )


def _drift(card: TrustCard) -> list[list[str]]:
    d = card.drift
    ends = (
        f" [{_nats(d, 'answer_low')}, {_nats(d, 'answer_high')}]" if {"kl/answer_low", "kl/answer_high"} <= {*d} else ""
    )
    told = {
        "kl/answer": ("of what is answered", f"{_nats(d, 'answer')}{ends}"),
        "kl/raw": ("with the change of format (raw)", _nats(d, "raw")),
        "kl/answer_sum": ("summed over an answer, nats", _nats(d, "answer_sum", ".3f")),
        "kl/floor": ("of the start against itself (floor)", _nats(d, "floor", ".1e")),
    }
    return [list(cells) for key, cells in told.items() if key in d]


def _nats(drift: Mapping[str, float], name: str, form: str = ".4f") -> str:
    return rounded(drift.get(f"kl/{name}", 0.0), form)


def _asked(card: TrustCard) -> list[list[str]]:
    about, latest = card.about, card.audits[-1]
    audits = f"{len(card.audits)}" + (f", the last at step {latest.step} of {about.max_steps}" if about.is_run else "")
    other = "another set than this version's core, known by its hash"
    rows = [
        ["probes", "AlignGuard's core pool" if card.probe_set == "core" else other],
        ["how many", f"{about.probes:,}; of each dimension {about.draw} an audit, as planned"],
        ["hash", escaped(about.pool_hash)],
        ["audits", audits],
        ["answered by", _as_text(card.engine)],
        ["held against", escaped(card.start)],
        ["which was answered by", escaped(str((about.engine or {}).get("reference") or ""))],
        ["judged by", ", ".join(card.judges)],
        ["toxicity by", escaped(about.toxicity)],
        ["own probes by", escaped(about.judge)],
    ]
    return [row for row in rows if row[1] and (row[0] != "own probes by" or about.judge != "none")]
