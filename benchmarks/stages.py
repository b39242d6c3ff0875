"""What of an audit's time goes where."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import alignguard.auditing.answers as answering
import alignguard.auditing.audit as auditing
import alignguard.auditing.judged as judging

STAGES: dict[str, tuple[Any, str]] = {
    "drift": (auditing, "measure_drift"),
    "generation": (auditing, "speak"),
    "choices left over": (answering, "ask_choices"),
    "margins left over": (answering, "refusal_margins"),
    "leaning": (answering, "leanings"),
    "drift left over": (auditing, "read_as_told"),
    "reverse": (auditing, "measure_reverse"),
    "judging": (judging, "judge_all"),
}


@contextmanager
def staged(seconds: dict[str, float]) -> Iterator[None]:
    """Seconds of each stage of the audits in the block go there; `whole` and `else`, what is in none of them."""
    before = time.perf_counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] += time.perf_counter() - begun

        return run

    seconds.clear()
    seconds |= dict.fromkeys(STAGES, 0.0)
    with ExitStack() as stack:
        for name, (module, attribute) in STAGES.items():
            stack.enter_context(patch.object(module, attribute, timed(name, getattr(module, attribute))))
        yield
    spent = sum(seconds.values())
    seconds["whole"] = time.perf_counter() - before
    seconds["else"] = seconds["whole"] - spent
