"""Toxicity of texts: a callable from texts to probabilities.

Two run offline, each an extra. The built-in one, `"profanity-check"`, is alt-profanity-check, a linear model of
words, in microseconds: a profanity meter, which misses hate in polite words and takes a quoted rude word for
rudeness. `"minilm"`, which has to be asked for, reads meaning, in milliseconds: a sentence encoder with a linear head
(`sentences.py`). It sees hate in mild words, and sees it in many a harmless mention of a group too; `docs/judging.md`
has both side by side. For a stronger one give `toxicity=` the name of a classifier or guard (see `guards.py`), or a
callable.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from importlib.metadata import version
from math import inf
from typing import Any

from ..errors import ProbeError

_SECONDS = 300.0  # of people's own scorer or judge, for an audit: less than processes wait for one another
INSTALL = 'pip install "alignguard-trl[toxicity]"'


class ProfanityCheck:
    """alt-profanity-check as a scorer. `name` goes on record with every run."""

    only_english = True  # what is in another language holds none of its words, and would pass for kind

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


def scorer_of(given: Any) -> Callable[[list[str]], list[float]] | None:
    """
    The scorer that people ask for.

    Args:
        given (`None`, `str` or `Callable`):
            `None` for the built-in one; by name `"profanity-check"`, which is the same, or `"minilm"`; the name or
            path of a model; or a callable from texts to probabilities.

    Raises:
        ProbeError: It is none of these, its extra is not installed, or its model cannot be loaded.
    """
    if given is None:
        return default_toxicity()
    if given == "minilm":
        from .sentences import SentenceToxicity

        return SentenceToxicity()
    if given == "profanity-check":
        if importlib.util.find_spec("profanity_check") is None:
            raise ProbeError(f"toxicity='profanity-check': its package is not installed; {INSTALL}")
        return ProfanityCheck()
    if isinstance(given, str):
        from .guards import load_scorer

        return load_scorer(given)
    if not callable(given):
        raise ProbeError(f"toxicity: a name or a callable is expected, not a {type(given).__name__}")
    return given


def judge_of(given: Any) -> Callable[[str, str], float] | None:
    """
    The judge that people ask for, of prompts and answers.

    Args:
        given (`None`, `str` or `Callable`):
            A callable `(prompt, answer) -> float` in [0, 1], or the name or path of a generative guard.

    Raises:
        ProbeError: It is none of these, or its model cannot be loaded.
    """
    if isinstance(given, str):
        from .guards import GuardModel, load_scorer

        guard = load_scorer(given)
        if not isinstance(guard, GuardModel):
            raise ProbeError(f"judge: '{given}' classifies texts; a generative guard reads prompt and answer")
        return guard.judge
    if given is not None and not callable(given):
        raise ProbeError(f"judge: a name or a callable is expected, not a {type(given).__name__}")
    return given


def seconds_of(scorer: Callable[..., Any]) -> float:
    """How long a scorer may take for all that is asked at once: what its attribute `seconds` says, as long as it likes where it is one of ours."""
    owner = _owner(scorer)
    ours = type(owner).__module__.startswith(__package__)
    return float(getattr(owner, "seconds", inf if ours else _SECONDS))


def _owner(scorer: Callable[..., Any]) -> Any:
    """Of a guard's method the guard."""
    return scorer.__self__ if inspect.ismethod(scorer) else scorer


def scorer_name(scorer: Callable[..., Any] | None) -> str:
    """How a scorer is written on record."""
    if scorer is None:
        return "none"
    return str(getattr(_owner(scorer), "name", None) or getattr(scorer, "__qualname__", type(scorer).__qualname__))
