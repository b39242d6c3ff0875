"""Drift of a model against its start: as the product tells it, and as both models' own logits have it."""

from __future__ import annotations

import torch
from oracles import oracle

from alignguard import Chat, TokenBudget
from alignguard.auditing.asking import Asking
from alignguard.auditing.drifts import Item, measure_drift
from alignguard.model.chat import Answer
from alignguard.model.observe import observing

CONTEXT, ANSWERS = list(range(10, 20)), (list(range(30, 44)), list(range(60, 71)))


def asking_of(model, tokenizer):
    return Asking(Chat.of(model, tokenizer), TokenBudget(answer=8, trace=16))


def items():
    """Answers of fixed tokens, of which everybody may be asked."""
    return [
        Item(str(i), CONTEXT, Answer(tuple(tokens), "", "said", False, True, True), False)
        for i, tokens in enumerate(ANSWERS)
    ]


def told(policy, reference, asking, what=None):
    """Mean raw drift, as an audit measures it."""
    with reference.awake(torch.device("cpu")), observing(policy, *reference.models, autocast=asking.autocast):
        found = measure_drift(policy, reference, what or items(), asking)
    return torch.tensor([kl for drift in found.values() for kl in drift.raw]).mean().item()


def truth(policy, start):
    """The same from the own logits of the policy and of a copy of its start."""
    found = []
    for item in items():
        n, tokens = len(item.context), torch.tensor([[*item.context, *item.answer.tokens]])
        with observing(policy, start):
            p, q = (model(input_ids=tokens).logits[0, -tokens.shape[1] :] for model in (start, policy))
        found.append(oracle(p[n - 1 : -1], q[n - 1 : -1]))
    return torch.cat(found).mean().item()


def train(model, steps=4, rate=1e-2, optimizer=None):
    """A few steps on what the answers are, as a trainer takes them."""
    chosen = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    for _ in range(steps):
        for tokens in ANSWERS:
            ids = torch.tensor([[*CONTEXT, *reversed(tokens)]])
            model(input_ids=ids, labels=ids).loss.backward()
        chosen.step()
        chosen.zero_grad()
    model.eval()
