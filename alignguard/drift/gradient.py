"""The differentiable form of the drift: KL(reference || policy) per token, whose gradient never needs the full logits.

For a policy with logits z_q and a reference with softmax p, the gradient of KL(p || q) by z_q is q - p. Both passes go
through the vocabulary in the tiles of `kl.py`; the backward pass computes them anew.

A token may be left free at a position (the one that opens a trace): both models are then conditioned on not saying it,

    KL(p' || q') = (KL - p_t (log p_t - log q_t)) / (1 - p_t) - log(1 - p_t) + log(1 - q_t)

whose gradient is q' - p', and nothing at the free token: how likely it is costs nothing.
"""

from __future__ import annotations

from typing import Any

import torch

from ..model.head import Head
from .kl import kl_tokens, tiles

_NEVER = -1e4  # nats
_LEAST_REST = 1e-6  # of probability that a free token leaves to all others


class _ForwardKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        head: Head,
        teacher: tuple[torch.Tensor, Head],
        free: torch.Tensor,
    ) -> torch.Tensor:
        ctx.head, ctx.teacher = head, teacher
        found = kl_tokens(teacher[0], teacher[1], hidden, head, free.clamp(min=0))
        kl, lse_p, lse_q, some = found["kl"].double(), found["lse_p"], found["lse_q"], (free >= 0).nonzero()[:, 0]
        if len(some):
            known = free[some] < len(teacher[1])  # a row that the start lacks it never says
            log_p = _logit(teacher[0][some], teacher[1], free[some].where(known, 0)) - lse_p[some]
            log_p = log_p.masked_fill(~known, _NEVER)
            log_p, log_q = (x.clamp(_NEVER, -_LEAST_REST) for x in (log_p, found["logprob"][some].double()))
            rest_p, rest_q = (-log_p.expm1()).log(), (-log_q.expm1()).log()
            without = (kl[some] - log_p.exp() * (log_p - log_q)) / -log_p.expm1()
            kl[some] = without - rest_p + rest_q
            lse_p[some] += rest_p  # of all other tokens
            lse_q[some] += rest_q
        ctx.save_for_backward(hidden, weight, free, lse_q, lse_p)
        return kl.float()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        hidden, weight, free, lse_q, lse_p = ctx.saved_tensors
        grad = grads[0].float()[:, None]  # (n, 1)
        head, (hidden_p, head_p) = ctx.head, ctx.teacher
        want_hidden, want_weight, want_bias = ctx.needs_input_grad[:3]
        with torch.autocast(hidden.device.type, enabled=False):
            prepared, prepared_p = head.prepare(hidden), head_p.prepare(hidden_p)
            lse_q, lse_p = lse_q.float()[:, None], lse_p.float()[:, None]
            grad_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device) if want_hidden else None
            grad_weight = torch.zeros_like(weight) if want_weight else None
            grad_bias = torch.zeros(len(weight), device=weight.device) if want_bias else None
            common, n = min(len(head), len(head_p)), 2 * len(hidden)
            for start, stop in (*tiles(common, n, prepared), *tiles(len(head), n, prepared, common)):
                z = head.logits(prepared, start, stop)  # (n, v)
                slope = head.slope(z)
                change = (z - lse_q).exp_()
                if start < common:
                    change -= (head_p.logits(prepared_p, start, stop) - lse_p).exp_()
                change *= grad
                place = (free - start).clamp(0, change.shape[1] - 1)[:, None]
                here = ((free >= start) & (free < stop))[:, None]
                change.scatter_(1, place, change.gather(1, place).masked_fill(here, 0.0))
                if slope is not None:
                    change *= slope
                if grad_hidden is not None:
                    grad_hidden += _product(change, weight[start:stop], prepared.dtype)
                if grad_weight is not None:
                    grad_weight[start:stop] = (change.T @ hidden.float()).to(weight.dtype)
                if grad_bias is not None:
                    grad_bias[start:stop] = change.sum(0)
        back = None if grad_hidden is None else grad_hidden.to(hidden.dtype)
        return back, grad_weight, grad_bias, None, None, None


def _product(change: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Change (n, v) times the head's rows (v, d), summed in float32, whatever the products are taken in."""
    if dtype == torch.float32:
        return change @ weight.float()
    return torch.mm(change.to(dtype), weight.to(dtype), out_dtype=torch.float32)


def _logit(hidden: torch.Tensor, head: Head, tokens: torch.Tensor) -> torch.Tensor:
    """Each row's logit of one token, shape (n,)."""
    bias = None if head.bias is None else head.bias[tokens]
    part = Head(None if head.weight is None else head.weight[tokens], bias, head.scale, head.softcap)
    return part.logits(head.prepare(hidden)).diagonal()


def kl_loss(
    hidden: torch.Tensor,
    head: Head,
    teacher: tuple[torch.Tensor, Head],
    free: torch.Tensor | None = None,
    words: int | None = None,
) -> torch.Tensor:
    """
    KL(reference || policy) at every position, differentiable by the policy's hidden states and head.

    Args:
        hidden (`torch.Tensor`):
            The policy's final hidden states, shape (n, d), with their graph.
        head (`Head`):
            The policy's; gradients flow to its weight and bias where these ask for them.
        teacher (`tuple[torch.Tensor, Head]`):
            The reference's hidden states (n, d) and head.
        free (`torch.Tensor`, *optional*):
            At each position a token whose likelihood costs nothing, -1 for none, shape (n,).
        words (`int`, *optional*):
            How many tokens the tokenizer knows, see [`kl_tokens`].

    Returns:
        `torch.Tensor` of shape (n,), nats.

    Raises:
        ValueError: The policy's logits do not come from an LM head.
    """
    if head.weight is None:
        raise ValueError("kl_loss needs the LM head; this model's logits come by the plain path")
    if free is None:
        free = torch.full((len(hidden),), -1, dtype=torch.long, device=hidden.device)
    said = len(head) if words is None else max(words, len(teacher[1]))
    weight, bias = head.weight, head.bias
    if said < len(head):
        weight, bias = weight[:said], None if bias is None else bias[:said]
    frozen = Head(weight.detach(), None if bias is None else bias.detach(), head.scale, head.softcap)
    return _ForwardKL.apply(hidden, weight, bias, frozen, teacher, free)
