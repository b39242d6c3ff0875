"""Whether a model's rows can be asked together, and the plain way in which it is asked to go on.

Padding on the left is masked, and rows of a batch have nothing to do with one another: so it is with attention, and with most
recurrent models. Of some it is not, and their answers would hang on who else is asked.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from ..distributed import compute_device
from .chat import Chat
from .observe import base_of

_ROUNDING = 16  # rounding errors of the largest logit, by which two rows of one batch may differ
_BATCHED = 0.1  # share of the largest logit, by which two batches may
_batched: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()  # recurrent models that were looked at


@contextmanager
def plain_defaults(model: Any, ends: bool = True) -> Iterator[None]:
    """What a checkpoint's own generation config asks for (penalties, stop strings, ...) is no part of a greedy answer."""
    base = base_of(model)
    own = base.generation_config
    eos = own.eos_token_id if ends else None
    base.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=own.pad_token_id)
    try:
        yield
    finally:
        base.generation_config = own


def can_batch(model: Any, chat: Chat) -> bool:
    """
    Whether a row goes on as it does alone where others stand beside it and padding before it. Some recurrent models run through their
    padding, mask or none (RWKV, RecurrentGemma), or mix up the states of a batch. A model is looked at once: two rows that differ in
    nothing but their padding, and the same row alone.
    """
    stateful = getattr(base_of(model), "_is_stateful", False)  # transformers' word for recurrent models
    if not stateful:
        return True
    if model not in _batched:
        words = chat.encode("The quick brown fox jumps")
        mask = [0] * (len(words) - 2) + [1, 1]  # the shorter a row, the more of it stands near its padding
        padded = [words, [chat.pad_token_id] * (len(words) - 2) + words[-2:]]
        together, alone = _two_steps(model, padded, [mask, mask], chat), _two_steps(model, [words[-2:]], [[1, 1]], chat)
        largest = alone[0].abs().max()
        same = (together[0][0] - together[0][1]).abs().max() <= _ROUNDING * torch.finfo(_dtype(model)).eps * largest
        steps = 2 if together[0][1].argmax() == alone[0][0].argmax() else 1
        near = [(t[1] - a[0]).abs().max() <= _BATCHED * largest for t, a in zip(together[:steps], alone, strict=False)]
        _batched[model] = bool(same) and all(map(bool, near))
    return _batched[model]


def _two_steps(model: Any, rows: list[list[int]], mask: list[list[int]], chat: Chat) -> tuple[torch.Tensor, ...]:
    """Logits of two steps on from some rows, each of shape (rows, vocabulary)."""
    device, pad = compute_device(model), chat.pad_token_id
    ids, seen = torch.tensor(rows, device=device), torch.tensor(mask, device=device)  # (rows, tokens)
    config = GenerationConfig(
        max_new_tokens=2, do_sample=False, pad_token_id=pad, output_logits=True, return_dict_in_generate=True
    )
    with plain_defaults(model, ends=False):
        return model.generate(input_ids=ids, attention_mask=seen, generation_config=config).logits


def _dtype(model: Any) -> torch.dtype:
    """In which it computes."""
    kind = compute_device(model).type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
