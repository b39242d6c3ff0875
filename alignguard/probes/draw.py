"""Which probes an audit asks: a random draw of each dimension, by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from math import ceil
from typing import TypeVar

import numpy as np

from .probe import DIMENSIONS, Probe

T = TypeVar("T")


def spread(items: Sequence[T], size: int) -> list[T]:
    """So many of them, evenly spaced, so that every part has its share; all, where there are no more."""
    return [items[i * len(items) // size] for i in range(size)] if size < len(items) else list(items)


def draw(pool: Sequence[Probe], size: int, seed: int, number: int = 0) -> list[Probe]:
    """
    Draw probes of every dimension. Draws that follow one another have no probe in common until a dimension is used up (the last
    of them is filled up with its first); then its probes are shuffled anew.

    Groups (harmful and benign, say) are drawn in proportion: each probe of a dimension is equally likely to be asked.

    Args:
        pool (`Sequence[Probe]`):
            All probes.
        size (`int`):
            Probes a dimension; all, where a dimension has no more.
        seed (`int`):
            Of the run.
        number (`int`, *optional*, defaults to `0`):
            Of the draw, from 0 on.

    Returns:
        `list[Probe]`, in the order of the pool.
    """
    chosen: set[str] = set()
    for index, dimension in enumerate(DIMENSIONS):
        groups: dict[str, list[str]] = defaultdict(list)
        for probe in pool:
            if probe.dimension == dimension:
                groups[probe.group].append(probe.id)
        total = sum(map(len, groups.values()))
        if not total:
            continue
        taken = min(size, total)
        shuffle, place = divmod(number, ceil(total / taken))
        order = _shuffled(groups, np.random.default_rng([seed, shuffle, index]))
        chosen.update(islice(cycle(order), place * taken, (place + 1) * taken))
    return [probe for probe in pool if probe.id in chosen]


def _shuffled(groups: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[str]:
    """All members in a random order of which every stretch holds every group's share."""
    ranked: list[tuple[float, str]] = []
    for group in sorted(groups):
        members = groups[group]
        # evenly spaced places with a common random offset
        offset = rng.random()
        places = (rng.permutation(len(members)) + offset) / len(members)
        ranked += [(float(place), id) for place, id in zip(places, members, strict=True)]
    return [id for _, id in sorted(ranked)]
