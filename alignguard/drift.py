"""Exact KL between two models, per token, from hidden states and LM heads.

The full vocabulary is summed, in tiles with running maxima, so that neither model's (tokens, vocabulary) logits are
ever held. No sampling: single-sample estimates (k1, k3) have a standard deviation a hundred times a small KL.
"""

from __future__ import annotations

import torch

from .forward import Head

# scratch: a few float32 tiles of this many logits
TILE_TOKENS = 256
TILE_VOCABULARY = 8192


def kl_tokens(
    hidden_p: torch.Tensor, head_p: Head, hidden_q: torch.Tensor, head_q: Head, targets: torch.Tensor
) -> dict[str, torch.Tensor]:
    """
    KL(p || q) at every position, and what else one sweep over the vocabulary gives.

    With d = z_p - z_q the difference of the logits, KL(p || q) = E_p[d] - (lse(z_p) - lse(z_q)).

    Args:
        hidden_p, hidden_q (`torch.Tensor`):
            Final hidden states of the two models, shape (n, d).
        head_p, head_q (`Head`):
            Their LM heads, of one vocabulary size; rows that one has beyond the other are left out.
        targets (`torch.Tensor`):
            Token ids, shape (n,).

    Returns:
        `dict[str, torch.Tensor]`, each of shape (n,): `kl` (nats), `logprob` of the target under q (nats), and
        `argmax` of q (token ids).
    """
    parts = [
        _kl_chunk(hidden_p[i : i + TILE_TOKENS], head_p, hidden_q[i : i + TILE_TOKENS], head_q, t)
        for i, t in zip(range(0, len(targets), TILE_TOKENS), targets.split(TILE_TOKENS), strict=True)
    ]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _kl_chunk(
    hidden_p: torch.Tensor, head_p: Head, hidden_q: torch.Tensor, head_q: Head, targets: torch.Tensor
) -> dict[str, torch.Tensor]:
    n, device = len(targets), hidden_q.device
    vocabulary = min(len(head_p.weight), len(head_q.weight))
    low = torch.full((n,), float("-inf"), device=device)
    zero = torch.zeros(n, device=device)
    max_p, sum_p, mean = low, zero, zero  # mean: sum of exp(z_p - max_p) * (z_p - z_q)
    max_q, sum_q = low, zero
    argmax, target = torch.zeros_like(targets), zero
    for start in range(0, vocabulary, TILE_VOCABULARY):
        stop = min(start + TILE_VOCABULARY, vocabulary)
        z_p, z_q = head_p.logits(hidden_p, start, stop), head_q.logits(hidden_q, start, stop)  # (n, v)
        new_p = torch.maximum(max_p, z_p.amax(1))
        tile_max, tile_arg = z_q.max(1)
        argmax = torch.where(tile_max > max_q, tile_arg + start, argmax)
        new_q = torch.maximum(max_q, tile_max)
        here = (targets >= start) & (targets < stop)
        local = (targets - start).clamp(0, stop - start - 1)
        target = torch.where(here, z_q.gather(1, local[:, None])[:, 0], target)

        weight = (z_p - new_p[:, None]).exp_()  # (n, v)
        shrink = (max_p - new_p).exp_()
        sum_p = sum_p * shrink + weight.sum(1)
        mean = mean * shrink + torch.linalg.vecdot(weight, z_p.sub_(z_q))
        sum_q = sum_q * (max_q - new_q).exp_() + z_q.sub_(new_q[:, None]).exp_().sum(1)
        max_p, max_q = new_p, new_q
    lse_p, lse_q = max_p + sum_p.log(), max_q + sum_q.log()
    return {"kl": mean / sum_p - (lse_p - lse_q), "logprob": target - lse_q, "argmax": argmax}


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
    out = []
    for h, t in zip(hidden.split(TILE_TOKENS), targets.split(TILE_TOKENS), strict=True):
        tiles, target = [], torch.zeros(len(t), device=h.device)
        for start in range(0, len(head.weight), TILE_VOCABULARY):
            z = head.logits(h, start, start + TILE_VOCABULARY)  # (n, v)
            here = (t >= start) & (t < start + z.shape[1])
            target = torch.where(here, z.gather(1, (t - start).clamp(0, z.shape[1] - 1)[:, None])[:, 0], target)
            tiles.append(z.logsumexp(1))
        out.append(target - torch.stack(tiles).logsumexp(0))
    return torch.cat(out)
