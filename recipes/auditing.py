"""What the recipes share: the options of an audit, defaults for a machine without a GPU, and errors in one line."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import wandb
from embedded import NAME, embedded_model
from trl import ModelConfig, ScriptArguments, SFTConfig, TrlParser

from alignguard import AlignGuardError, DriftBudget, Schedule, StopRule, TokenBudget
from alignguard.given import is_whole, meant, need


@dataclass
class AuditArguments:
    """How often, how much and against what is asked, and what is done about it."""

    probes: list[str] = field(default_factory=lambda: ["core"], metadata={"help": "core, dimensions, JSONL files."})
    reference: str = field(default="auto", metadata={"help": "auto, copy, adapter, offload, cache, or a path."})
    audit_at: list[int] | None = field(default=None, metadata={"help": "Early audits; 5 10 20 40 80 by default."})
    audit_every: int | None = field(
        default=None, metadata={"help": "After those, every so many steps; 100 by default."}
    )
    overhead: float | None = field(
        default=None, metadata={"help": "Share of the time that audits may take; 0.05 where no steps are named."}
    )
    draw: int = field(default=48, metadata={"help": "Probes a dimension and audit."})
    rotate: bool = field(default=True, metadata={"help": "Draw afresh at each audit."})
    answer_tokens: int = field(default=64, metadata={"help": "Budget of an answer."})
    trace_tokens: int = field(default=512, metadata={"help": "Budget of a trace."})
    stop: bool = field(default=False, metadata={"help": "Save and stop on a proven regression."})
    restore: bool = field(default=False, metadata={"help": "Stop, and put the last aligned weights back."})
    alpha: float = field(default=0.05, metadata={"help": "Chance of a false stop in a run."})
    max_kl: float | None = field(default=None, metadata={"help": "Hold the model within this drift, nats per token."})
    mix_anchors: int = field(
        default=0, metadata={"help": "SFT: mix in so many alignment rows with the start's answers."}
    )
    train_rows: int = field(default=4096, metadata={"help": "Rows of the built-in task."})

    def settings(self) -> dict[str, Any]:
        """What `AlignGuardCallback` takes."""
        when: dict[str, Any] = {"at": self.audit_at, "every": self.audit_every, "overhead": self.overhead}
        when = {name: value for name, value in when.items() if value is not None}
        return {
            "probes": self.probes,
            "reference": self.reference,
            "schedule": Schedule(draw=self.draw, rotate=self.rotate, **when),
            "tokens": TokenBudget(self.answer_tokens, self.trace_tokens),
            "stop": StopRule(self.alpha, restore=self.restore) if self.stop or self.restore else None,
            "budget": DriftBudget(self.max_kl) if self.max_kl is not None else None,
        }


def parse(config: type, *more: type, **defaults: Any) -> tuple[Any, ...]:
    """
    The options of a recipe: all of TRL's, and those of the audits.

    Args:
        config (`type`):
            The trainer's, e.g. `SFTConfig`.
        more (`type`):
            Dataclasses of options of the recipe's own.
        defaults (`Any`):
            Of the recipe's own, where TRL's would not do.

    Returns:
        `tuple`: of `ScriptArguments`, `config`, `ModelConfig`, [`AuditArguments`] and each of `more`.
    """
    kinds = (ScriptArguments, config, ModelConfig, AuditArguments, *more)
    parser = TrlParser(kinds)
    parser.set_defaults(model_name_or_path=NAME, logging_steps=1, save_strategy="no", **defaults)
    if not torch.cuda.is_available():
        parser.set_defaults(use_cpu=True, bf16=False, dtype="float32", gradient_checkpointing=False)
    script, training, model, audits, *others, rest = parser.parse_args_and_config(return_remaining_strings=True)
    if rest:
        raise AlignGuardError(
            f"no option {rest[0]!r}{meant(rest[0], [f'--{f.name}' for kind in kinds for f in fields(kind)])}"
        )
    for name, least in (("mix_anchors", 0), ("train_rows", 1)):
        value = getattr(audits, name)
        need(is_whole(value, least), f"--{name} is {least} or more", value, where="options")
    if audits.mix_anchors and config is not SFTConfig:
        raise AlignGuardError("--mix_anchors is an option of sft.py; --max_kl works with every recipe")
    if "wandb" in training.report_to and "WANDB_MODE" not in os.environ and not wandb.login(prompt=False):
        wandb.setup(wandb.Settings(mode="offline"))  # no API key: the run is kept on disk, `wandb sync` uploads it
    if model.model_name_or_path == NAME:
        model.model_name_or_path = embedded_model()
    training.model_init_kwargs = {"dtype": model.dtype, "revision": model.model_revision}
    return script, training, model, audits, *others


def run(main: Callable[[], None]) -> None:
    """A mistake to mend is told in one line, without a traceback."""
    try:
        main()
    except (AlignGuardError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
