"""A sampled answer: drawn with noise that depends on its key and on the position alone, never on the run's generators, so
that start and policy share their chance, and the answer is a function of weights and key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

_TOP_P = 0.9


class Sampled(LogitsProcessor):
    """
    Makes the argmax a sample: Gumbel noise on the log-probabilities of the nucleus (Maddison et al. 2014; Holtzman et al.
    2020), at temperature 1 and `top_p` 0.9, as the toxicity benchmarks are drawn.

    Args:
        keys (`Sequence[str]`):
            Of each row's noise; an empty one for a greedy row.
        said (`Sequence[int]`):
            How many tokens of its answer each row had said at `start`.
        start (`int`):
            Width of the batch when generation began.
    """

    def __init__(self, keys: Sequence[str], said: Sequence[int], start: int) -> None:
        self.keys, self.said, self.start = keys, said, start
        self.which = [i for i, key in enumerate(keys) if key]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        new = input_ids.shape[1] - self.start
        logprobs, order = scores[self.which].float().log_softmax(-1).sort(descending=True)  # (sampled, V)
        before = logprobs.exp().cumsum(-1) - logprobs.exp()
        logprobs = logprobs.masked_fill(before >= _TOP_P, -torch.inf)
        noise = torch.stack(
            [_uniform(f"{self.keys[i]}:{self.said[i] + new}", scores.shape[1], scores.device) for i in self.which]
        )
        noisy = logprobs - (-noise.log()).log().gather(1, order)  # noise belongs to the token, not to its rank
        scores = scores.clone()
        scores[self.which] = torch.full_like(noisy, -torch.inf).scatter(1, order, noisy).to(scores.dtype)
        return scores


def _uniform(key: str, size: int, device: torch.device) -> torch.Tensor:
    """Numbers in (0, 1), the same for the same key on the same kind of device, whatever the run's generators do."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(size, generator=generator, device=device).clamp(1e-7, 1 - 1e-7)
