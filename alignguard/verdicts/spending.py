"""How much of alpha may be used up by when (Lan & DeMets 1983), and what chance must not exceed then."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

_WITHIN = 0.9  # of alpha, spent by the end that is planned; the rest is for looks beyond it
_TIE = 1e-5  # values nearer than this are the same: they are sums in float32


@dataclass
class Spending:
    """
    The share of alpha that may be used up: 0.9 times the square root of the share of the run that is done, so that what breaks
    early is found early, whichever audits are taken; and beyond the end 0.1 times the sum of 6 / (pi j)^2 over looks j.
    """

    _done: float = 0.0
    _beyond: int = 0

    def at(self, done: float) -> float:
        """
        By a look; looks come in order.

        Args:
            done (`float`):
                Share of the run that is done, from 0 on; above 1 where it goes on beyond the end that was planned.
        """
        self._beyond += self._done >= 1
        self._done = max(self._done, done)
        reserve = sum(1 / j**2 for j in range(1, self._beyond + 1)) * 6 / pi**2
        return _WITHIN * sqrt(min(1.0, self._done)) + (1 - _WITHIN) * reserve


class Lines:
    """
    What must be exceeded to be no chance, look by look, at several levels at once.

    By each look the share `level x spent` of all worlds of chance may have crossed the line: it is set so that the worlds that
    cross it now, and never before, use up what is new. The first world is the real one.

    Args:
        levels (`np.ndarray`):
            Ascending, each an alpha of its own.
        worlds (`int`):
            How many.
    """

    def __init__(self, levels: np.ndarray, worlds: int) -> None:
        self.levels = levels
        self._alive = np.ones((len(levels), worlds), dtype=bool)
        self._crossed = np.zeros(len(levels), dtype=np.int64)

    def cross(self, reached: np.ndarray, spent: float) -> np.ndarray:
        """
        The lines of a look; worlds above them are out.

        Args:
            reached (`np.ndarray`):
                The largest statistic of each world, (worlds,).
            spent (`float`):
                By now, as a share of each level.

        Returns:
            `np.ndarray`: the line of each level, (levels,).
        """
        allowed = (len(reached) * self.levels * spent).astype(np.int64) - self._crossed
        order = np.argsort(-reached, kind="stable")
        rank = np.cumsum(self._alive[:, order], axis=1)  # (levels, worlds)
        places = [int(np.searchsorted(r, a + 1)) for r, a in zip(rank, allowed.clip(0), strict=True)]
        lines = reached[order[np.minimum(places, len(order) - 1)]] + _TIE
        crosses = self._alive & (reached > lines[:, None])
        self._crossed += crosses.sum(1)
        self._alive &= ~crosses
        return lines
