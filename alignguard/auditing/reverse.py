"""Reverse drift: KL(policy || reference) on the policy's own answers, those that nobody would have got from its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..drift.kl import kl_tokens
from ..drift.reference import Reference
from ..model.forward import Row
from ..model.head import Head, read_head
from .asking import Asking
from .drifts import Item, said_from
from .reading import Told, hear, read


def measure_reverse(
    policy: Any, reference: Reference, items: Sequence[Item], asking: Asking, told: Told | None = None
) -> dict[str, float]:
    """
    KL(policy || reference) on the policy's own answers, mean over the tokens after its trace and wrapper, in nats.

    The policy sees its own trace and wrapper; the reference the prompt alone, unless the prompt itself opens a trace.

    Args:
        policy (`PreTrainedModel`):
            The model being trained.
        reference (`Reference`):
            The frozen start; a cache cannot be asked this.
        items (`Sequence[Item]`):
            The *policy's* answers.
        asking (`Asking`):
            How probes are asked.
        told (`Told`, *optional*):
            What the policy has told in this audit.
    """
    chat = asking.chat
    ours: dict[str, Row] = {}
    theirs: dict[str, Row] = {}
    for item in items:
        tokens = item.answer.tokens
        cut = said_from(item, chat)
        if cut == len(tokens):
            continue
        ours[item.id] = Row([*item.context, *tokens[:cut]], tokens[cut:])
        lead = [] if item.inside else chat.lead_ids()
        theirs[item.id] = ours[item.id] if item.inside else Row([*item.context, *lead], tokens[cut:])
    told = told or Told()
    results: dict[str, float] = {}
    head, asked = read_head(policy), list(ours)

    def measure(ids: Sequence[str], hidden: torch.Tensor, said: Mapping[bytes, torch.Tensor], head_r: Head) -> None:
        hidden_r = torch.cat([said[theirs[id].key] for id in ids]).to(hidden.device)
        targets = torch.tensor([t for id in ids for t in ours[id].target], device=hidden.device)
        kl = kl_tokens(hidden, head, hidden_r, head_r, targets)["kl"]
        means = torch.stack([chunk.mean() for chunk in kl.split([len(ours[id].target) for id in ids])]).tolist()
        results.update(zip(ids, means, strict=True))

    for portion, said, head_r in hear(reference, list(theirs.values()), asking, keep=False):
        same = [id for id in asked[portion] if ours[id].key in told.hidden]  # it was read with the start's own answers
        if same:
            measure(same, torch.cat([told.hidden[ours[id].key] for id in same]), said, head_r)
        ids = [id for id in asked[portion] if id not in results]
        for batch, hidden in read(policy, head, [([ours[id]], ()) for id in ids], asking, Told()):
            measure([ids[i] for i in batch], hidden, said, head_r)
    return results
