"""The drift budget: how far a model may move from its start while it learns, and what holding it there costs the loss.

The coefficient of the penalty is found while training, as the multiplier of the constraint "anchor drift <= max_kl": a PI
controller on the relative excess, whose integral part is the dual ascent of constrained optimisation (Bertsekas 1982, ch. 2)
and whose proportional part damps it (Stooke et al. 2020, arXiv 2007.03964). It is zero where there is room.

No penalty holds a model whose every step is larger than its budget, as the first ones of Adam are at many a learning rate: it is
thrown from side to side. So there is a factor on the learning rate, too. How far a step moves a model is known when it has been taken:
the factor starts at its least and grows fourfold with each step until drift shows (the slow start of congestion control: Jacobson 1988). Later it
shrinks while the drift, averaged over four looks, is above twice `max_kl`, and grows back within the budget (as PPO's learning rate is adapted to its
KL: Schulman et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import exp
from typing import Any

from ..given import is_number, is_whole, need

_PROPORTIONAL, _INTEGRAL = 0.2, 0.1  # of the relative excess, at each step
_CLIP = 2.0  # the largest relative excess that counts: one odd batch of anchors is no reason to brake for long
_need = partial(need, where="DriftBudget")
_MEMORY = 4.0  # steps that anchor drift is averaged over: one step sees a few anchors only
_FAR = 1.0  # relative excess from which on steps are made smaller: at twice the budget
_BRAKE, _RELEASE = 0.25, 1.02  # how fast: log of the factor by the excess over that, and growth within the budget
_SLOWEST = 0.05  # of the trainer's own steps: what hardly moves cannot be brought back either
_GROWTH = 4.0  # of a step while no drift shows: three steps that are not whole cost a short run little
_SHOWS = 0.05  # of the budget: five times as far is 25 times the drift, and a fourfold step would leave the budget
_FLOOR = 0.125  # of the budget: more than that is no rounding, but a model that did not begin at its start
_WIDE = 1.0  # nats per token: no first step exceeds such a budget, and steps are the trainer's own from then on


@dataclass(frozen=True)
class DriftBudget:
    """
    The drift a run may spend.

    Args:
        max_kl (`float`, *optional*, defaults to `0.05`):
            *Answer* drift on the anchors, nats per token, that the coefficient is found for.
        anchors (`str` or `Iterable`, *optional*, defaults to `"built-in"`):
            Prompts: our own, a JSONL file with `prompt` or `messages`, or a list of texts or such rows. None may be a probe.
        batch (`int`, *optional*, defaults to `4`):
            Anchors a step, over all processes.
        every (`int`, *optional*, defaults to `1`):
            Look at anchors, and add the penalty's gradient, before every so many steps.
        coefficient (`float`, *optional*):
            A fixed coefficient, in loss per nat per token, instead of the controller's; `max_kl` is then only shown.
        most (`float`, *optional*, defaults to `20.0`):
            The controller's coefficient is at most `most / max_kl`.
        answer_tokens (`int`, *optional*, defaults to `32`):
            Of the start's answer to each anchor.

    Raises:
        AlignGuardError: A number is out of range.
    """

    max_kl: float = 0.05
    anchors: Any = "built-in"
    batch: int = 4
    every: int = 1
    coefficient: float | None = None
    most: float = 20.0
    answer_tokens: int = 32

    def __post_init__(self) -> None:
        for name in ("max_kl", "most"):
            value = getattr(self, name)
            _need(is_number(value) and value > 0, f"{name} must be above 0", value)
        for name in ("batch", "every", "answer_tokens"):
            _need(is_whole(getattr(self, name), 1), f"{name} must be at least 1, and whole", getattr(self, name))
        fixed = self.coefficient
        _need(
            fixed is None or (is_number(fixed) and fixed >= 0),
            "coefficient must not be negative, a number or None",
            fixed,
        )


@dataclass
class Controller:
    """
    Finds the coefficient.

    Args:
        budget ([`DriftBudget`]):
            What it is to hold.
        mean (`float`, *optional*, defaults to `0.0`):
            Anchor drift, nats per token, averaged over the last steps.
        integral (`float`, *optional*, defaults to `0.0`):
            Of the relative excess.
        seen (`int`, *optional*, defaults to `0`):
            How often it was updated.
        pace (`float`, *optional*, defaults to `0.05`):
            The factor on the learning rate; 1 with a fixed coefficient, or a budget of a nat and more.
        starting (`bool`, *optional*, defaults to `True`):
            Whether the factor still grows fourfold with each step: no drift has shown so far.
        floor (`float`, *optional*, defaults to `0.0`):
            What the first look found, nats per token, before anything had moved: what rounding alone makes.
    """

    budget: DriftBudget
    mean: float = 0.0
    integral: float = 0.0
    seen: int = 0
    pace: float = _SLOWEST
    starting: bool = True
    floor: float = 0.0

    def __post_init__(self) -> None:
        fixed = self.budget.coefficient is not None
        if self.seen == 0 and (fixed or self.budget.max_kl >= _WIDE):  # else it goes on with what is given
            self.pace, self.starting = 1.0, False

    def excess(self, kl: float) -> float:
        """How far a drift is above the budget, relative to it; clipped."""
        return min(max(kl / self.budget.max_kl - 1.0, -1.0), _CLIP)

    @property
    def coefficient(self) -> float:
        """Loss per nat per token."""
        budget = self.budget
        if budget.coefficient is not None:
            return budget.coefficient
        return min(max(_PROPORTIONAL * self.excess(self.mean) + self.integral, 0.0), budget.most) / budget.max_kl

    def update(self, kl: float, moved: bool = True) -> None:
        """Take in the drift of a step's anchors, nats per token; and whether a step was taken since the last ones were looked at."""
        self.seen += 1
        weight = max(1.0 / self.seen, 1.0 / _MEMORY)
        self.mean += weight * (kl - self.mean)
        # of the step's own drift: an integral is an average already, and one of averages would brake long after the fact;
        # bounded by what can be acted upon (anti-windup): no debt is kept that would brake, or coast, long after. Geometric
        # above one, so that a coefficient that grew large is given back within tens of steps, too
        grown = self.integral + _INTEGRAL * self.excess(kl) * max(1.0, self.integral)
        self.integral = min(max(grown, 0.0), self.budget.most)
        if self.budget.coefficient is None:
            self.pace = min(max(self.pace * self._change(kl, moved), _SLOWEST), 1.0)

    def bounded(self, rate: float, before: float) -> float:
        """The factor for a step at a learning rate, where the last one was taken at another, its factor in it: a rate may be warming up."""
        if self.starting and before:
            self.pace = max(min(self.pace, _GROWTH * before / rate), _SLOWEST)
        return self.pace

    def _change(self, kl: float, moved: bool) -> float:
        """Of the factor on the learning rate, after a step's anchors were looked at."""
        if self.seen == 1:
            self.floor = min(kl, _FLOOR * self.budget.max_kl)
            return 1.0
        over = self.excess(self.mean)  # anchors differ: single looks beyond it are no reason to brake
        shows = kl - self.floor > max(_SHOWS * self.budget.max_kl, self.floor)  # looks differ, by other anchors
        self.starting = self.starting and self.pace < 1.0 and not shows
        if over > _FAR:
            return exp(-_BRAKE * (over - _FAR))
        if self.mean > self.budget.max_kl or not moved:
            return 1.0
        return _GROWTH if self.starting else _RELEASE**self.budget.every
