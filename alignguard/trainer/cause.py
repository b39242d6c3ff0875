"""Which rows did it, told at the step where a regression is called: with `trace=True`, of some rows, at the reference's weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from ..drift.reference import Reference
from ..errors import AlignGuardError, RunError
from ..model.observe import memory_given_back, restored_rng
from ..records.record import read_record
from ..tracing.found import Trace
from ..tracing.layers import looked_at, trained_names
from ..tracing.pull import check_forwards
from ..tracing.trace import SHARE, Cost, trace
from ..verdicts.verdict import Verdict
from .settings import Settings
from .shown import Shown
from .start import RunContext, RunState

_SCREEN = 256  # rows by likeness, and as many by chance
_TOKENS = 2048  # of a batch, padded


def check_traceable(
    settings: Settings, reference: Reference, model: Any, processes: int, autocast: torch.dtype | None
) -> None:
    """
    Whether a regression can be traced while training goes on; asked before step 1.

    Raises:
        AlignGuardError: It cannot.
    """
    if not settings.trace:
        return
    why = (
        "the rows that went into each step, and rows=False keeps none"
        if not settings.rows
        else f"one process, and this run has {processes}"
        if processes > 1
        else "the start's weights, and reference='cache' keeps none"
        if reference.kind == "cache"
        else ""
    )
    if why:
        raise AlignGuardError(f"trace=True needs {why}; leave it out, and run `alignguard trace` after training")
    try:
        with restored_rng(), reference.loaded() as start:
            check_forwards(start, looked_at(start, SHARE, trained_names(model)), autocast)
    except RunError as error:
        raise AlignGuardError(f"trace=True: {error}; leave it out") from None


def trace_new(context: RunContext, state: RunState, verdict: Verdict, shown: Shown) -> float:
    """
    Trace what was called for the first time at the latest audit, and show it; where that fails, why is told.

    Returns:
        `float`: seconds that it took.
    """
    begun = time.perf_counter()
    for side in verdict.new_sides:

        def look(side: str = side) -> None:
            shown.trace(_trace(context, side, verdict.step), state, verdict)

        with memory_given_back(context.device):  # after an error too, which holds on to what it failed with
            context.console.guarded(f"the trace of {side}", look)
    return time.perf_counter() - begun


def _trace(context: RunContext, side: str, step: int) -> Trace:
    """Where a regression came from that was called at this step's audit, which is on record."""
    asking, reference, console = context.asking, context.reference, context.console
    record = read_record(str(context.args.output_dir))
    size = min(_TOKENS, asking.tokens.batch_tokens)
    tick: Callable[[int], Any]  # once it is known how many rows are read

    with (
        restored_rng(),
        reference.awake(context.device),
        reference.loaded() as start,
        ExitStack() as bars,
    ):

        def begin(cost: Cost) -> None:
            nonlocal tick
            console.say(f"AlignGuard: traces {side} to {cost}")
            tick = bars.enter_context(console.bar(cost.readings, f"AlignGuard traces, step {step}"))

        return trace(
            record,
            start,
            asking.chat.tokenizer,
            side,
            last=step,
            max_tokens=size,
            autocast=asking.autocast,
            screen=_SCREEN,
            tell=begin,
            tick=lambda n: tick(n),
        )
