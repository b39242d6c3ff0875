"""Holding a model within its drift budget, under any trainer.

Before an optimizer step a few *anchors* are looked at: prompts with the frozen start's own answers. The penalty is
coefficient x KL(reference || policy) on them, exact and over the full vocabulary; its gradient is there when the trainer
adds its own, and both are clipped together. Learning to think stays free: where the policy opens a trace, its answer is read
after an empty, closed one; where it does not, how likely it would is left out of the KL (see `loss.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .anchors import Anchor
from .asking import Asking
from .budget import Controller, DriftBudget
from .drift import logprob_tokens
from .errors import AlignGuardError, RunError
from .forward import Head, Row, batches, read_head, target_hidden
from .generation import TokenBudget
from .loss import kl_loss
from .observe import eval_mode, observing
from .reference import Reference
from .training import ask_training, training_items

_BATCH_TOKENS = 2048  # of anchors, worked on at once: their activations are all kept, without gradient checkpointing


@dataclass
class Anchored:
    """
    One anchor.

    Args:
        context (`list[int]`), target (`list[int]`):
            Token ids of the prompt and of the start's answer.
        cut (`int`):
            Where the answer proper begins: after the start's own trace.
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


@dataclass
class Holder:
    """A drift budget at work: its anchors, with what the start says to them, and its controller."""

    budget: DriftBudget
    asking: Asking
    anchors: dict[str, Anchored]
    head: Head | None  # the start's; None where the policy's own is frozen and serves
    seed: int
    controller: Controller = field(init=False)
    penalty: float = 0.0
    kl: float = 0.0  # of the last step's anchors
    working: bool = True  # whether the last step was held
    _thinks: set[str] = field(default_factory=set)  # where the policy opened a trace when it was last looked at

    def __post_init__(self) -> None:
        self.controller = Controller(self.budget)
        self._open, self._closed = self.asking.chat.open_ids(), self.asking.chat.closed_trace_ids()

    def drawn(self, step: int) -> list[str]:
        """The anchors before a step: all in turn, in an order that the seed shuffles anew in each round."""
        ids, size, number = list(self.anchors), self.budget.batch, step // self.budget.every
        places = range(number * size, (number + 1) * size)
        rounds = {place // len(ids) for place in places}
        order = {r: np.random.default_rng((self.seed, r)).permutation(len(ids)) for r in rounds}
        return list(dict.fromkeys(ids[order[place // len(ids)][place % len(ids)]] for place in places))

    def step(self, model: Any, step: int, scaler: Any = None) -> None:
        """
        Add the penalty's gradient, before an optimizer step.

        Args:
            model (`PreTrainedModel` or `PeftModel`):
                The policy, unwrapped: its gradients are averaged with the trainer's by DDP.
            step (`int`):
                Steps taken so far.
            scaler (`torch.amp.GradScaler`, *optional*):
                The trainer's.

        Raises:
            RunError: The drift is no finite number.
        """
        if step % self.budget.every:
            return
        chosen, coefficient = self.drawn(step), self.controller.coefficient
        # DDP averages gradients over processes: a sum over this one's share, times their number, becomes the mean of all
        weight = coefficient * self.asking.ranks.size / len(chosen)

        def pull(mine: list[str]) -> dict[str, float]:
            device = next(model.parameters()).device.type
            autocast = self.asking.autocast
            found: dict[str, float] = {}
            lengths = [len(self.anchors[id].context) + len(self.anchors[id].target) for id in mine]
            for batch in batches(lengths, _BATCH_TOKENS):
                part = [mine[i] for i in batch]
                with (
                    eval_mode(model),
                    torch.set_grad_enabled(coefficient > 0),
                    torch.autocast(device, dtype=autocast, enabled=autocast is not None),
                ):
                    drift = self.drift(model, part)  # (anchors,)
                    loss = weight * drift.sum()
                found |= dict(zip(part, drift.tolist(), strict=True))
                if coefficient > 0 and all(isfinite(found[id]) for id in part):
                    (loss if scaler is None else scaler.scale(loss)).backward()
            return found

        self.working = False
        try:
            found = self.asking.ranks.share(chosen, pull)
        except Exception:
            model.zero_grad()  # half a gradient is no penalty; the trainer's own is not there yet
            raise
        kl = sum(found.values()) / len(found)
        if not isfinite(kl):
            raise RunError("the drift on the anchors is no finite number, and no penalty was added for it")
        self.working, self.kl, self.penalty = True, kl, coefficient * kl
        self.controller.update(kl)

    def drift(self, model: Any, ids: list[str]) -> torch.Tensor:
        """*Answer* drift on these anchors, nats per token, shape (anchors,): the mean over each answer's tokens."""
        kl, opens = self._look(model, ids, [id in self._thinks for id in ids])
        changed = [i for i, id in enumerate(ids) if (opens[i] >= 0.5) != (id in self._thinks)]
        if changed:
            part = [ids[i] for i in changed]
            again, sure = self._look(model, part, [id not in self._thinks for id in part])
            for k, (i, id) in enumerate(zip(changed, part, strict=True)):
                if id in self._thinks or sure[k] >= 0.5:  # the first tag token alone may promise more than it keeps
                    kl[i] = again[k]
                    self._thinks ^= {id}
        return torch.stack(kl)

    def _look(self, model: Any, ids: list[str], after_trace: list[bool]) -> tuple[list[torch.Tensor], list[float]]:
        """The drift of each anchor, read with or without a closed trace, and how likely the policy opens one."""
        frozen = read_head(model)
        module = model.get_output_embeddings()
        head = replace(frozen, weight=module.weight, bias=getattr(module, "bias", None))
        chosen = [self.anchors[id] for id in ids]
        rows = [
            Row(a.context, [*self._closed, *a.target] if closed else a.target)
            for a, closed in zip(chosen, after_trace, strict=True)
        ]
        hidden = target_hidden(model, rows, self.asking.chat.pad_token_id, frozen)  # (all targets, d)
        answers, frees, tags, at = [], [], [], 0
        for anchor, row, closed in zip(chosen, rows, after_trace, strict=True):
            skip = (len(self._closed) if closed else 0) + anchor.cut
            part = hidden[at + skip : at + len(row.target)]
            tags.append(hidden[at : at + (self._same if closed else 1)].detach())
            free = torch.full((len(part),), -1, dtype=torch.long)
            if anchor.free and not closed:
                free[0] = self._open[0]
            answers.append(part)
            frees.append(free)
            at += len(row.target)
        start = torch.cat([anchor.hidden for anchor in chosen]).to(hidden.device)
        theirs = frozen if self.head is None else self.head
        kl = kl_loss(torch.cat(answers), head, (start, theirs), torch.cat(frees).to(hidden.device))
        means = [part.mean() for part in kl.split([len(a) for a in answers])]
        targets = torch.tensor([t for tag in tags for t in self._open[: len(tag)]], device=hidden.device)
        with torch.no_grad():
            logprobs = logprob_tokens(torch.cat(tags), frozen, targets).cpu()
        opens = [float(part.sum().exp()) for part in logprobs.split([len(tag) for tag in tags])]
        return means, [p if anchor.free else 0.0 for p, anchor in zip(opens, chosen, strict=True)]

    @property
    def _same(self) -> int:
        """How many tokens of a closed trace are those that open one: tokenizers may join the last with what follows."""
        pairs = zip(self._open, self._closed, strict=False)
        return max(1, next((i for i, (a, b) in enumerate(pairs) if a != b), len(self._open)))

    # record ----------------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, float]:
        """What stands beside the probes' drift in an audit; nothing where the model was not held."""
        if not self.working:
            return {}
        return {
            "alignguard/budget/coefficient": self.controller.coefficient,
            "alignguard/budget/penalty": self.penalty,
            "alignguard/budget/anchor_kl": self.controller.mean,
            "alignguard/budget/max_kl": self.budget.max_kl,
        }

    def state(self, step: int) -> dict[str, Any]:
        """One line of budget.jsonl, from which a resumed run goes on."""
        kept = {"integral": self.controller.integral, "seen": self.controller.seen, "thinks": sorted(self._thinks)}
        return {
            "step": step,
            "kl": self.kl,
            **{name.rsplit("/", 1)[1]: value for name, value in self.metrics.items()},
            **kept,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a line of budget.jsonl."""
        self.controller = Controller(self.budget, state["anchor_kl"], state["integral"], state["seen"])
        self.kl, self.penalty, self._thinks = state["kl"], state["penalty"], set(state["thinks"])


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
    short = replace(asking, budget=TokenBudget(budget.answer_tokens, 4 * budget.answer_tokens), tick=lambda n: None)
    ids = {id: chat.prompt_ids(list(anchor.turns)) for id, anchor in prompts.items()}
    anchors: dict[str, Anchored] = {}
    with reference.loaded() as frozen:
        answered = ask_training(frozen, ids, short)
        with observing(frozen, autocast=asking.autocast):
            head = holdable_head(frozen)
            for item in training_items(ids, answered, chat):
                said = item.answer
                cut = chat.closing(said.tokens) if said.thinks else 0
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


def start_head(reference: Reference) -> Head | None:
    """
    The start's LM head, for as long as the run lasts; `None` where the policy's own is frozen and serves.

    Args:
        reference ([`Reference`]):
            The frozen start, awake: of one that is kept on the CPU the head alone stays on the device.
    """
    if reference.cache is not None:
        return reference.cache.head
    with reference.loaded() as frozen, observing(frozen):
        return read_head(frozen)


def write_anchors(path: Path, anchors: dict[str, Anchored], prompts: dict[str, Anchor], fingerprint: str) -> None:
    """Keep the anchors, for a run that is resumed where the start cannot be asked any more."""
    tensors = {}
    for id, a in anchors.items():
        tensors[f"hidden/{id}"] = a.hidden.cpu().contiguous()
        tensors[f"context/{id}"], tensors[f"target/{id}"] = torch.tensor(a.context), torch.tensor(a.target)
        tensors[f"cut/{id}"] = torch.tensor([a.cut, int(a.free)])
    beside = path.with_name(path.name + ".part")
    save_file(tensors, beside, metadata={"fingerprint": fingerprint, "prompts": _hash(prompts)})
    beside.replace(path)


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
        raise RunError(f"{path}: the anchors cannot be read ({' '.join(str(error).split())[:160]})") from None
