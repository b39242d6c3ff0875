"""Which trackers a run has."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from .base import Tracker
from .reporter import Reporter
from .tensorboard_writer import TensorBoardWriter, trainers_writer

logger = logging.getLogger("alignguard")
# whose runs are opened by a callback of the trainer, as its training begins, or by people; and what they are called here
_OPENED = {"wandb": "W&B", "trackio": "Trackio", "mlflow": "MLflow", "dagshub": "MLflow"}


def find_trackers(
    args: Any, trainer: Any = None, quote: bool = True, among: Collection[str] | None = None
) -> list[Tracker]:
    """
    The trackers that the trainer reports to; to be called once its own callbacks have begun, which open the runs.

    Args:
        args (`TrainingArguments`):
            The trainer's, for `report_to`.
        trainer (`Trainer`, *optional*):
            Where it is known its reporting callbacks are too: TensorBoard's writer, and whatever has no adapter here.
        quote (`bool`, *optional*, defaults to `True`):
            Whether prompts and answers are shown.
        among (`Collection[str]`, *optional*):
            Names of `report_to` that are looked for, where it is not all of them.
    """
    reporters = _reporters(trainer)
    names = {*(args.report_to or ()), *reporters}
    names = names if among is None else names & set(among)
    found: list[Tracker] = []
    if "wandb" in names:
        import wandb

        from .wandb_artifact import Artifacts
        from .wandb_run import WandbRun

        if wandb.run is not None:
            found.append(WandbRun(wandb.run, quote, Artifacts.of_run(wandb.run, args)))
    if "trackio" in names:
        from trackio import context_vars

        from .trackio_run import TrackioRun

        run = context_vars.current_run.get()
        if run is not None:
            found.append(TrackioRun(run, quote))
    if names & {"mlflow", "dagshub"}:  # DagsHub is an MLflow server
        import mlflow

        from .mlflow_run import MlflowRun

        active = mlflow.active_run()
        if active is not None:
            found.append(MlflowRun(active.info.run_id, quote))
    if "tensorboard" in names:
        found.append(TensorBoardWriter(trainers_writer(args, reporters.get("tensorboard"))))
    for name in sorted(names - {"wandb", "trackio", "mlflow", "dagshub", "tensorboard"}):
        kind = INTEGRATION_TO_CALLBACK.get(name, TrainerCallback)
        if kind.on_log is TrainerCallback.on_log:
            continue  # it takes no figures, not even the trainer's
        if name in reporters:
            found.append(Reporter(name, reporters[name], args, trainer))
        else:
            logger.warning(
                f"AlignGuard: {name} is not fed; trainer.add_callback(AlignGuardCallback(trainer)) in place of "
                "callbacks=[AlignGuardCallback()] feeds it"
            )
    return found


def without_run(args: Any, trainer: Any, found: Iterable[Tracker]) -> dict[str, str]:
    """Trackers that the trainer reports to and that have no run yet, since their callback comes after ours: by name, what each is called."""
    there = {tracker.name for tracker in found}
    asked = {*(args.report_to or ()), *_reporters(trainer)}
    return {name: called for name, called in _OPENED.items() if name in asked and called not in there}


def _reporters(trainer: Any) -> dict[str, TrainerCallback]:
    """The reporting callbacks of a trainer, where it is known, by their names in `report_to`."""
    reporters: dict[str, TrainerCallback] = {}
    for callback in trainer.callback_handler.callbacks if trainer is not None else ():
        reporters |= {name: callback for name, kind in INTEGRATION_TO_CALLBACK.items() if isinstance(callback, kind)}
    return reporters
