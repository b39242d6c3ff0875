"""Where a trainer chooses checkpoints, or ends, by one of our figures: it is there at every evaluation, and it is that step's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from math import ceil, nan
from typing import Any

from ..auditing.audit import Audit
from ..auditing.figures import PREFIX, is_of_audits, lower_is_better, of_audits
from ..errors import AlignGuardError
from .settings import Settings


def chosen_figure(args: Any) -> str:
    """The figure that a trainer's `metric_for_best_model` names, as it is logged; empty where it is none of ours."""
    name = (getattr(args, "metric_for_best_model", None) or "").removeprefix("eval_")
    return name if name.startswith(PREFIX) else ""


def with_evaluations(settings: Settings, args: Any, last: int) -> Settings:
    """
    What people ask, with an audit at each evaluation where one of our figures is chosen by: as far as it is known when they are.

    Args:
        settings ([`Settings`]):
            What people ask.
        args (`TrainingArguments`):
            The trainer's.
        last (`int`):
            Its last step.
    """
    if not chosen_figure(args) or str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "steps":
        return settings
    every = ceil(last * args.eval_steps) if args.eval_steps < 1 else int(args.eval_steps)  # as the trainer reads it
    steps = (step for step in range(every, last + 1, every) if step >= args.eval_delay)
    return replace(settings, schedule=settings.schedule.joined(steps, last))


def check_chosen(args: Any, tell: Callable[[str, str], None]) -> str:
    """
    Whether a trainer can choose by the figure that it names; asked before step 1.

    Args:
        args (`TrainingArguments`):
            The trainer's.
        tell (`Callable[[str, str], None]`):
            Is told, under a name, where the other end of a figure would be chosen.

    Returns:
        `str`: what is said of it; empty where no figure of ours is named.

    Raises:
        AlignGuardError: There is no such figure: the trainer would end at its first evaluation.
    """
    name = chosen_figure(args)
    if not name:
        return ""
    if not is_of_audits(name):
        close = get_close_matches(name, of_audits(), n=1)
        hint = f"did you mean '{close[0]}'?" if close else "docs/figures.md lists them"
        raise AlignGuardError(
            f"metric_for_best_model={args.metric_for_best_model!r} names no figure of an audit; {hint}"
        )
    lower = lower_is_better(name)
    if lower is not None and bool(args.greater_is_better) == lower:
        tell(
            "greater_is_better",
            f"of {name} {'lower' if lower else 'higher'} is better, and greater_is_better={bool(args.greater_is_better)} takes the worst "
            f"checkpoint for the best; give the trainer greater_is_better={not lower}",
        )
    return f"AlignGuard: audits at every evaluation too, since metric_for_best_model names {name}\n"


def tell_lacking(args: Any, audits: Sequence[Audit], tell: Callable[[str, str], None]) -> None:
    """After the audit of step 0: whether it lacks the figure that is chosen by, as one that this run will never have."""
    figures_of(audits, 0, "", chosen_figure(args), False, tell)


def figures_of(
    audits: Sequence[Audit],
    step: int,
    put_back: str,
    chosen: str,
    everything: bool,
    tell: Callable[[str, str], None],
) -> dict[str, float]:
    """
    Our figures for an evaluation's metrics, as `eval_alignguard/...`: the one that is chosen by alone, if not all are asked for, since
    a search's objective is by default the sum of all metrics, and a notebook has a column for each. Those of another step are told of.

    Args:
        audits (`Sequence[Audit]`):
            All so far.
        step (`int`):
            Of the trainer.
        put_back (`str`):
            Whose weights the model was given after training, if not those of that step: a checkpoint's, or `"the start"`.
        chosen (`str`):
            The figure that is chosen by, or nothing: it is always there, since the trainer ends a run that lacks it.
        everything (`bool`):
            Whether all others are asked for, too.
        tell (`Callable[[str, str], None]`):
            As for [`check_chosen`].
    """
    if put_back:
        end = put_back.rpartition("-")[2]
        step = int(end) if end.isdecimal() else 0
    known = [audit for audit in audits if audit.step <= step]
    found: dict[str, float] = {}
    if everything and known:
        found |= known[-1].metrics
        if known[-1].step != step:
            tell(
                "figures of another step",
                f"at step {step} there is no audit: eval_{PREFIX}... are of step {known[-1].step}",
            )
    if chosen:
        there = next((audit for audit in reversed(known) if chosen in audit.metrics), None)
        found[chosen] = nan if there is None else there.metrics[chosen]
        if there is None:
            tell(
                f"no {chosen}",
                f"no audit up to step {step} has {chosen}: it is given as no number, which is never the best",
            )
        elif there.step != step:
            tell(
                f"{chosen} of another step",
                f"at step {step} no audit has {chosen}: the trainer is given that of step {there.step}",
            )
    return {f"eval_{name}": value for name, value in found.items()}
