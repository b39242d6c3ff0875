"""Exact KL between two models, per token, from hidden states and LM heads.

The full vocabulary is summed, in tiles with running maxima, so that neither model's (tokens, vocabulary) logits are
ever held. No sampling: single-sample estimates (k1, k3) have a standard deviation a hundred times a small KL.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from ..model.head import Head

# What a sweep may hold at once, in bytes: four float32 tiles of (tokens, vocabulary). Tall tiles are the fastest.
SCRATCH = 64 * 2**20
TILE_TOKENS = 2048


P = ParamSpec("P")
R = TypeVar("R")


def _exactly(function: Callable[P, R]) -> Callable[P, R]:
    """Outside autocast, which would round products and sums to the trainer's half precision."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tensor = next(a for a in args if isinstance(a, torch.Tensor))
        with torch.autocast(tensor.device.type, enabled=False):
            return function(*args, **kwargs)

    return run


def _sums(x: torch.Tensor) -> torch.Tensor:
    """Row sums of (n, v) in blocks: three times as exact as float32 throughout, and far cheaper than float64 throughout."""
    even = x.shape[1] // 128 * 128
    return x[:, :even].unflatten(1, (-1, 128)).sum(2).double().sum(1) + x[:, even:].sum(1)


class _Sum:
    """
    logsumexp of one model's logits, tile by tile, and sums weighted by its softmax.

    Tiles are float32, what is carried from tile to tile is float64: a KL of 1e-3 is the difference of two numbers of 10.
    """

    def __init__(self, n: int, device: torch.device, weighted: int) -> None:
        self.top = torch.full((n,), float("-inf"), device=device)
        self.total = torch.zeros(n, dtype=torch.float64, device=device)
        self.sums = [torch.zeros(n, dtype=torch.float64, device=device) for _ in range(weighted)]

    def add(
        self, z: torch.Tensor, tile_top: torch.Tensor, *values: torch.Tensor, out: torch.Tensor | None = None
    ) -> None:
        top = torch.maximum(self.top, tile_top)
        weight = torch.sub(z, top[:, None], out=out).exp_()  # (n, v)
        shrink = (self.top.double() - top.double()).exp_()
        self.total = self.total * shrink + _sums(weight)
        self.sums = [s * shrink + torch.linalg.vecdot(weight, v) for s, v in zip(self.sums, values, strict=True)]
        self.top = top

    @property
    def lse(self) -> torch.Tensor:
        return self.top.double() + self.total.log()

    def mean(self, index: int) -> torch.Tensor:
        return self.sums[index] / self.total


@_exactly
def kl_tokens(
    hidden_p: torch.Tensor,
    head_p: Head,
    hidden_q: torch.Tensor,
    head_q: Head,
    targets: torch.Tensor,
    everything: bool = False,
    words: int | None = None,
) -> dict[str, torch.Tensor]:
    """
    KL(p || q) at every position, and what else one sweep over the vocabulary gives.

    With d = z_p - z_q the difference of the logits, KL(p || q) = E_p[d] - (lse(z_p) - lse(z_q)).

    Args:
        hidden_p, hidden_q (`torch.Tensor`):
            Final hidden states of the two models, shape (n, d).
        head_p, head_q (`Head`):
            Their LM heads. Rows that q has beyond p are q's to say, and p's weight on them is 0. Rows that p has beyond q, which q
            could not say at any price, are left out: p is what it says of all others.
        targets (`torch.Tensor`):
            Token ids, shape (n,).
        everything (`bool`, *optional*, defaults to `False`):
            Also the other direction and both entropies.
        words (`int`, *optional*):
            How many tokens the tokenizer knows; all of q's rows by default. What q has beyond them and p is padding: KL is that of what
            it says else.

    Returns:
        `dict[str, torch.Tensor]`, each of shape (n,): `kl` (nats), `logprob` of the target under q (nats), `argmax` of q
        (token ids), `top` and `behind`, q's highest logit and how far below it the target's lies (nats), `behind_p`, how far
        below p's, and `lse_p` and `lse_q`, the logsumexp of the logits (float64); with `everything` also `reverse`, KL(q || p) on the rows
        that both have, `entropy_p` and `entropy_q` (nats). A target that a model has no row for is infinitely far below.
    """
    parts = []
    for start in range(0, len(targets), TILE_TOKENS):
        rows = slice(start, start + TILE_TOKENS)
        parts.append(_kl_chunk(hidden_p[rows], head_p, hidden_q[rows], head_q, targets[rows], everything, words))
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _kl_chunk(
    hidden_p: torch.Tensor,
    head_p: Head,
    hidden_q: torch.Tensor,
    head_q: Head,
    targets: torch.Tensor,
    everything: bool,
    words: int | None,
) -> dict[str, torch.Tensor]:
    n, device = len(targets), hidden_q.device
    p, q = (_Sum(n, device, 2 if everything else weighted) for weighted in (1, 0))
    argmax = torch.zeros_like(targets)
    target, target_p = (torch.full((n,), float("-inf"), device=device) for _ in range(2))
    hidden_p, hidden_q = head_p.prepare(hidden_p), head_q.prepare(hidden_q)
    for start, stop in tiles(min(len(head_p), len(head_q)), n, hidden_q):
        z_p, z_q = head_p.logits(hidden_p, start, stop), head_q.logits(hidden_q, start, stop)  # (n, v)
        top_q, tile_arg = z_q.max(1)
        argmax = torch.where(top_q > q.top, tile_arg + start, argmax)
        target = torch.where(*_pick(z_q, targets, start), target)
        target_p = torch.where(*_pick(z_p, targets, start), target_p)
        gap = z_p - z_q
        if everything:
            p.add(z_p, z_p.amax(1), gap, z_p)
            q.add(z_q, top_q, gap, z_q)
        else:
            p.add(z_p, z_p.amax(1), gap, out=z_p)
            q.add(z_q, top_q, out=z_q)
    found = {"reverse": -q.mean(0) - (q.lse - p.lse)} if everything else {}
    said = min(len(head_q), max(len(head_p), len(head_q) if words is None else words))
    lse = q.lse
    # what p cannot say
    for start, stop in (
        *tiles(said, n, hidden_q, len(head_p)),
        *tiles(len(head_q), n, hidden_q, max(said, len(head_p))),
    ):
        z_q = head_q.logits(hidden_q, start, stop)  # (n, v)
        top_q, tile_arg = z_q.max(1)
        argmax = torch.where(top_q > q.top, tile_arg + start, argmax)
        target = torch.where(*_pick(z_q, targets, start), target)
        q.add(z_q, top_q, *(z_q for _ in q.sums))
        if stop == said:
            lse = q.lse
    found |= {"kl": p.mean(0) - (p.lse - lse), "logprob": target - q.lse, "top": q.top, "behind": q.top - target}
    found["behind_p"] = p.top - target_p
    if everything:
        found["entropy_p"], found["entropy_q"] = p.lse - p.mean(1), q.lse - q.mean(1)
    return {key: value.float() for key, value in found.items()} | {"argmax": argmax, "lse_p": p.lse, "lse_q": q.lse}


def tiles(vocabulary: int, tokens: int, hidden: torch.Tensor, begin: int = 0) -> list[tuple[int, int]]:
    """
    Slices of the vocabulary from a row on, as wide as the scratch allows for the logits of so many tokens; and for a float32 copy of the
    head's rows, unless the hidden states, see [`Head.prepare`], are multiplied in half precision.
    """
    width = SCRATCH // (16 * tokens)
    if hidden.dtype.itemsize > 2:
        width = min(width, SCRATCH // (8 * hidden.shape[1]))
    width = max(1, width // 128 * 128, min(width, 128))
    return [(i, min(i + width, vocabulary)) for i in range(begin, vocabulary, width)]


def _pick(z: torch.Tensor, targets: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which targets lie in this tile, and the logit of each (anything, where it does not)."""
    local = targets - start
    here = (local >= 0) & (local < z.shape[1])
    return here, z.gather(1, local.clamp(0, z.shape[1] - 1)[:, None])[:, 0]


def logprob_tokens(hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
    """
    Log-probability of each target token.

    Args:
        hidden (`torch.Tensor`):
            Final hidden states, shape (n, d).
        head (`Head`):
            The LM head.
        targets (`torch.Tensor`):
            Token ids, shape (n,).

    Returns:
        `torch.Tensor` of shape (n,), in nats.
    """
    return sweep_tokens(hidden, head, targets)["logprob"]


def logprob_nodes(hidden: torch.Tensor, head: Head, at: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    The same, where several targets may be predicted from one hidden state.

    Args:
        hidden (`torch.Tensor`):
            Final hidden states, shape (nodes, d).
        head (`Head`):
            The LM head.
        at (`torch.Tensor`), targets (`torch.Tensor`):
            Of each target the node and the token id, shape (n,).

    Returns:
        `torch.Tensor` of shape (n,), in nats, float64.
    """
    lse = sweep_tokens(hidden, head, at.new_zeros(len(hidden)))["lse"]  # (nodes,)
    return head.pick(hidden[at], targets).double() - lse[at]


@_exactly
def sweep_tokens(hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """One model alone: `logprob` of the targets and `lse` (nats, float64), `argmax`, `top` and `behind`, each (n,)."""
    parts = []
    for begin in range(0, len(targets), TILE_TOKENS):
        h, t = head.prepare(hidden[begin : begin + TILE_TOKENS]), targets[begin : begin + TILE_TOKENS]
        q, argmax = _Sum(len(t), h.device, 0), torch.zeros_like(t)
        target = torch.full((len(t),), float("-inf"), device=h.device)
        for start, stop in tiles(len(head), len(t), h):
            z = head.logits(h, start, stop)  # (n, v)
            top, tile_arg = z.max(1)
            argmax = torch.where(top > q.top, tile_arg + start, argmax)
            target = torch.where(*_pick(z, t, start), target)
            q.add(z, top, out=z)
        logprob = (target - q.lse).float()
        parts.append({"logprob": logprob, "lse": q.lse, "argmax": argmax, "top": q.top, "behind": q.top - target})
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
