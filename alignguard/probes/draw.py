"""Which probes an audit asks: a random draw of each dimension, by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .probe import DIMENSIONS, Probe

T = TypeVar("T")


def spread(items: Sequence[T], size: int) -> list[T]:
    """So many of them, evenly spaced, so that every part has its share; all, where there are no more."""
    return [items[i * len(items) // size] for i in range(size)] if size < len(items) else list(items)


def draw(pool: Sequence[Probe], size: int, seed: int, look: int = 0) -> list[Probe]:
    """
    Draw probes of every dimension.

    Groups (harmful and benign, say) are drawn in proportion: each probe of a dimension is equally likely to be asked.

    Args:
        pool (`Sequence[Probe]`):
            All probes.
        size (`int`):
            Probes a dimension; all, where a dimension has no more.
        seed (`int`):
            Of the run.
        look (`int`, *optional*, defaults to `0`):
            Number of the draw: another look draws afresh.

    Returns:
        `list[Probe]`, in the order of the pool.
    """
    chosen: set[str] = set()
    for index, dimension in enumerate(DIMENSIONS):
        groups: dict[str, list[Probe]] = defaultdict(list)
        for probe in pool:
            if probe.dimension == dimension:
                groups[probe.group].append(probe)
        rng = np.random.default_rng([seed, look, index])
        ranked: list[tuple[float, str]] = []
        for group in sorted(groups):
            members = groups[group]
            # evenly spaced places with a common random offset: the smallest `size` of all hold every group's share
            offset = rng.random()
            places = (rng.permutation(len(members)) + offset) / len(members)
            ranked += [(float(place), probe.id) for place, probe in zip(places, members, strict=True)]
        chosen |= {id for _, id in sorted(ranked)[:size]}
    return [probe for probe in pool if probe.id in chosen]
