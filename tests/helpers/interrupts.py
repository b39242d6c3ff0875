"""Ctrl-C at a line: an audit in a run is interrupted wherever a line of ours is reached, and looked at from outside."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runs import guard, sft
from transformers import TrainerCallback
from watched import Watched

import alignguard

_ROOT = str(Path(alignguard.__file__).parent)
Line = str  # "model/observe.py:40"
# where something is changed for a while, and put back
CHANGING = (
    "distributed.py",
    "drift/adapters.py",
    "drift/reference.py",
    "model/forward.py",
    "model/generation.py",
    "model/observe.py",
    "model/spoken.py",
    "model/virtual.py",
    "trainer/",
)


def interrupted(tokenizer: Any, folder: Path, every: int = 1, **settings: Any) -> list[tuple[Line, bool, list[str]]]:
    """
    Audits after a step of a run, each interrupted where it first reaches a line of ours.

    Args:
        tokenizer (`PreTrainedTokenizerBase`), folder (`Path`):
            Of the run.
        every (`int`, *optional*, defaults to `1`):
            Of the lines of files other than [`CHANGING`], only each n-th.
        settings (`Any`):
            Of the trainer.

    Returns:
        `list[tuple[Line, bool, list[str]]]`: of each the line, whether the interrupt went through, and what was not as before.
    """
    tries: list[tuple[Line, bool, list[str]]] = []
    callback = guard()
    looked = Watched(callback, folder)

    class Interrupts(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
            if state.global_step != 3:
                return

            def audit() -> None:
                callback.run.look(3, optimizer)

            lines = lines_reached(audit)
            often = [line for line in lines if line.startswith(CHANGING)]
            for line in [*often, *[line for line in lines if line not in set(often)][::every]]:
                with looked.looking(line, 3, **kwargs):
                    through = _strike(audit, line)
                tries.append((line, through, looked.found[-1][2]))

    sft(tokenizer, folder, [callback, Interrupts()], max_steps=4, **settings).train()
    return tries


def lines_reached(do: Callable[[], object]) -> list[Line]:
    """Lines of ours that a call reaches, in the order in which it first does."""
    reached: dict[Line, None] = {}
    _traced(do, lambda line: reached.setdefault(line))
    return list(reached)


def _strike(do: Callable[[], object], at: Line) -> bool:
    """Whether a call lets the interrupt through that comes where it first reaches a line."""
    left = [1]

    def strike(line: Line) -> None:
        if line == at and left:
            left.clear()
            raise KeyboardInterrupt

    try:
        _traced(do, strike)
    except KeyboardInterrupt:
        return True
    return False


def _traced(do: Callable[[], object], each: Callable[[Line], object]) -> None:
    def enter(frame: Any, event: str, arg: Any) -> Any:
        return follow if frame.f_code.co_filename.startswith(_ROOT) else None

    def follow(frame: Any, event: str, arg: Any) -> Any:
        if event == "line":
            each(f"{frame.f_code.co_filename[len(_ROOT) + 1 :]}:{frame.f_lineno}")
        return follow

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        do()
    finally:
        sys.settrace(before)
