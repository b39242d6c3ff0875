"""What a trainer had its model say and trained it on: completions with their advantages, token by token as they went into the loss.

TRL's GRPO and RLOO trainers hold what they generated last in `_buffered_inputs`, batch by batch, and count in `_step` the batches that
they were trained on. Both are private: where they are others, completions are not told, and `tests/trainer/test_rows.py` fails. Other
trainers that generate (distillation) give no advantages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..records.rows import TrainedRow

_TENSORS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")


class Completions:
    """
    The completions that this process trains on, numbered as they come.

    Args:
        trainer (`Trainer`, *optional*):
            Where it is known.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.temperature = float(getattr(trainer, "temperature", 1.0))  # by which the loss divides logits
        self._generation: Any = (
            None  # by which the latest one is known: all of it is not held a moment longer than the trainer does
        )
        self._numbers: dict[int, list[int]] = {}  # of those of its batches that were trained on
        self._next = 0

    def take(self) -> tuple[list[int], list[TrainedRow]]:
        """Those of the batch that was trained on just now: their numbers, and what of them was not told before."""
        batches, step = (getattr(self._trainer, name, None) for name in ("_buffered_inputs", "_step"))
        if not isinstance(batches, list) or not batches or not isinstance(step, int):
            return [], []
        if not all(
            isinstance(batch, dict) and all(isinstance(batch.get(n), torch.Tensor) for n in _TENSORS)
            for batch in batches
        ):
            return [], []
        if batches[0]["advantages"] is not self._generation:
            self._generation, self._numbers = batches[0]["advantages"], {}
        at = (step - 1) % len(batches)
        if at in self._numbers:
            return self._numbers[at], []
        batch = batches[at]
        first, self._next = self._next, self._next + len(batch["advantages"])
        self._numbers[at] = list(range(first, self._next))
        return self._numbers[at], list(documents(first, batch))


def keeps_completions(trainer: Any) -> bool:
    """Whether a trainer has its model say something in training, and gives each completion an advantage."""
    logs = getattr(trainer, "_logs", None)
    return hasattr(trainer, "_buffered_inputs") and isinstance(logs, dict) and "advantages" in logs


def why_unread(trainer: Any) -> str:
    """Why it is not known what the loss of a trainer's completions is taken of, in a few words; empty where it is."""
    losses = [
        getattr(getattr(type(trainer), name, None), "__qualname__", "") for name in ("_compute_loss", "compute_loss")
    ]
    if any(loss.partition(".")[0] not in ("GRPOTrainer", "RLOOTrainer") for loss in losses):
        return f"the loss of {type(trainer).__name__} is one of its own"
    if (quantile := getattr(trainer, "top_entropy_quantile", 1.0)) < 1:
        return f"its loss is of the tokens of most entropy alone (top_entropy_quantile={quantile})"
    if (threshold := getattr(trainer, "off_policy_mask_threshold", None)) is not None:
        return f"its loss leaves out completions that the policy has moved away from (off_policy_mask_threshold={threshold})"
    corrects = getattr(trainer, "use_vllm", False) and getattr(trainer, "vllm_importance_sampling_correction", False)
    if getattr(trainer, "loss_type", "") == "vespo" and corrects:
        return "its loss (vespo) weighs completions by vLLM's probabilities in a way of its own"
    return ""


def documents(first: int, batch: dict[str, Any]) -> Iterator[TrainedRow]:
    """
    Completions as what is learnt of them: every token that the loss is taken of, as much as the advantage says; times how much likelier
    they are to the model than to the vLLM that gave them, where the loss is multiplied by that (a mean, where tokens differ).

    Args:
        first (`int`):
            The number of the first one.
        batch (`dict[str, Tensor]`):
            As the trainer's loss is given it: of (completions, tokens) ids and masks, of tools' results too, and (completions,) advantages.

    Yields:
        Nothing for one of which nothing is learnt, as where those that were cut off are masked, nor where there is more than text.
    """
    if "pixel_values" in batch or batch["advantages"].dim() != 1:
        return
    asked, there, said, spoken, advantages = (
        batch[name].detach().cpu()
        for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
    )
    own = batch["tool_mask"].detach().cpu() if isinstance(batch.get("tool_mask"), torch.Tensor) else spoken
    ratios = batch.get("importance_sampling_ratio")  # (completions, 1 or tokens); 0 where the loss leaves one out
    ratios = ratios.detach().cpu().expand(said.shape) if isinstance(ratios, torch.Tensor) else None
    for i, advantage in enumerate(advantages.tolist()):
        before, after = asked[i][there[i] > 0], said[i][spoken[i] > 0]  # (tokens,)
        learnt = torch.cat([torch.zeros_like(before, dtype=torch.bool), own[i][spoken[i] > 0] > 0])
        if not learnt.any():
            continue
        if ratios is not None:
            ratio = torch.cat([torch.zeros_like(before), ratios[i][spoken[i] > 0]])
            advantage *= ratio[learnt].mean().item()
            learnt = learnt & (ratio > 0) if advantage else learnt
        yield TrainedRow(first + i, torch.cat([before, after]).int().numpy(), learnt.numpy(), weight=advantage)
