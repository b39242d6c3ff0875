"""What is done before an optimizer step: a drift budget's gradient is added, and the start of what is unfrozen is kept."""

from __future__ import annotations

from typing import Any

from ..holding.anchored import start_head
from .shown import Shown
from .start import RunContext, RunState


def hold(context: RunContext, state: RunState, shown: Shown, step: int, optimizer: Any) -> None:
    """
    Add the gradient of the drift budget's penalty, where there is one.

    Args:
        context ([`RunContext`]), state ([`RunState`]), shown ([`Shown`]):
            Of the run.
        step (`int`):
            Of the trainer, before it is taken.
        optimizer (`torch.optim.Optimizer`):
            The trainer's.
    """
    holder = state.holder
    if holder is None or step % holder.budget.every:
        return

    def pull() -> None:
        scaler = getattr(optimizer, "scaler", None)  # accelerate keeps fp16's there
        holder.step(context.model, step, scaler)
        if context.console.writes:
            shown.line("budget.jsonl", holder.state(step + 1))

    context.console.guarded("the drift budget", pull)


def keep_up(context: RunContext, state: RunState, optimizer: Any) -> None:
    """
    The start of what was unfrozen is kept, and a budget's own view of it with it; the step is made as small as the budget says.

    Args:
        context ([`RunContext`]), state ([`RunState`]):
            Of the run.
        optimizer (`torch.optim.Optimizer`):
            The trainer's.
    """

    def keep() -> None:
        if context.reference.keep_up() and state.holder is not None:
            state.holder.head = start_head(context.reference, context.asking.autocast)

    context.console.guarded("the reference", keep)
    if state.holder is not None:
        state.holder.slow(optimizer)
