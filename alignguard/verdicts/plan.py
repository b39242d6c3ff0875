"""What a run will be able to find, said before it begins: the rule itself, on a run of chance over the draws that are planned."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..probes.draw import spread
from ..probes.probe import Probe
from .detectable import ASSUMED_CHURN
from .evidence import Difference, Evidence, in_a_row
from .rule import StopRule
from .sides import TOGETHER, sides_of

_RIGHT = 0.8  # share of the start's answers that are right, until it was asked
_MOST_LOOKS = 12  # that are gone through: of more, so many that are spread over the run
_WORLDS = 4_000


@dataclass(frozen=True)
class Plan:
    """
    What audits of a run are planned.

    Args:
        pool (`Sequence[Probe]`):
            All probes.
        drawn (`Callable[[int], Sequence[Probe]]`):
            What the audit of a number asks, from 1 on.
        steps (`Sequence[int]`):
            Of the audits after step 0.
    """

    pool: Sequence[Probe]
    drawn: Callable[[int], Sequence[Probe]]
    steps: Sequence[int]


def foreseen(plan: Plan, rule: StopRule, seed: int = 0) -> dict[str, Evidence]:
    """
    What the last audit will be able to tell of each dimension that is watched, if nothing happens: above all what
    `detectable` says.

    Args:
        plan ([`Plan`]):
            What is asked when.
        rule ([`StopRule`]):
            What counts as a regression.
        seed (`int`, *optional*, defaults to `0`):
            Of the run.
    """
    sides = sides_of(plan.pool)
    test = rule.begin(sides, seed, _WORLDS)
    rng = np.random.default_rng(seed)
    fell = {
        probe.id: rng.choice([0.0, 1.0, -1.0], p=[1 - ASSUMED_CHURN, *[ASSUMED_CHURN / 2] * 2]) for probe in plan.pool
    }
    scores = {(name, part): _RIGHT for name in (*sides, TOGETHER) for part in ("", *sides.get(name, ()))}
    numbered = list(enumerate(plan.steps, 1))
    found: deque[dict[str, Evidence]] = deque(maxlen=rule.patience)
    for number, step in spread(numbered, _MOST_LOOKS):
        differences = [Difference(probe, fell[probe.id]) for probe in plan.drawn(number)]
        found.append(test.look(differences, (step + 1) / (plan.steps[-1] + 1), scores))
    return {name: e for name, e in in_a_row(found, rule.patience).items() if name != TOGETHER}
