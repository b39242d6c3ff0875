"""A grid of trainers and ways of training, each run with the callback and without: what of the two is not the same to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from peft import LoraConfig, get_peft_model
from portrait import digest
from process_state import generators
from tiny import tiny_model
from trainers import CASES, Case, Logs, guard, save_start
from transformers import TrainerCallback

LORA = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.2)
TRAINERS: dict[str, Case] = {
    "Trainer": next(case for case in CASES if case.name == "Trainer"),
    "SFT": next(case for case in CASES if case.name == "SFTTrainer"),
    "GRPO": next(case for case in CASES if case.name == "GRPOTrainer" and case.settings["beta"]),
    "DPO": next(case for case in CASES if case.name == "DPOTrainer" and case.module == "trl"),
    "distillation": next(case for case in CASES if case.name == "DistillationTrainer"),
}


class NotRun(Exception):
    """A cell that would show nothing, and why."""


@dataclass(frozen=True)
class Kind:
    """
    A way of training.

    Args:
        settings (`dict`, *optional*):
            Of the trainer.
        start (`str`, *optional*, defaults to `"dropout"`):
            Of [`starts`]; with dropout every draw of a generator counts.
        wrap (`Callable`, *optional*):
            What is put around the model.
    """

    settings: dict[str, Any]
    start: str = "dropout"
    wrap: Callable[[Any], Any] = lambda model: model


_KEPT = {"gradient_checkpointing": False}
KINDS = {
    "plain": Kind(_KEPT, "plain"),
    "dropout": Kind(_KEPT),
    "gradient checkpointing": Kind({"gradient_checkpointing": True}),
    "LoRA": Kind({**_KEPT, "learning_rate": 1e-1}, wrap=lambda model: get_peft_model(model, LORA)),
    "bf16": Kind({**_KEPT, "bf16": True}),
    "torch.compile": Kind({**_KEPT, "torch_compile": True, "torch_compile_backend": "aot_eager"}),
}


def starts(tokenizer: Any, folder: Path) -> dict[str, Path]:
    """Folders of models to begin with."""
    found = {"dropout": save_start(tokenizer, folder / "dropout"), "plain": save_start(tokenizer, folder / "plain")}
    tiny_model(tokenizer, seed=1, scale=4.0).save_pretrained(found["plain"])
    return found


def differing(case: Case, kind: Kind, tokenizer: Any, start: Path, folder: Path, other: Any = guard) -> list[str]:
    """
    Run a cell twice, alone and with a callback.

    Args:
        case (`Case`), kind (`Kind`):
            Which trainer, and how it trains.
        tokenizer (`PreTrainedTokenizerBase`), start (`Path`):
            What it begins with.
        folder (`Path`):
            Where the two runs write.
        other (`Callable`, *optional*):
            Makes the callback.

    Returns:
        `list[str]`: the names of what is not the same to the bit; nothing where all is.

    Raises:
        NotRun: The way of training makes no difference to this trainer.
    """
    alone = _run(case, kind, tokenizer, start, folder / "alone", [])
    watched = _run(case, kind, tokenizer, start, folder / "watched", [other()])
    assert len({log.get("grad_norm") for log in alone["logs"]}) > 3  # it trained, and no step was like another
    if kind.settings.get("torch_compile") and not alone["compiled"]:
        raise NotRun("this trainer compiles nothing of what it trains")
    return [name for name in alone | watched if alone.get(name) != watched.get(name)]


def _run(case: Case, kind: Kind, tokenizer: Any, start: Path, folder: Path, ours: list[Any]) -> dict[str, Any]:
    """What a run logged, and what it left: weights, optimizer, schedule, generators, and the files of its model."""
    torch._dynamo.reset()
    torch.manual_seed(0)  # adapters are drawn before the trainer sets its seed
    torch._dynamo.utils.counters.clear()
    logs = Logs()
    trainer = case.build(tokenizer, start, folder, [logs, *ours], kind.wrap, **kind.settings)
    trainer.train()
    found: dict[str, Any] = {"logs": logs.kept, "schedule": str(trainer.lr_scheduler.state_dict())}
    found["compiled"] = dict(torch._dynamo.utils.counters["stats"])
    found |= {f"weights.{name}": digest(p) for name, p in trainer.model.named_parameters()}
    found |= {f"buffers.{name}": digest(p) for name, p in trainer.model.named_buffers()}
    for place, state in trainer.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{place}.{name}": digest(part) for name, part in state.items()}
    found |= {f"generators.{name}": state for name, state in generators().items()}
    trainer.save_model(str(folder / "saved"))
    for path in sorted((folder / "saved").rglob("*")):
        if path.is_file() and path.name not in (
            "training_args.bin",
            "README.md",
        ):  # where it lies; the section on trust
            found[f"files.{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Draws(TrainerCallback):
    """What a callback must not do: it draws a number after the first step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            torch.rand(1)
