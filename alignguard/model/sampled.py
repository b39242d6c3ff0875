"""A sampled answer: drawn with noise that depends on its key and on the position alone, never on the run's generators, so
that start and policy share their chance, and the answer is a function of weights and key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import LogitsProcessor

from ..given import is_number, is_whole, need


@dataclass(frozen=True)
class Draw:
    """
    How an answer is drawn.

    Args:
        key (`str`):
            Of its noise.
        temperature (`float`, *optional*, defaults to `1.0`), top_p (`float`, *optional*, defaults to `0.9`):
            By default as the toxicity benchmarks are drawn.
    """

    key: str
    temperature: float = 1.0
    top_p: float = 0.9


@dataclass(frozen=True)
class Sampling:
    """
    Every probe that is spoken to is answered several times, by sampling, and scored by the mean.

    Args:
        temperature (`float`, *optional*, defaults to `0.6`), top_p (`float`, *optional*, defaults to `0.95`):
            As reasoning models are commonly asked.
        samples (`int`, *optional*, defaults to `1`):
            Answers to each probe.

    Raises:
        AlignGuardError: A value out of range.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    samples: int = 1

    def __post_init__(self) -> None:
        hold = partial(need, where="Sampling")
        hold(is_number(self.temperature) and self.temperature > 0, "temperature is above 0", self.temperature)
        hold(is_number(self.top_p) and 0 < self.top_p <= 1, "top_p is a share above 0 and up to 1", self.top_p)
        hold(is_whole(self.samples, 1), "samples is 1 or more", self.samples)

    def draws(self, seed: int, id: str) -> list[Draw]:
        """Of each answer to a probe how it is drawn: of the seed, the probe and its number alone, for whichever model."""
        return [Draw(f"{seed}:{id}:{number}", self.temperature, self.top_p) for number in range(self.samples)]


class Sampled(LogitsProcessor):
    """
    Makes the argmax a sample: Gumbel noise on the log-probabilities of the nucleus, at a temperature (Maddison et al. 2014;
    Holtzman et al. 2020).

    Args:
        draws (`Sequence[Draw | None]`):
            How each row is drawn; `None` for a greedy row.
        said (`Sequence[int]`):
            How many tokens of its answer each row had said at `start`.
        start (`int`):
            Width of the batch when generation began.
    """

    def __init__(self, draws: Sequence[Draw | None], said: Sequence[int], start: int) -> None:
        self.start = start
        self.which = [i for i, draw in enumerate(draws) if draw is not None]
        self.drawn = [(draw, said[i]) for i, draw in enumerate(draws) if draw is not None]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        new = input_ids.shape[1] - self.start
        heat, top = scores.new_tensor([[d.temperature, d.top_p] for d, _ in self.drawn], dtype=torch.float32)[
            ..., None
        ].unbind(1)
        logprobs, order = (scores[self.which].float() / heat).log_softmax(-1).sort(descending=True)  # (sampled, V)
        before = logprobs.exp().cumsum(-1) - logprobs.exp()
        logprobs = logprobs.masked_fill((before >= top) & (top < 1), -torch.inf)  # of all, none is left out by rounding
        size, device = scores.shape[1], scores.device
        noise = torch.stack([_uniform(f"{draw.key}:{said + new}", size, device) for draw, said in self.drawn])
        noisy = logprobs - (-noise.log()).log().gather(1, order)  # noise belongs to the token, not to its rank
        scores = scores.clone()
        scores[self.which] = torch.full_like(noisy, -torch.inf).scatter(1, order, noisy).to(scores.dtype)
        return scores


def _uniform(key: str, size: int, device: torch.device) -> torch.Tensor:
    """Numbers in (0, 1), the same for the same key on the same kind of device, whatever the run's generators do."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(size, generator=generator, device=device).clamp(1e-7, 1 - 1e-7)
