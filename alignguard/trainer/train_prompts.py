"""Prompts of the training data: drift on the new task predicts forgetting (RL's Razor, arXiv 2509.04259)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..model.chat import Chat

_LONGEST = 1024  # tokens; longer prompts are left out of the sample


def prompt_of(row: Any, chat: Chat) -> list[int] | None:
    """
    Token ids of the prompt in a row of a training set; `None` where the row does not tell it.

    Known are TRL's forms: `prompt` (text or turns), `messages`, and tokenised rows with a mask or labels.
    """
    if not isinstance(row, dict):
        return None
    for key in ("prompt_ids", "prompt_input_ids"):
        if key in row:
            return [int(t) for t in row[key]]
    if "input_ids" in row:
        learnt = row.get("completion_mask", row.get("assistant_masks"))
        if learnt is None and "labels" in row:
            learnt = [label != -100 for label in row["labels"]]
        start = next((i for i, flag in enumerate(learnt) if flag), 0) if learnt is not None else 0
        return [int(t) for t in row["input_ids"][:start]] or None
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt:
        return chat.encode(prompt, special=True)
    turns = prompt or row.get("messages")
    if isinstance(turns, (list, tuple)) and turns and all(isinstance(t, dict) for t in turns):
        last = max((i for i, t in enumerate(turns) if t.get("role") == "user"), default=-1)
        return (
            chat.prompt_ids([{"role": t["role"], "content": str(t["content"])} for t in turns[: last + 1]])
            if last >= 0
            else None
        )
    return None


def sample_prompts(dataset: Any, chat: Chat, size: int, seed: int, longest: int = _LONGEST) -> dict[str, list[int]]:
    """
    A seeded sample of training prompts.

    Args:
        dataset (`Dataset`):
            With `len` and indices; a stream is left alone.
        chat (`Chat`):
            How the model is spoken to.
        size (`int`):
            Prompts.
        seed (`int`):
            Of the sample.
        longest (`int`, *optional*, defaults to `1024`):
            Tokens of the longest prompt that may be taken; never more than the default.

    Returns:
        `dict[str, list[int]]`: token ids by a name of ours; empty where prompts cannot be told.
    """
    if size < 1 or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__") or len(dataset) == 0:
        return {}
    found: dict[str, list[int]] = {}
    for index in np.random.default_rng(seed).permutation(len(dataset))[: 4 * size]:
        ids = prompt_of(dataset[int(index)], chat)
        if ids and len(ids) <= min(longest, _LONGEST) and len(found) < size:
            found[f"train-{int(index)}"] = ids
    return found
