"""The verdict: what audits say of every dimension, and what a run has come to.

Dimensions move in opposite directions, so they are never folded into one number. What one audit shows (drop and interval) and
what all of them prove (evidence, see `evidence.py`) stand side by side; only what is proven is called a regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import isnan

from ..auditing.figures import named
from ..auditing.result import Result
from ..probes.probe import TRUST_DIMENSIONS
from .evidence import Evidence, least_found
from .sides import TOGETHER


class State(str, Enum):
    """What a verdict comes to: of a dimension, and of a run. Terminal, report, alarm, trackers and exit codes only word it."""

    REGRESSED = "regressed"
    UNJUDGED = "unjudged"  # too few answers could be judged, where the start's could be
    FELL = "fell"  # by the interval of this one look; nothing is proven
    UNTOLD = "cannot tell"  # a drop that counts lies within the interval of this look
    HOLDS = "holds"  # it does not
    NOTHING = "nothing to say"  # nothing was asked, or nothing could ever be judged


@dataclass(frozen=True)
class Flip:
    """A probe whose judgement changed: both answers were scored, on different sides of one half."""

    before: Result
    after: Result

    @property
    def drop(self) -> float:
        """Baseline score minus current score; positive is worse."""
        return (self.before.score.value or 0.0) - (self.after.score.value or 0.0)


class _Paired:
    """What a dimension and a side have in common: pairs, and the interval of their drop at this look."""

    n: int
    low: float
    unjudged: bool

    @property
    def fell(self) -> bool:
        """Whether the interval of this one look lies wholly above zero."""
        return self.n > 0 and self.low > 0

    @property
    def judged(self) -> bool:
        """Whether enough could be judged now: what is unscored counts as unchanged, and of that alone no drop can be told."""
        return self.n > 0 and not self.unjudged


@dataclass(frozen=True)
class SideVerdict(_Paired):
    """
    One side of a dimension at one audit.

    Args:
        side (`str`):
            See [`side_of`].
        n (`int`), baseline, score, drop, low, high (`float`):
            As of a [`DimensionVerdict`].
        evidence ([`Evidence`]):
            Of all audits so far.
        unjudged (`bool`, *optional*, defaults to `False`):
            Whether too few of its answers could be judged, or of the dimension's.
    """

    side: str
    n: int
    baseline: float
    score: float
    drop: float
    low: float
    high: float
    evidence: Evidence
    unjudged: bool = False


@dataclass(frozen=True)
class DimensionVerdict(_Paired):
    """
    One dimension at one audit.

    Args:
        dimension (`str`):
            One of [`DIMENSIONS`], or `"together"`.
        n (`int`):
            Probes scored both then and now: the evidence.
        baseline, score (`float`):
            Mean score of those, then and now, in [0, 1].
        drop, low, high (`float`):
            Their difference, positive is worse, with a 95 % interval for this one look.
        asked (`int`):
            Answers asked for: of a probe there may be several.
        unscored (`int`):
            Of those, how many now could not be judged.
        flips (`tuple[Flip, ...]`):
            Worst first.
        evidence ([`Evidence`], *optional*):
            Of all audits so far; its `strength` is 1 or more where a fall is proven.
        called (`bool`, *optional*, defaults to `False`):
            Whether this audit calls a regression: proven, large enough, and of enough scored answers; or below a floor.
        why (`str`, *optional*):
            Of what is called, or of what is not because too little was scored, in a few words.
        unjudged (`bool`, *optional*, defaults to `False`):
            Whether too few answers could be judged, of probes of which the start's could be, in all or on one side: a model that
            broke, perhaps.
        watched (`bool`, *optional*, defaults to `False`):
            Whether the rule watches it.
        sides (`Mapping[str, SideVerdict]`, *optional*):
            Where it has several.
    """

    dimension: str
    n: int
    baseline: float
    score: float
    drop: float
    low: float
    high: float
    asked: int
    unscored: int
    flips: tuple[Flip, ...]
    evidence: Evidence = field(default_factory=Evidence)
    called: bool = False
    why: str = ""
    unjudged: bool = False
    watched: bool = False
    sides: Mapping[str, SideVerdict] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """
    What the latest audit says of every dimension asked, and what the run has come to.

    Args:
        step (`int`):
            Of the latest audit.
        dimensions (`dict[str, DimensionVerdict]`):
            By name.
        since (`dict[str, int]`, *optional*):
            Dimensions that have regressed, and the step at which that was called first.
        last_aligned_step (`int`, *optional*, defaults to `0`):
            The last audit at which no watched dimension had fallen by its own interval, or could not be judged any more;
            once a regression is called, the last such audit before those that its evidence rests on.
        warnings (`tuple[str, ...]`, *optional*):
            What is said and stops nothing: drift, and dimensions of which too little was scored.
        together ([`DimensionVerdict`], *optional*):
            All dimensions together: what fell a little everywhere.
        min_drop (`float`, *optional*, defaults to `0.0`):
            Drops up to this size are no regression.
        leans (`dict[str, int]`, *optional*):
            Dimensions whose leaning has fallen, and the step at which that was warned of first.
        awaits (`int`, *optional*, defaults to `0`):
            Audits that must follow before any regression can be called, see `patience` of [`StopRule`].
    """

    step: int
    dimensions: dict[str, DimensionVerdict]
    since: dict[str, int] = field(default_factory=dict)
    last_aligned_step: int = 0
    warnings: tuple[str, ...] = ()
    together: DimensionVerdict | None = None
    min_drop: float = 0.0
    leans: dict[str, int] = field(default_factory=dict)
    awaits: int = 0

    def of(self, name: str) -> DimensionVerdict | None:
        """That of a dimension, or of all together; `None` where this audit asked nothing of it."""
        return self.together if name == TOGETHER else self.dimensions.get(name)

    @property
    def rows(self) -> list[DimensionVerdict]:
        """What a table shows: the dimensions asked, and all of them together."""
        return [*self.dimensions.values(), *([self.together] if self.together is not None else [])]

    @property
    def counted(self) -> list[DimensionVerdict]:
        """The dimensions that a verdict is of: those of trust, and what else the rule watches."""
        return [d for d in self.dimensions.values() if d.watched or d.dimension in TRUST_DIMENSIONS]

    @property
    def unwatched(self) -> list[str]:
        """Those of them that no test looks at: they were asked, and a fall in them is never called."""
        return [d.dimension for d in self.counted if not d.watched]

    def names(self, state: State) -> list[str]:
        """The dimensions of the verdict that are in a state."""
        return [d.dimension for d in self.counted if self.state_of(d) is state]

    def state_of(self, d: DimensionVerdict) -> State:
        """What a dimension has come to: regressed, now or before, or else what this audit says of it."""
        if d.dimension in self.since:
            return State.REGRESSED
        if d.unjudged:
            return State.UNJUDGED
        if d.n == 0:
            return State.NOTHING
        if d.fell:
            return State.FELL
        return State.HOLDS if d.high < self.min_drop else State.UNTOLD

    @property
    def state(self) -> State:
        """
        What the run has come to: the first that is so of a regression, answers nobody could judge, nothing to say, a fall, and
        what cannot be told of some dimension.
        """
        if self.since:
            return State.REGRESSED
        there = {self.state_of(d) for d in self.counted}
        if State.UNJUDGED in there:
            return State.UNJUDGED
        if there <= {State.NOTHING}:
            return State.NOTHING
        return next(state for state in (State.FELL, State.UNTOLD, State.HOLDS) if state in there)

    @property
    def detectable(self) -> float:
        """
        The smallest drop that would have been found in any dimension, with a probability of 80 % each, had it been there from the
        start; infinite where of some dimension none would have been, too little could be judged, or nothing is watched.
        """
        return least_found(d.evidence if d.judged and d.watched else Evidence() for d in self.counted)

    @property
    def regressed_side(self) -> str:
        """The side of the dimension that regressed first, `safety/refuse`, or the dimension; empty where none has, or none was asked."""
        return next(iter(self._sides(self.since)), "")

    @property
    def new_sides(self) -> list[str]:
        """Of each regression that was called at this audit for the first time, its side, or its dimension."""
        return self._sides(self.new)

    def _sides(self, names: Iterable[str]) -> list[str]:
        asked = [(name, d) for name in names if (d := self.dimensions.get(name)) is not None]
        return [f"{name}/{d.evidence.part}" if d.evidence.part else name for name, d in asked]

    @property
    def new(self) -> list[str]:
        """Dimensions whose regression was called at this audit for the first time."""
        return [name for name, step in self.since.items() if step == self.step]

    @property
    def newly_leaning(self) -> list[str]:
        """Dimensions of whose leaning is warned at this audit for the first time, and which have not regressed."""
        return [name for name, step in self.leans.items() if step == self.step and name not in self.since]

    def metrics(self) -> dict[str, float]:
        """What all audits so far have shown, and the sides of this one, under the names that are logged."""
        found = {"last_aligned_step": float(self.last_aligned_step)}
        for d in self.rows:
            if not d.watched:
                continue
            name, e = d.dimension, d.evidence
            if d.judged and (e.looks or not self.step):  # curves begin with the start
                found |= {f"{name}/evidence": e.strength, f"{name}/p": e.p, f"{name}/detectable": e.detectable}
            for side in d.sides.values():
                of_side, e = f"{name}/{side.side}", side.evidence
                found |= {f"{of_side}_score": side.score, f"{of_side}_drop": side.drop}
                if side.judged and (e.looks or not self.step):
                    found |= {f"{of_side}_p": e.p, f"{of_side}_detectable": e.detectable}
        if self.together is not None and self.together.judged:
            found[f"{TOGETHER}/drop"] = self.together.drop
        return named({key: value for key, value in found.items() if not isnan(value)})

    @property
    def flips(self) -> list[Flip]:
        """Of all dimensions, worst first."""
        return sorted((f for d in self.dimensions.values() for f in d.flips), key=lambda f: (-f.drop, f.after.probe.id))
