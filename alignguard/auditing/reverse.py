"""Reverse drift: KL(policy || reference) on the policy's own answers, those that nobody would have got from its start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..drift.kl import kl_tokens
from ..drift.reference import Reference
from ..model.forward import Row, batches
from ..model.head import batch_limit, read_head, target_hidden
from .asking import Asking
from .drifts import Item, said_from


def measure_reverse(policy: Any, reference: Reference, items: Sequence[Item], asking: Asking) -> dict[str, float]:
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
    ids = list(ours)
    results: dict[str, float] = {}
    head = read_head(policy)
    for batch in batches([ours[id].length for id in ids], batch_limit(asking.tokens.batch_tokens, head)):
        part = [ids[i] for i in batch]
        with reference.loaded() as frozen:
            head_r = read_head(frozen)
            hidden_r = reference.said.read(frozen, head_r, [theirs[id] for id in part], chat.pad_token_id, keep=False)
        hidden = target_hidden(policy, [ours[id] for id in part], chat.pad_token_id, head)
        targets = torch.tensor([t for id in part for t in ours[id].target], device=hidden.device)
        kl = kl_tokens(hidden, head, hidden_r, head_r, targets)["kl"]
        means = [chunk.mean().item() for chunk in kl.split([len(ours[id].target) for id in part])]
        results |= dict(zip(part, means, strict=True))
    return results
