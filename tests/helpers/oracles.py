"""KL in float64, from the models' own logits."""

from __future__ import annotations

import torch


def oracle(p_logits, q_logits):
    """KL(p || q) in float64, from logits of shape (n, V)."""
    p, q = p_logits.double().log_softmax(-1), q_logits.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def own_logits(model, row):
    """What the model itself says of each target token."""
    with torch.no_grad():
        logits = model(torch.tensor([[*row.context, *row.target]])).logits[0]
    return logits[len(row.context) - 1 : row.length - 1]
