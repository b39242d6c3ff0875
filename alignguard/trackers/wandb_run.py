"""W&B: a section `alignguard/`, with charts over drift, tables, alerts and a summary, and the record as an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import wandb

from ..auditing.audit import Audit
from ..auditing.figures import logged
from ..probes.probe import DIMENSIONS
from ..verdicts.verdict import Verdict
from . import tables
from .wandb_artifact import Artifacts

_DRIFT = "drift (nats/token)"
_LONGEST_TITLE = 63
# what runs are sorted by
_SUMMARY = {logged(key) for key in ("kl/answer", "last_aligned_step")} | {
    logged(f"{name}/{key}") for name in DIMENSIONS for key in ("score", "drop")
}


class WandbRun:
    """The W&B run that the trainer, or its user, opened; without step=, which is the run's own count of logs."""

    name = "W&B"

    def __init__(self, run: Any, quote: bool, artifacts: Artifacts) -> None:
        self.run, self.quote, self.artifacts = run, quote, artifacts
        self.left_out: set[str] = set()
        self.ended = False
        # a table that was logged and then grows keeps showing its first version, unless it is told to grow; this also
        # takes up the table of a run that was resumed
        self.tables = {
            f"alignguard/{name}": wandb.Table(columns=tables.columns(names, quote), log_mode="INCREMENTAL")
            for name, names in (("flips", tables.FLIPS), ("answers", tables.ANSWERS))
        }
        self.new: dict[str, wandb.Table] = {}  # those that have grown since they were logged
        self.history: Sequence[Audit] = ()

    def begin(self, about: dict[str, Any]) -> None:
        self.run.define_metric("train/global_step")
        self.run.define_metric("alignguard/*", step_metric="train/global_step", step_sync=True)
        self.run.config.update({"alignguard": about}, allow_val_change=True)

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        self._leave_out_of_summary(audit.metrics)
        for (name, table), added in zip(
            self.tables.items(), (tables.flips(verdict, self.quote), tables.answers(audit, self.quote)), strict=True
        ):
            for row in added.rows:
                table.add_data(*row)
                self.new[name] = table
        self.history = history
        anew = self.ended or verdict.new or tables.shown_anew(len(history))
        self.run.log({**audit.metrics, **(self._grown() if anew else {}), "train/global_step": audit.step})
        self.run.summary.update(_worst(history))
        for name in (_SUMMARY - audit.metrics.keys()) & {*self.run.summary.keys()}:  # of an earlier audit
            del self.run.summary[name]

    def keep(self, step: int, figures: Path, report: Path) -> None:
        self.artifacts.keep(step, figures, report)

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        self._leave_out_of_summary(figures)
        self.run.log({**figures, "train/global_step": step})

    def alert(self, name: str, title: str, text: str, bare: str) -> None:
        self.run.alert(title=title[:_LONGEST_TITLE], text=text, level="WARN")

    def end(self) -> None:
        """The run stays open until its user finishes it; its record is as it will be, unless an audit is still to come."""
        self.ended = True
        if grown := self._grown():
            self.run.log({**grown, "train/global_step": self.history[-1].step})
        self.artifacts.end()

    def _grown(self) -> dict[str, Any]:
        """Tables and charts, where they have grown since they were logged."""
        new, self.new = self.new, {}
        return {**new, **_charts(self.history)} if new else {}

    def _leave_out_of_summary(self, figures: dict[str, float]) -> None:
        """The trainer copies every number of the summary into its checkpoints' metadata, and W&B takes a hundred of them."""
        for name in figures.keys() - _SUMMARY - self.left_out:  # a pattern gives way to the trainer's own
            self.run.define_metric(name, step_metric="train/global_step", step_sync=True, summary="none")
            self.left_out.add(name)


def _charts(history: Sequence[Audit]) -> dict[str, Any]:
    """W&B's own panels have one x axis a metric; over drift a figure needs a chart, made anew of all audits."""
    charts = {}
    toxicity = _over_drift(history, "toxicity/mean")
    if toxicity:
        table = wandb.Table(columns=[_DRIFT, "toxicity"], data=[list(point) for point in toxicity])
        charts["alignguard/chart/toxicity_vs_drift"] = wandb.plot.scatter(
            table, _DRIFT, "toxicity", title="Toxicity against drift"
        )
    scores = {name: _over_drift(history, f"{name}/score") for name in DIMENSIONS}
    scores = {name: points for name, points in scores.items() if points}
    if scores:
        charts["alignguard/chart/score_vs_drift"] = wandb.plot.line_series(
            xs=[[x for x, _ in points] for points in scores.values()],
            ys=[[y for _, y in points] for points in scores.values()],
            keys=list(scores),
            title="Score of each dimension against drift",
            xname=_DRIFT,
        )
    return charts


def _over_drift(history: Sequence[Audit], key: str) -> list[tuple[float, float]]:
    points = [(audit.figure("kl/answer"), audit.figure(key)) for audit in history]
    return [(x, y) for x, y in points if x is not None and y is not None]


def _worst(history: Sequence[Audit]) -> dict[str, float]:
    """The largest drop of each dimension over the run."""
    worst = {}
    for name in DIMENSIONS:
        drops = [drop for audit in history if (drop := audit.figure(f"{name}/drop")) is not None and not isnan(drop)]
        if drops:
            worst[f"alignguard/{name}/worst_drop"] = max(drops)
    return worst
