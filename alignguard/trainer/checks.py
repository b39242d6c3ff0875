"""What a trainer must allow for what is asked of us; asked before step 1."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..drift.reference import KINDS
from ..errors import AlignGuardError, RunError, StartError
from ..given import meant
from ..model.checkpoints import half_written, latest_checkpoint
from ..model.restore import beside_adapters
from ..records.store import Store
from ..report.alarm import headline
from ..verdicts.rule import StopRule
from ..verdicts.verdict import Verdict
from .settings import Settings

logger = logging.getLogger("alignguard")
# trackers that take output_dir whole, whatever its files are called
_UPLOAD_ALL = {"COMET_LOG_ASSETS": ("1", "true", "on", "yes"), "HF_DVCLIVE_LOG_MODEL": ("all",)}

LATE = (  # what is said where another callback puts ours in
    "the callback was added while training was going on, whose start it has not seen, and looks at nothing; add it before "
    "trainer.train()"
)


def check_reference(kind: Any) -> None:
    """
    Whether a reference may be one of the kinds with a slip of the hand; asked before a hub is.

    Raises:
        StartError: It is: no folder here, and near to a kind.
    """
    named = isinstance(kind, str) and kind not in KINDS and not Path(kind).exists()
    if named and get_close_matches(kind, KINDS, n=1, cutoff=0.75):
        raise StartError(f"reference={kind!r} is none of {', '.join(KINDS)}{meant(kind, KINDS)}")


def check_start_was_seen(step: int, kind: Any) -> None:
    """
    Whether the start of a run can still be had; asked where none was kept.

    Raises:
        StartError: The run is resumed, and its start is not given either.
    """
    if step > 0 and kind in KINDS:
        raise StartError(
            "this run is resumed, and its start was not seen: use callbacks=[AlignGuardCallback()] or "
            "trainer.add_callback(AlignGuardCallback(trainer)) before trainer.train()"
        )


def check_alone(trainer: Any, kind: type) -> None:
    """
    Whether a trainer has one callback of ours: each takes the record of its output_dir for its own.

    Args:
        trainer (`Trainer`, *optional*):
            Whose training begins.
        kind (`type`):
            Of the callback.

    Raises:
        AlignGuardError: It has several, or one of them twice.
    """
    handler = getattr(trainer, "callback_handler", None)
    count = sum(isinstance(callback, kind) for callback in getattr(handler, "callbacks", ()))
    if count > 1:
        raise AlignGuardError(
            f"this trainer has {count} AlignGuardCallbacks, which would write one record: give one of them all that is to be asked, as "
            f"probes=['core', 'mine.jsonl'], and take out the {'other' if count == 2 else 'others'}; each call of "
            "trainer.remove_callback(AlignGuardCallback) takes out the first that is there (a notebook's cell that was run twice adds one "
            "more each time)"
        )


def tell_of_half_written(args: Any) -> None:
    """Of a checkpoint that the trainer would resume from, and cannot; told by one process, when its model is seen first."""
    with suppress(OSError):  # a hint, which a folder that cannot be read has no part in
        if args is not None and args.process_index == 0 and (told := half_written(args.output_dir)):
            logger.warning(f"AlignGuard: {told}")


def check_trainer(settings: Settings, args: Any, sharded: bool, model: Any) -> None:
    """
    Whether the trainer allows for what is asked; asked before step 1.

    Args:
        settings ([`Settings`]):
            What people ask.
        args (`TrainingArguments`):
            The trainer's.
        sharded (`bool`):
            Whether the model's weights are sharded.
        model (`PreTrainedModel` or `PeftModel`):
            The policy.

    Raises:
        AlignGuardError: It does not.
    """
    check_restorable(settings.stop, args, sharded, model)
    if settings.budget is not None:
        check_holdable(args, sharded)


def check_floors(rule: StopRule | None, verdict: Verdict) -> None:
    """
    Whether the start itself is above all floors.

    Raises:
        AlignGuardError: It is not.
    """
    for name, floor in (rule or StopRule()).floors.items():
        if name in verdict.since:
            raise AlignGuardError(
                f"StopRule: the start itself scores {verdict.dimensions[name].score:.2f} in {name}, below its floor of {floor}"
            )


def check_restorable(rule: StopRule | None, args: Any, sharded: bool, model: Any) -> None:
    """
    Whether the checkpoints that restoring needs will be there; asked before step 1.

    Raises:
        AlignGuardError: The trainer would delete them, or decides itself what is saved or loaded; the model is sharded; or
            weights train beside adapters, which a checkpoint of adapters lacks.
    """
    if rule is None or not rule.restore:
        return
    if sharded:
        raise AlignGuardError(
            "StopRule(restore=True) cannot put weights back into a sharded model; use StopRule(), and resume from the "
            "checkpoint that its message names"
        )
    if args.save_total_limit is not None:
        raise AlignGuardError(
            "StopRule(restore=True) needs the checkpoints of aligned audits, and save_total_limit deletes the oldest; leave "
            "it unset"
        )
    if args.load_best_model_at_end or str(getattr(args.save_strategy, "value", args.save_strategy)) == "best":
        raise AlignGuardError(
            "StopRule(restore=True) and load_best_model_at_end (or save_strategy='best') both decide which weights are kept; "
            "choose one"
        )
    embeddings = {id(p) for e in (model.get_input_embeddings(), model.get_output_embeddings()) for p in _of(e)}
    named = dict(model.named_parameters())
    if beside := [name for name in beside_adapters(model) if id(named[name]) not in embeddings]:
        raise AlignGuardError(
            f"StopRule(restore=True) puts adapters back, and {len(beside)} other weights train beside them, e.g. {beside[0]}, which their "
            "checkpoints lack; name their modules in modules_to_save of the adapter's config, or use StopRule()"
        )


def _of(module: Any) -> list[Any]:
    return [] if module is None else list(module.parameters())


def check_holdable(args: Any, sharded: bool) -> None:
    """
    Whether a gradient can be added to the trainer's; asked before step 1.

    Args:
        args (`TrainingArguments`):
            The trainer's.
        sharded (`bool`):
            Whether the model's weights are sharded.

    Raises:
        AlignGuardError: DeepSpeed or FSDP keeps the gradients to itself, DDP's graph is static, or the optimizer steps within the
            backward pass.
    """
    engine = getattr(args, "deepspeed", None) or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
    if engine or sharded:
        raise AlignGuardError(
            "DriftBudget adds its gradient to the model's own, which DeepSpeed and FSDP keep to themselves; train with DDP or "
            "on one GPU (LoRA makes room), or leave budget=None and watch"
        )
    if getattr(args, "ddp_static_graph", None):
        raise AlignGuardError(
            "DriftBudget adds its gradient outside of DDP's forward, which a static graph does not allow; leave "
            "ddp_static_graph unset"
        )
    optimizer = str(getattr(args.optim, "value", args.optim))
    if "layerwise" in optimizer or "lomo" in optimizer:
        raise AlignGuardError(
            f"DriftBudget needs an optimizer that steps after the backward pass, and {optimizer} steps within it; choose "
            "another optim="
        )


def what_is_uploaded(args: Any, store: Store, settings: Settings) -> str:
    """
    What of the record leaves the machine with the trainer's output_dir; said before step 1.

    Args:
        args (`TrainingArguments`):
            The trainer's.
        store ([`Store`]), settings ([`Settings`]):
            Where the record is, and what people ask.
    """
    text = ""
    if getattr(args, "push_to_hub", False):
        figures = "figures" if settings.quote else "figures and the report"
        text += (
            f"\nAlignGuard: push_to_hub uploads {store.root} ({figures}, without texts), and nothing of {store.private}"
        )
        text += "; README.md gets a section of figures (card=False: none)" if settings.card else ""
    for flag, values in _UPLOAD_ALL.items():
        if os.environ.get(flag, "").lower() in values:
            text += f"\nAlignGuard: {flag} uploads all of output_dir, {store.private} with its texts too"
    return text


def check_not_stopped(verdict: Verdict | None, rule: StopRule | None, output_dir: str) -> None:
    """
    A run that ended by its rule is not resumed as if nothing had been.

    Raises:
        RunError: It did; the message names an earlier checkpoint.
    """
    if verdict is not None and verdict.since and rule is not None and rule.stop:
        early = latest_checkpoint(output_dir, verdict.last_aligned_step)
        raise RunError(
            f"{headline(verdict).removeprefix('AlignGuard: ')}: this run is resumed after it. Resume from "
            f"{early or 'an earlier checkpoint'}, or go on with StopRule(stop=False)"
        )
