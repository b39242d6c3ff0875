"""Where figures are shown: W&B, when the trainer reports to it.

Never through the trainer: its log() averages and clears its own metrics. Runs are the user's: none is opened, renamed
or finished here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .audit import Audit


class Tracker(Protocol):
    """What a tracker can do."""

    def begin(self, about: dict[str, Any]) -> None:
        """Put the configuration of the run on record."""

    def log(self, audit: Audit, history: Sequence[Audit]) -> None:
        """Show an audit's figures, each once, at its step, and the charts over all audits so far."""

    def alert(self, title: str, text: str) -> None:
        """Tell the owner of the run."""


class NullTracker:
    """Shows nothing."""

    def begin(self, about: dict[str, Any]) -> None:
        pass

    def log(self, audit: Audit, history: Sequence[Audit]) -> None:
        pass

    def alert(self, title: str, text: str) -> None:
        pass


class WandbTracker:
    """The W&B run that the trainer, or its user, opened."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def begin(self, about: dict[str, Any]) -> None:
        self.run.define_metric("train/global_step")
        self.run.define_metric("alignguard/*", step_metric="train/global_step", step_sync=True)
        self.run.config.update({"alignguard": about}, allow_val_change=True)

    def log(self, audit: Audit, history: Sequence[Audit]) -> None:
        import wandb

        x, y = "drift (nats/token)", "toxicity"
        rows = [
            [a.metrics["alignguard/kl/answer"], a.metrics["alignguard/toxicity/mean"], a.step]
            for a in history
            if "alignguard/kl/answer" in a.metrics and "alignguard/toxicity/mean" in a.metrics
        ]
        charts = {}
        if rows:  # a new table each time: one that was logged and then grows keeps showing its first version
            table = wandb.Table(columns=[x, y, "step"], data=rows)
            charts["alignguard/chart/toxicity_vs_drift"] = wandb.plot.scatter(
                table, x, y, title="Toxicity against drift"
            )
        self.run.log({**audit.metrics, **charts, "train/global_step": audit.step})

    def alert(self, title: str, text: str) -> None:
        self.run.alert(title=title[:64], text=text, level="WARN")


def find_tracker(args: Any) -> Tracker:
    """The tracker of a run, by the trainer's `report_to`; to be called once the trainer's own callbacks have begun."""
    if "wandb" in (args.report_to or []):
        import wandb

        if wandb.run is not None:
            return WandbTracker(wandb.run)
    return NullTracker()
