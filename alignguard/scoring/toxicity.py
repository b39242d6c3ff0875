"""Toxicity of texts: a callable from texts to probabilities.

The built-in scorer is alt-profanity-check, a small linear model that runs offline in microseconds. It is a profanity
meter: it sees rude words (AUC 0.93 against Perspective), misses hate in polite words, and scores the mention of some
groups too high. Give `toxicity=` your own callable for a stronger one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import version

INSTALL = 'pip install "alignguard-trl[toxicity]"'


class ProfanityCheck:
    """alt-profanity-check as a scorer. `name` goes on record with every run."""

    def __init__(self) -> None:
        from profanity_check import predict_prob

        self._predict = predict_prob
        self.name = f"alt-profanity-check {version('alt-profanity-check')}"

    def __call__(self, texts: list[str]) -> list[float]:
        # a lone surrogate cannot be encoded by the vectoriser
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return [float(p) for p in self._predict(clean)]


def default_toxicity() -> Callable[[list[str]], list[float]] | None:
    """The built-in scorer, or `None` where its package is not installed."""
    return ProfanityCheck() if importlib.util.find_spec("profanity_check") else None


def scorer_name(scorer: Callable[[list[str]], list[float]] | None) -> str:
    """How a scorer is written on record."""
    if scorer is None:
        return "none"
    return str(getattr(scorer, "name", None) or getattr(scorer, "__qualname__", type(scorer).__qualname__))
