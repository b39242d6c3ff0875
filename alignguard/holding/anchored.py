"""Anchors with what the frozen start says to them: asked once, before step 1, and kept for a run that is resumed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..auditing.asking import Asking
from ..auditing.unjudged import ask_training, training_items
from ..drift.reference import Reference
from ..errors import AlignGuardError, RunError, one_line
from ..files import write_whole
from ..model.head import Head, read_head, target_hidden
from ..model.observe import observing
from .anchors import Anchor
from .budget import DriftBudget


@dataclass
class Anchored:
    """
    One anchor.

    Args:
        context (`list[int]`), target (`list[int]`):
            Token ids of the prompt and of the start's answer.
        cut (`int`):
            Where the answer proper begins: after the start's own trace, and what wraps it.
        free (`bool`):
            Whether opening a trace costs nothing: the start opens none here.
        hidden (`torch.Tensor`):
            The start's final hidden states, shape (tokens of the answer proper, d).
    """

    context: list[int]
    target: list[int]
    cut: int
    free: bool
    hidden: torch.Tensor


def ask_anchors(
    prompts: dict[str, Anchor], reference: Reference, budget: DriftBudget, asking: Asking
) -> dict[str, Anchored]:
    """
    What the start says to the anchors, and its hidden states there.

    Args:
        prompts (`dict[str, Anchor]`):
            What is asked, by name.
        reference ([`Reference`]):
            The frozen start; one that is a cache while its model is still there.
        budget ([`DriftBudget`]):
            How long answers may be.
        asking ([`Asking`]):
            How they are asked.

    Raises:
        AlignGuardError: The model's logits are not its LM head's, so their KL has no cheap gradient; or it says nothing.
    """
    chat = asking.chat
    tokens = replace(asking.tokens, answer=budget.answer_tokens, trace=4 * budget.answer_tokens, force_close=True)
    short = replace(asking, tokens=tokens, tick=lambda n: None)
    ids = {id: chat.prompt_ids(list(anchor.turns)) for id, anchor in prompts.items()}
    anchors: dict[str, Anchored] = {}
    with reference.loaded() as frozen:
        answered = ask_training(frozen, ids, short)
        with observing(frozen, autocast=asking.autocast):
            head = holdable_head(frozen)
            for item in training_items(ids, answered, chat):
                said = item.answer
                cut = chat.answer_start(said.tokens, item.inside)
                if cut < len(said.tokens):
                    hidden = target_hidden(frozen, [item.row], chat.pad_token_id, head)[cut:].clone()
                    anchors[item.id] = Anchored(
                        list(item.context), list(said.tokens), cut, not (said.thinks or item.inside), hidden
                    )
    if not anchors:
        raise AlignGuardError("DriftBudget: the start says nothing to any of the anchors; give it other anchors=")
    return anchors


def holdable_head(model: Any) -> Head:
    """
    A model's LM head, through which its KL has a cheap gradient.

    Raises:
        AlignGuardError: The model's logits are not its LM head's.
    """
    head = read_head(model)
    if head.weight is None:
        raise AlignGuardError(
            "DriftBudget needs the logits to be hidden states times the LM head, which is not so for this model; "
            "leave the head out of LoRA's target_modules and modules_to_save, or use budget=None"
        )
    return head


def start_head(reference: Reference, autocast: torch.dtype | None = None) -> Head:
    """
    The start's LM head, for as long as the run lasts.

    Args:
        reference ([`Reference`]):
            The frozen start, awake: of one that is kept on the CPU the head alone stays on the device.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in: there are attention kernels that refuse float32.
    """
    if reference.cache is not None:
        assert reference.cache.head is not None
        return reference.cache.head
    with reference.loaded() as frozen, observing(frozen, autocast=autocast):
        return read_head(frozen)


def write_anchors(path: Path, anchors: dict[str, Anchored], prompts: dict[str, Anchor], fingerprint: str) -> None:
    """Keep the anchors, for a run that is resumed where the start cannot be asked any more."""
    tensors = {}
    for id, a in anchors.items():
        tensors[f"hidden/{id}"] = a.hidden.cpu().contiguous()
        tensors[f"context/{id}"], tensors[f"target/{id}"] = torch.tensor(a.context), torch.tensor(a.target)
        tensors[f"cut/{id}"] = torch.tensor([a.cut, int(a.free)])
    about = {"fingerprint": fingerprint, "prompts": _hash(prompts)}
    write_whole(path, lambda beside: save_file(tensors, beside, metadata=about), private=True)


def _hash(prompts: dict[str, Anchor]) -> str:
    told = json.dumps({name: anchor.turns for name, anchor in prompts.items()}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def read_anchors(path: Path, prompts: dict[str, Anchor], fingerprint: str) -> dict[str, Anchored]:
    """
    Read what [`write_anchors`] wrote.

    Raises:
        RunError: The file is missing or broken, or of another start or other anchors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys = {key.removeprefix("hidden/") for key in file.keys() if key.startswith("hidden/")}  # noqa: SIM118
            if (file.metadata() or {}) != {"fingerprint": fingerprint, "prompts": _hash(prompts)}:
                raise RunError(
                    f"{path}: the anchors on record are not those of this run; give the same budget and start"
                )
            found = {}
            for id in (name for name in prompts if name in keys):
                context, target = (file.get_tensor(f"{part}/{id}").tolist() for part in ("context", "target"))
                cut, free = file.get_tensor(f"cut/{id}").tolist()
                found[id] = Anchored(context, target, cut, bool(free), file.get_tensor(f"hidden/{id}"))
            return found
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: the anchors cannot be read ({one_line(error)})") from None
