"""The record of a run as a W&B artifact, beside the checkpoints that the trainer logs.

`alignguard-audit-<run id>`, of the type `alignguard-audit`, is an output of the run that also logged the checkpoints: that is
where W&B's lineage leads. Which checkpoint an audit is of stands in its metadata, in W&B's own notation, and its alias is
the step: to ask W&B for the checkpoint (`use_artifact`) would wait for its upload, and cannot be done offline.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

_TYPE = "alignguard-audit"
# of the folder of figures, in which records of earlier versions have texts, too
_FILES = ("baseline.json", "audits.jsonl", "budget.jsonl", "pulses.jsonl", "pace.jsonl")


@dataclass
class Artifacts:
    """
    The versions of a run's artifact: one when it ends or, where the trainer logs its checkpoints, one an audit.

    To log one costs an online run a request that it waits for, as each checkpoint of the trainer's does.

    Args:
        run (`wandb.Run`):
            Whose they are.
        model (`str`):
            The artifact that the trainer logs its checkpoints as.
        each (`bool`):
            Whether it does.
    """

    run: Any
    model: str
    each: bool

    def __post_init__(self) -> None:
        self.waiting: tuple[int, Path, Path] | None = None
        self.ended = False

    @classmethod
    def of_run(cls, run: Any, args: Any) -> Artifacts:
        """Named as transformers' callback names them."""
        told = args.run_name if args.run_name != args.output_dir else None
        model = f"model-{run.id if told is None else run.name}"
        return cls(run, model, os.getenv("WANDB_LOG_MODEL", "").lower() == "checkpoint")

    def keep(self, step: int, figures: Path, report: Path) -> None:
        """The record after the audit of a step: its folder of figures, and its report."""
        self.waiting = step, figures, report
        if self.each or self.ended:
            self._log()

    def end(self) -> None:
        """No audit is to come, or one at most."""
        self.ended = True
        self._log()

    def _log(self) -> None:
        if self.waiting is None:
            return
        (step, figures, report), self.waiting = self.waiting, None  # one that fails is not tried again
        metadata = {"step": step} | ({"checkpoint": f"{self.model}:checkpoint_global_step_{step}"} if self.each else {})
        artifact = wandb.Artifact(f"{_TYPE}-{self.run.id}", type=_TYPE, metadata=metadata)
        for path in (*(figures / name for name in _FILES), report):
            if path.exists():
                artifact.add_file(str(path), name=path.name)
        self.run.log_artifact(artifact, aliases=[f"step_{step}"])
