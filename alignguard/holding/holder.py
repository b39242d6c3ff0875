"""Holding a model within its drift budget, under any trainer.

Before an optimizer step a few *anchors* are looked at: prompts with the frozen start's own answers. The penalty is
coefficient x KL(reference || policy) on them, exact and over the full vocabulary; its gradient is there when the trainer
adds its own, and both are clipped together. Learning to think stays free: where the policy opens a trace, its answer is read
after an empty, closed one; where it does not, how likely it would is left out of the KL (see `drift/gradient.py`). So is what
it has learnt to put around its answers, as the last audit saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np
import torch

from ..auditing.asking import Asking
from ..auditing.figures import named
from ..auditing.manner import Manner
from ..distributed import compute_device
from ..drift.gradient import kl_loss
from ..drift.kl import logprob_tokens
from ..errors import RunError
from ..model.forms import form_in
from ..model.forward import Row, batches
from ..model.head import Head, target_hidden
from ..model.observe import eval_mode, restored_rng, unmarked
from .anchored import Anchored, holdable_head
from .budget import Controller, DriftBudget

_MISSED = 8  # looks in a row that failed: nothing is held any more
_BATCH_TOKENS = 2048  # of anchors, worked on at once: their activations are all kept, without gradient checkpointing


@dataclass
class Holder:
    """A drift budget at work: its anchors, with what the start says to them, and its controller."""

    budget: DriftBudget
    asking: Asking
    anchors: dict[str, Anchored]
    head: Head  # the start's
    seed: int
    controller: Controller = field(init=False)
    penalty: float = 0.0
    kl: float = 0.0  # of the last step's anchors
    manner: Manner = field(init=False)  # how the policy thinks and wraps its answers
    _rates: list[tuple[dict[str, Any], Any]] = field(default_factory=list)  # learning rates, while they are lowered
    _missed: int = 0  # looks in a row that failed
    _moved: bool = False  # whether a step was taken since the last look
    _rate: float = 0.0  # of the last step that was taken, the factor in it
    _thinks: set[str] = field(default_factory=set)  # where the policy opened a trace when it was last looked at

    def __post_init__(self) -> None:
        self.controller = Controller(self.budget)
        self.take(Manner(self.asking.chat.form))

    def take(self, manner: Manner) -> None:
        """Read anchors after what the policy, as an audit has seen it, puts before an answer."""
        chat, self.manner = self.asking.chat, manner
        self._open = chat.open_ids(manner.form)
        before = {thinks: manner.before(chat, thinks) for thinks in (False, True)}
        # and how many of their targets are no words of the start
        self._rows: dict[tuple[str, bool], tuple[Row, int]] = {}
        for id, anchor in self.anchors.items():
            own, cut = chat.decode(anchor.target[: anchor.cut]), anchor.cut
            for thinks, put in before.items():
                if not anchor.free or (manner.writes(own) and not thinks):  # its own trace or wrapper stands there
                    self._rows[id, thinks] = Row(anchor.context, anchor.target), cut
                else:
                    stop = max(cut + 1, manner.end(chat, anchor.target, own))
                    self._rows[id, thinks] = Row(anchor.context, [*put, *anchor.target[cut:stop]]), len(put)

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
            device = compute_device(model).type
            autocast = self.asking.autocast
            found: dict[str, float] = {}
            lengths = [len(self.anchors[id].context) + len(self.anchors[id].target) for id in mine]
            # the backward pass, too: layers may go through their forward again there
            with restored_rng(), unmarked(model), eval_mode(model, checkpoints=True):
                for batch in batches(lengths, _BATCH_TOKENS):
                    part = [mine[i] for i in batch]
                    with (
                        torch.set_grad_enabled(coefficient > 0),
                        torch.autocast(device, dtype=autocast, enabled=autocast is not None),
                    ):
                        drift = self.drift(model, part)  # (anchors,)
                        loss = weight * drift.sum()
                    found |= dict(zip(part, drift.tolist(), strict=True))
                    if coefficient > 0 and all(isfinite(found[id]) for id in part):
                        (loss if scaler is None else scaler.scale(loss)).backward()
            return found

        self._missed += 1
        try:
            found = self.asking.ranks.share(chosen, pull)
        except Exception:
            model.zero_grad()  # half a gradient is no penalty; the trainer's own is not there yet
            raise
        kl = sum(found.values()) / len(found)
        if not isfinite(kl):
            model.zero_grad()  # of those anchors whose drift is one
            raise RunError("the drift on the anchors is no finite number, and no penalty was added for it")
        self.kl, self.penalty, self._missed = kl, coefficient * kl, 0
        self.controller.update(kl, self._moved)
        self._moved = False

    def slow(self, optimizer: Any) -> None:
        """
        For one optimizer step lower its learning rates by the controller's factor; [`~Holder.let_go`] puts them back. Where anchors could
        not be looked at yet, or not any more, nothing is held, and nothing would let the factor grow: the step is the trainer's own.
        """
        self.let_go()  # of a step that was never taken
        # one that finds its rate itself has none: Adafactor's relative steps
        self._rates = [(g, g["lr"]) for g in getattr(optimizer, "param_groups", ()) if g.get("lr") is not None]
        rate = max((float(rate) for _, rate in self._rates), default=0.0)
        if rate and self.controller.seen and self._missed < _MISSED:
            pace = self.controller.bounded(rate, self._rate)
            for group, own in self._rates if pace < 1.0 else ():
                group["lr"] = own * pace

    def let_go(self, optimizer: Any = None) -> None:
        """
        Put the learning rates back, before a scheduler looks at them: there are schedules that go on from what they find. With an optimizer
        a step was due, and was taken if its rate is not zero and a gradient scaler has not left it out.
        """
        if optimizer is not None and not getattr(optimizer, "step_was_skipped", False):
            rate = max((float(group["lr"]) for group, _ in self._rates), default=0.0)
            self._moved, self._rate = self._moved or rate > 0 or not self._rates, rate or self._rate
        for group, own in self._rates:
            group["lr"] = own
        self._rates = []

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
        frozen = holdable_head(model)
        module = model.get_output_embeddings()
        head = replace(frozen, weight=module.weight, bias=getattr(module, "bias", None))
        chosen = [self.anchors[id] for id in ids]
        rows, skips = zip(*(self._rows[key] for key in zip(ids, after_trace, strict=True)), strict=True)
        hidden = target_hidden(model, rows, self.asking.chat.pad_token_id, frozen)  # (all targets, d)
        answers, frees, tags, at = [], [], [], 0
        for anchor, row, skip in zip(chosen, rows, skips, strict=True):
            part = hidden[at + skip : at + len(row.target)]
            tags.append(hidden[at : at + self._common(row.target[:skip])].detach())
            free = torch.full((len(part),), -1, dtype=torch.long)
            if anchor.free and not skip:
                free[0] = self._open[0]
            answers.append(part)
            frees.append(free)
            at += len(row.target)
        kept = [anchor.hidden[: len(part)] for anchor, part in zip(chosen, answers, strict=True)]
        start = torch.cat(kept).to(hidden.device)
        free, words = torch.cat(frees).to(hidden.device), len(self.asking.chat.tokenizer)
        kl = kl_loss(torch.cat(answers), head, (start, self.head), free, words)
        means = [part.mean() for part in kl.split([len(a) for a in answers])]
        targets = torch.tensor([t for tag in tags for t in self._open[: len(tag)]], device=hidden.device)
        with torch.no_grad():
            logprobs = logprob_tokens(torch.cat(tags), frozen, targets).cpu()
        opens = [float(part.sum().exp()) for part in logprobs.split([len(tag) for tag in tags])]
        return means, [p if anchor.free else 0.0 for p, anchor in zip(opens, chosen, strict=True)]

    def _common(self, put: Sequence[int]) -> int:
        """How many tokens of what is put before open a trace, at least one: tokenizers may join the last with what follows."""
        pairs = zip(self._open, put, strict=False)
        return max(1, next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self._open), len(put))))

    # record ----------------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, float]:
        """What stands beside the probes' drift in an audit; nothing where the model was not held."""
        if self._missed:
            return {}
        return named(
            {
                "budget/coefficient": self.controller.coefficient,
                "budget/penalty": self.penalty,
                "budget/anchor_kl": self.controller.mean,
                "budget/pace": self.controller.pace,
                "budget/max_kl": self.budget.max_kl,
            }
        )

    def state(self, step: int) -> dict[str, Any]:
        """One line of budget.jsonl, from which a resumed run goes on."""
        control = self.controller
        return {
            "step": step,
            "kl": self.kl,
            **{name.rsplit("/", 1)[1]: value for name, value in self.metrics.items()},
            "integral": control.integral,
            "seen": control.seen,
            "starting": control.starting,
            "floor": control.floor,
            "thinks": sorted(self._thinks),
            "manner": [self.manner.form.open, self.manner.wrapper],
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a line of budget.jsonl."""
        self.controller = Controller(
            self.budget,
            state["anchor_kl"],
            state["integral"],
            state["seen"],
            state.get("pace", 1.0),
            state.get("starting", False),
            state.get("floor", 0.0),
        )
        self.kl, self.penalty, self._thinks = state["kl"], state["penalty"], set(state["thinks"])
        self._moved = True  # the step that followed it
        if "manner" in state:
            own, (opened, wrapper) = self.asking.chat.form, state["manner"]
            self.take(Manner(form_in(opened, own) or own, wrapper))
