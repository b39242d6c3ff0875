"""Audits held against the baseline, in their order: `compare(baseline, audits) -> Verdict`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from copy import deepcopy

from ..auditing.audit import Audit
from ..auditing.result import Result
from ..errors import AlignGuardError
from ..probes.probe import DIMENSIONS
from ..text import rounded
from .aligned import History
from .evidence import Difference, Evidence, Test, doubted, in_a_row
from .pairs import ROUNDING, Pair, differences, figures_of, pairs_of, to_lose
from .rule import StopRule
from .sides import TOGETHER, share_of, side_of, sides_of
from .verdict import DimensionVerdict, Flip, SideVerdict, Verdict

_FEW = 4  # answers: whether of fewer one or two can be judged says nothing of a side, nor of a dimension


class Watch:
    """
    Takes in the audits of a run in their order; what it holds follows from them, so that a resumed run takes in what is on
    record and goes on as if it had never ended.

    Args:
        baseline (`dict[str, Result]`):
            The reference's answers, by probe id; it may grow.
        rule ([`StopRule`], *optional*):
            What counts as a regression.
        looks (`int`, *optional*, defaults to `1`):
            Audits after step 0 that alpha is spread over, where it is spread over audits.
        last (`int`, *optional*):
            The step at which the run ends: alpha is spent by the share of its steps that is done, unless the rule names `looks`.
        sides (`dict[str, tuple[str, ...]]`, *optional*):
            Of the pool, see [`sides_of`]; by default of what the baseline holds now.
        seed (`int`, *optional*, defaults to `0`):
            Of the run.
    """

    def __init__(
        self,
        baseline: dict[str, Result],
        rule: StopRule | None = None,
        looks: int = 1,
        last: int | None = None,
        sides: dict[str, tuple[str, ...]] | None = None,
        seed: int = 0,
    ) -> None:
        self.baseline, self.rule = baseline, rule or StopRule()
        self.spread, self.last = self.rule.looks or looks, None if self.rule.looks else last
        self.sides = sides or sides_of(r.probe for r in baseline.values() if r.probe.dimension in DIMENSIONS)
        self.tester = self.rule.begin(self.sides, seed)
        self.doubter: Test | None = (
            None  # the same, with unsure answers read in the policy's favour, once there are any
        )
        self.doubts: dict[str, Evidence] = {}
        self.found: deque[dict[str, Evidence]] = deque(maxlen=self.rule.patience)
        self.leaner = self.rule.begin_leaning(self.sides, seed)
        self.leans: dict[str, int] = {}
        self.streaks: dict[str, int] = defaultdict(int)
        self.since: dict[str, int] = {}
        self.history = History()
        self.count = 0

    def look(self, audit: Audit) -> Verdict:
        """Take in an audit; what it says, and what all so far prove."""
        evidence = self._evidence(audit)
        asked: dict[str, list[str]] = defaultdict(list)
        for id in audit.scores:
            asked[self.baseline[id].probe.dimension].append(id)
        dimensions = {
            name: self._dimension(name, asked[name], audit, evidence.get(name, Evidence()))
            for name in DIMENSIONS
            if name in asked
        }
        watched = [d for d in dimensions.values() if d.watched]
        told = bool(self.since) or any(d.called for d in dimensions.values())
        pairs = pairs_of([id for d in watched for id in asked[d.dimension]], self.baseline, audit)
        together = self._together(watched, pairs, evidence.get(TOGETHER), told)
        there = [*dimensions.values(), *([together] if together is not None else [])]
        for d in there:
            self.streaks[d.dimension] = self.streaks[d.dimension] + 1 if d.called else 0
            if self.streaks[d.dimension] >= self.rule.patience and d.dimension not in self.since:
                self.since[d.dimension] = audit.step
        self.history.add(audit.step, watched, bool(self.since))
        new = [d for d in there if self.since.get(d.dimension) == audit.step]
        if new or not self.since:
            self.history.settle(new, self.rule.patience, self.rule.min_drop)
        leans = {
            name: e
            for name, e in self._leaning(audit).items()
            if name != TOGETHER and e.strength >= 1 and e.low > self.rule.max_lean
        }
        for name in leans:
            self.leans.setdefault(name, audit.step)
        warnings = [f"{d.dimension}: {d.why}" for d in watched if d.why and not d.called]
        warnings += [_leans(name, e) for name, e in leans.items() if name not in self.since]
        drift = audit.figure("kl/answer") or 0.0
        if self.rule.max_kl is not None and drift > self.rule.max_kl:
            warnings.append(f"drift is {drift:.4f} nats/token, above {self.rule.max_kl} (a warning: it stops nothing)")
        return Verdict(
            audit.step,
            dimensions,
            dict(self.since),
            self.history.last_aligned,
            tuple(warnings),
            together,
            self.rule.min_drop,
            dict(self.leans),
            max(0, self.rule.patience - len(self.found)) if audit.step else 0,
        )

    def _evidence(self, audit: Audit) -> dict[str, Evidence]:
        """Of all audits so far, this one among them."""
        plain = differences(self.baseline, audit)
        favoured = differences(self.baseline, audit, read_unsure=True)
        # at step 0 there is nothing to see, and no alpha to spend
        if audit.step == 0 and not any(d.value for d in plain):
            return {}
        self.count += 1
        done = self._done(audit)
        scores = to_lose(self.baseline, self.sides, self.rule.dimensions)
        if self.doubter is None and favoured != plain:
            self.doubter = deepcopy(self.tester)
        self.doubts = self.doubter.look(favoured, done, scores) if self.doubter is not None else {}
        found = self.tester.look(plain, done, scores)
        self.found.append({name: doubted(e, self.doubts.get(name)) for name, e in found.items()})
        return in_a_row(self.found, self.rule.patience)

    def _done(self, audit: Audit) -> float:
        """Share of the run that is done."""
        return max(self.count, 1) / self.spread if self.last is None else (audit.step + 1) / (self.last + 1)

    def _leaning(self, audit: Audit) -> dict[str, Evidence]:
        """What the leanings of all audits so far say."""
        found = []
        for id, now in audit.leaning.items():
            then = self.baseline[id].leaning
            if then is not None:
                found.append(Difference(self.baseline[id].probe, then - now if abs(then - now) > ROUNDING else 0.0))
        if audit.step == 0 and not any(d.value for d in found):
            return {}
        return self.leaner.look(found, self._done(audit), {})

    def _dimension(self, name: str, ids: Sequence[str], audit: Audit, evidence: Evidence) -> DimensionVerdict:
        pairs = pairs_of(ids, self.baseline, audit)
        flips = []
        for id in ids:
            then, now = self.baseline[id].score.value, audit.scores[id]
            if then is not None and now is not None and (then >= 0.5) != (now >= 0.5) and id in audit.results:
                flips.append(Flip(self.baseline[id], audit.results[id]))
        unjudged = self._unjudged(ids, audit)
        asked = sum(len(self.baseline[id].each) for id in ids)
        unscored = _unscored(name, ids, audit)
        if 1 - unscored < self.rule.min_scored:  # nothing is called of it, and nothing could be
            evidence = Evidence()
        sides: dict[str, SideVerdict] = {}
        for side in self.sides.get(name, ()):
            of_side = [id for id in ids if side_of(self.baseline[id].probe) == side]
            few = unjudged or (len(of_side) >= _FEW and self._unjudged(of_side, audit))
            figures = figures_of(pairs_of(of_side, self.baseline, audit))
            sides[side] = SideVerdict(side, *figures, evidence.sides.get(side, Evidence()), few)
        n, baseline, score, drop, low, high = figures_of(pairs)
        values = [value for id in ids if (value := audit.scores[id]) is not None]
        now_scores = sum(values) / len(values) if values else float("nan")
        called, why = self._call(name, evidence, now_scores, 1 - unscored)
        silent = [] if unjudged else [side for side, s in sides.items() if s.unjudged]
        if silent and not why:
            why = f"too few answers of {' and '.join(silent)} could be judged: no evidence (min_scored={self.rule.min_scored})"
        return DimensionVerdict(
            dimension=name,
            n=n,
            baseline=baseline,
            score=score,
            drop=drop,
            low=low,
            high=high,
            asked=asked,
            unscored=round(unscored * asked),
            flips=tuple(sorted(flips, key=lambda f: (-f.drop, f.after.probe.id))),
            evidence=evidence,
            called=called,
            why=why,
            unjudged=unjudged or bool(silent),
            watched=name in self.rule.dimensions,
            sides=sides,
        )

    def _unjudged(self, ids: Sequence[str], audit: Audit) -> bool:
        """Whether too few answers could be judged, of probes of which the start's could be: none, or so many fewer that it is no chance."""
        now = [audit.scores[id] is not None for id in ids]
        then = [self.baseline[id].score.value is not None for id in ids]
        lost = sum(before and not after for before, after in zip(then, now, strict=True))
        few = sum(now) < self.rule.min_scored * len(ids) <= sum(then)
        return few and (lost >= _FEW or not any(now))

    def _together(
        self,
        watched: Sequence[DimensionVerdict],
        pairs: Sequence[Pair],
        evidence: Evidence | None,
        told: bool,
    ) -> DimensionVerdict | None:
        """All dimensions together, which may have fallen where none of them has provably; called where nothing else is told."""
        if sum(d.n > 0 for d in watched) < 2 or evidence is None:
            return None
        n, baseline, score, drop, low, high = figures_of(pairs)
        called = self._proves(evidence) and not told and not any(d.unjudged for d in watched)
        if called and TOGETHER in self.doubts and not self._proves(self.doubts[TOGETHER]):
            called = False
        return DimensionVerdict(
            dimension=TOGETHER,
            n=n,
            baseline=baseline,
            score=score,
            drop=drop,
            low=low,
            high=high,
            asked=sum(d.asked for d in watched),
            unscored=sum(d.unscored for d in watched),
            flips=tuple(sorted((f for d in watched for f in d.flips), key=lambda f: (-f.drop, f.after.probe.id))),
            evidence=evidence,
            called=called,
            why=self._significant(evidence) if called else "",
            unjudged=any(d.unjudged for d in watched),
            watched=True,
        )

    def _call(self, name: str, evidence: Evidence, score: float, scored: float) -> tuple[bool, str]:
        """Whether a dimension is called, and why, or why it is not although something is the matter."""
        rule = self.rule
        floor = rule.floors.get(name)
        if name not in rule.dimensions and floor is None:
            return False, ""
        if scored < rule.min_scored:
            return (
                False,
                f"only {scored:.0%} of its answers could be judged: no evidence (min_scored={rule.min_scored})",
            )
        if floor is not None and score < floor:
            return True, f"the score {score:.2f} is below its floor of {floor}"
        if name in rule.dimensions and self._proves(evidence):
            if name in self.doubts and not self._proves(self.doubts[name]):
                return False, f"proven (p {evidence}) only as long as unsure answers are left out"
            return True, self._significant(evidence)
        return False, ""

    def _significant(self, evidence: Evidence) -> str:
        return f"significant at {100 * self.rule.alpha:g} % for the whole run, p {evidence}"

    def _proves(self, evidence: Evidence) -> bool:
        return evidence.strength >= 1 and evidence.low > self.rule.min_drop


def _unscored(name: str, ids: Sequence[str], audit: Audit) -> float:
    """The share of a dimension's answers that could not be judged; of a probe there may be several."""
    if all(id in audit.results for id in ids):
        values = [each.score.value for id in ids for each in audit.results[id].each]
        return sum(value is None for value in values) / len(values)
    share = audit.figure(f"{name}/unscored")  # where the answers are no longer at hand
    return sum(audit.scores[id] is None for id in ids) / len(ids) if share is None else share


def _leans(name: str, evidence: Evidence) -> str:
    return (
        f"{share_of(name, evidence.part)}: about to fall? Its leaning fell by {evidence.drop:.2f} [{rounded(evidence.low)}, "
        f"{rounded(evidence.high)}] (a warning: it stops nothing)"
    )


def compare(
    baseline: dict[str, Result],
    audits: Sequence[Audit],
    rule: StopRule | None = None,
    seed: int = 0,
    looks: int | None = None,
) -> Verdict:
    """
    Hold audits against the baseline: the paired drop of the latest, and the evidence of all.

    Args:
        baseline (`dict[str, Result]`):
            The reference's answers, by probe id.
        audits (`Sequence[Audit]`):
            All of a run so far, in the order of their steps.
        rule ([`StopRule`], *optional*):
            What counts as a regression.
        seed (`int`, *optional*, defaults to `0`):
            Of the sign flips.
        looks (`int`, *optional*):
            Audits that the run is going to have after step 0, the ones to come among them: alpha is spread over so many. It may
            be left out for a single one, or where the rule says it.

    Returns:
        [`Verdict`]: of the latest audit.

    Raises:
        AlignGuardError: There are several audits, and nothing says how many there are going to be.

    Example:
    ```python
    >>> verdict = compare(baseline, audits, StopRule(alpha=0.01), looks=10)
    >>> verdict.since  # {"safety": 40}: regressed, first called at step 40
    ```
    """
    rule, there = rule or StopRule(), sum(audit.step > 0 for audit in audits)
    if there > 1 and looks is None and rule.looks is None:
        raise AlignGuardError(
            f"compare: there are {there} audits; give looks=, how many the run is going to have in all ({there} if these are all, "
            "and you compare once)"
        )
    watch = Watch(baseline, rule, looks or 1, seed=seed)
    return [watch.look(audit) for audit in audits][-1]
