"""The trust card: what a record tells those who get the model, in figures alone. How it is written down stands beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import nan
from typing import Any

from ..auditing.audit import Audit
from ..probes.pool import load_probes
from ..probes.probe import SKILL, pool_hash
from ..records.about import About
from ..text import clean
from ..verdicts.verdict import DimensionVerdict, Verdict
from .terminal import headline_of
from .words import moved, tested, told

FORM = "alignguard-card/1"
_MOST_CHARACTERS = 96  # of a name that others gave
_ADDRESS = ("http://", "https://")
# an address or a path that begins in the middle of words
_PLACE = re.compile(r"https?://[^\s;,()]+|(?<![\w./~])(?:~?/|\.{1,2}/|[A-Za-z]:\\)[^\s;,()]+")


@dataclass(frozen=True)
class Row:
    """
    What became of a dimension, or of all of them together. What cannot be had is NaN.

    Args:
        dimension (`str`):
            Its name.
        last (`float`):
            Mean score at the last audit, of the probes scored both then and now.
        n (`int`):
            Answers that the scores are of.
        asked, unscored (`int`):
            Probes of the last audit, and how many of them could not be judged.
        start (`float`, *optional*):
            Mean score of the same probes at the start.
        drop, low, high (`float`, *optional*):
            Positive is worse: over all audits that the evidence rests on, with an interval for the whole run; where nothing
            watches the dimension, of the last audit alone, at 95 %.
        p, detectable (`float`, *optional*):
            As of [`Evidence`], where the dimension is watched.
        pairs (`int`, *optional*):
            What the drop rests on: of all audits, or of one side, it may be more or less than `n`.
        verdict (`str`, *optional*):
            In a word; of a model that is held against nothing there is none.
        part (`str`, *optional*):
            The side that drop, interval and pairs are of, where the evidence is strongest in one.
    """

    dimension: str
    last: float
    n: int
    asked: int
    unscored: int
    start: float = nan
    drop: float = nan
    low: float = nan
    high: float = nan
    p: float = nan
    detectable: float = nan
    pairs: int = 0
    verdict: str = ""
    part: str = ""


@dataclass(frozen=True)
class TrustCard:
    """
    What is told of a record.

    Args:
        name (`str`):
            Of the model that was trained.
        about ([`About`]), audits (`Sequence[Audit]`), verdict ([`Verdict`]):
            As they are on record.
    """

    name: str
    about: About
    audits: Sequence[Audit]
    verdict: Verdict

    @property
    def start(self) -> str:
        """What the model is held against."""
        return "nothing" if self.about.is_alone else shown(self.about.against or self.about.model)

    @property
    def engine(self) -> str:
        """What served it, where, and as what; empty where it was asked here."""
        told = {key: shown(str(value)) for key, value in (self.about.engine or {}).items() if value}
        model = [f"as {told['model']}"] if "model" in told else []
        return ", ".join([*(told[key] for key in ("server", "url") if key in told), *model])

    @property
    def notes(self) -> list[str]:
        """What is to be known of how it was asked."""
        return [told_in_public(note) for note in self.about.notes]

    @property
    def rows(self) -> list[Row]:
        """Reasoning first, which the training is for; then what it may have cost."""
        found = [_row(d, self.verdict, self.about.is_alone) for d in self.verdict.rows]
        return sorted(found, key=lambda row: row.dimension != SKILL)

    @property
    def drift(self) -> dict[str, float]:
        """By the keys of the figures that are logged, as far as the last audit has them."""
        keys = ("kl/answer", "kl/answer_low", "kl/answer_high", "kl/answer_sum", "kl/raw", "kl/floor")
        return {key: value for key in keys if (value := self.audits[-1].figure(key)) is not None}

    @property
    def probe_set(self) -> str:
        """What was asked, by name: this version's core pool, or another."""
        return "core" if self.about.pool_hash == _core() else "other"

    @property
    def judges(self) -> list[str]:
        """By which of our rules and readings answers were judged."""
        return sorted({r.probe.judge for r in self.audits[-1].results.values()} - {"none", "own", "toxicity"})


def _row(d: DimensionVerdict, verdict: Verdict, alone: bool) -> Row:
    start, last = (d.baseline, d.score) if d.n else (nan, nan)
    row = Row(d.dimension, last, d.n, d.asked, d.unscored)
    if alone:
        return row
    counted = d is verdict.together or d in verdict.counted or d.dimension in verdict.since  # by a floor
    word = told(verdict, d)[0] if counted or not d.judged else moved(d.low, d.high) or "cannot tell"
    row = replace(row, start=start, pairs=d.n, verdict=word)
    if not d.judged:
        return row
    e = d.evidence
    if not tested(d):
        return replace(row, drop=d.drop, low=d.low, high=d.high)
    proof = replace(row, p=e.p, detectable=e.detectable, pairs=e.n, part=e.part)
    return replace(proof, drop=e.drop, low=e.low, high=e.high)


@lru_cache(maxsize=1)
def _core() -> str:
    return pool_hash(load_probes("core"))


def shown(name: str) -> str:
    """
    A name that others gave, in a line: of a path its end alone, since a card goes out and a home folder need not, and of an address
    its host, without a key.
    """
    line = _line(name)
    if line.startswith(_ADDRESS):
        line = f"the server at {_host(line)}"
    elif line.startswith(("/", "~", ".")) or line.count("/") > 1 or "\\" in line:  # no hub id
        line = line.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + "..."


def told_in_public(note: str) -> str:
    """What is said in words, in a line: of each path and address in it as much as of a name."""
    return _PLACE.sub(lambda m: _host(m[0]) if m[0].startswith(_ADDRESS) else shown(m[0]), _line(note))


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in clean(text)).split())


def _host(address: str) -> str:
    return re.split(r"[/?#\\]", address.partition("://")[2])[0].rpartition("@")[2]


def flat(card: TrustCard) -> dict[str, Any]:
    """
    A card for machines: names and values, none of which holds others; a figure that does not exist is NaN. Where other weights were
    put back there are none of the dimensions and of drift.
    """
    about, verdict, latest = card.about, card.verdict, card.audits[-1]
    found: dict[str, Any] = {
        "form": FORM,
        "alignguard": shown(about.alignguard),
        "model": card.name,
        "start": card.start,
        "verdict": headline_of(about, verdict, shown),
        "time": latest.time,
        "probe_set": card.probe_set,
        "probes": about.probes,
        "probes_hash": shown(about.pool_hash),
        "probes_a_dimension": about.draw,
        "seed": about.seed,
        "judges": ", ".join(card.judges),
        "toxicity_scorer": shown(about.toxicity),
        "own_judge": shown(about.judge),
        "engine": card.engine,
        "left_out": ", ".join(map(shown, about.left_out)),
        "note": "; ".join([*card.notes, *filter(None, [told_in_public(about.note)])]),
    }
    keys = ["score", "n", "unscored"]
    if not about.is_alone:
        keys += ["start", "drop", "low", "high", "pairs", "p", "detectable", "verdict", "part"]
        found |= {
            "state": verdict.state.value,
            "regressed": ", ".join(verdict.since),
            "last_aligned_step": verdict.last_aligned_step if about.is_run else None,
            "step": latest.step if about.is_run else None,
            "max_steps": about.max_steps,
            "audits": len(card.audits),
            "alpha": about.stop_rule.alpha,
            "min_drop": about.stop_rule.min_drop,
        }
    if about.put_back:  # a figure beside a model would be taken for one of its weights
        return found
    for row in card.rows:
        figures = {**vars(row), "score": row.last}
        found |= {f"{row.dimension}/{key}": figures[key] for key in keys}
    return found | card.drift
