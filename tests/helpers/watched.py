"""A callback whose every hook is looked at from outside: what is not as it was before it, but for what may come."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from everything import differences, everything
from transformers import Trainer

HOOKS = (
    "on_init_end",
    "on_train_begin",
    "on_step_begin",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
    "on_evaluate",
    "on_train_end",
)
ASKING = ("on_init_end", "on_train_begin", "on_step_end", "on_evaluate", "on_train_end")  # models
# what may come of looking, and why
ALLOWED = {
    r"modules\.\S+: absent -> imported": "a module is imported where it is needed first",
    r"files\.(\S+/)?_?alignguard(/\S*)?: absent -> ": "our record, in folders of our own",
    r"files\.\S+/_?alignguard/\S+: \w+ -> ": "our record grows",
    r"process\.file \d+: (absent -> \S+/_alignguard/\.lock|\S+/_alignguard/\.lock -> absent)": "held while the run writes its record",
    r"trainer\.(create_model_card|save_model): absent -> ": "followed by ours, so that the model card gets its section on trust",
    r"(trainer\.)?state\.stateful_callbacks\.alignguard\S*: ": "the trainer's checkpoints say which run they are of",
    r"environment\.KMP_(INIT_AT_FORK|DUPLICATE_LIB_OK): absent -> ": "scikit-learn's import, for its own OpenMP",
    r"processes\.groups: ": "figures are gathered over a group of our own",
}


def unexpected(lines: list[str], allowed: dict[str, str] = ALLOWED) -> list[str]:
    """Of what differs, what may not."""
    return [line for line in lines if not any(re.match(pattern, line) for pattern in allowed)]


class Watched:
    """
    Looks at everything before and after each hook of a callback, also where it fails.

    Args:
        callback (`AlignGuardCallback`):
            Whose hooks are wrapped.
        folders (`tuple[Path, ...]`, *optional*):
            Whose files are seen.
        memory (`bool`, *optional*, defaults to `False`):
            Whether the tensors that live are seen too, where models are asked.
    """

    def __init__(self, callback: Any, *folders: Path, memory: bool = False) -> None:
        self.callback, self.folders, self.memory = callback, folders, memory
        self.found: list[tuple[str, int, list[str]]] = []  # hook, step, what may not be
        for name in HOOKS:
            setattr(callback, name, partial(self._hook, name, getattr(callback, name)))

    def _hook(self, name: str, hook: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with self.looking(name, state.global_step, **kwargs):
            hook(args, state, control, **kwargs)

    @contextmanager
    def looking(self, name: str, step: int, **kwargs: Any) -> Iterator[None]:
        """What is done in the block is looked at."""
        given = {key: value for key, value in kwargs.items() if key != "metrics"}
        memory = self.memory and name in ASKING

        def look() -> dict[str, Any]:
            return everything(self.folders, self.callback, memory, trainer=calling_trainer(), **given)

        before = look()
        try:
            yield
        finally:
            self.found.append((name, step, unexpected(differences(before, look()))))

    @property
    def hooks(self) -> set[str]:
        """Those that were called."""
        return {name for name, _, _ in self.found}

    @property
    def told(self) -> list[str]:
        """All that may not be, a line each."""
        return [f"{name} at step {step}: {line}" for name, step, lines in self.found for line in lines]


def calling_trainer() -> Any:
    """The trainer that has called us, wherever on the stack it is."""
    frame: Any = sys._getframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), Trainer):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]
