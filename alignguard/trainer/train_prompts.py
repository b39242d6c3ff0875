"""Prompts of the training data: drift on the new task predicts forgetting (RL's Razor, arXiv 2509.04259)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ProbeError, one_line
from ..model.chat import Chat

_LONGEST = 1024  # tokens; longer prompts are left out of the sample
_FORMATS = (None, "python", "numpy", "torch", "arrow", "pandas")  # that say the same each time
_UNTOLD = "they do not tell where a prompt ends, as a text alone does not: SFT takes prompt and completion, or messages"
MORE_THAN_TEXT = ("images", "image", "videos", "video", "audios", "audio", "pixel_values")


def is_plain_table(dataset: Any) -> bool:
    """
    Whether it is a table of `datasets` that runs nobody's code where a row is read: a class or a transform may have a generator of
    its own, and would give the training other rows after that.
    """
    return type(dataset).__module__ == "datasets.arrow_dataset" and dataset.format["type"] in _FORMATS


def prompt_of(row: Any, chat: Chat) -> list[int]:
    """
    Token ids of the prompt in a row of a training set.

    Known are TRL's forms: tokenised rows with a mask or labels, `prompt` (text or turns), and `messages`, of which all before the
    last that is the assistant's is the prompt, also where all of it is learnt. Turns may call tools, say nothing, or be in parts;
    they are rendered with the row's `tools` and `chat_template_kwargs`, as TRL does.

    Raises:
        ProbeError: It does not tell where a prompt ends, as a text alone does not; or it cannot be asked as it is: it holds more
            than text, or the chat template leaves something out.
    """
    if not isinstance(row, dict):
        raise ProbeError(_UNTOLD)
    if type(row) is not dict:
        raise ProbeError(f"they are of a class of their own ({type(row).__name__}), and to read them might change them")
    if any(row.get(key) is not None and not (isinstance(row[key], list) and not row[key]) for key in MORE_THAN_TEXT):
        raise ProbeError("they hold more than text")
    for key in ("prompt_ids", "prompt_input_ids"):
        if key in row and len(row[key]):
            return [int(t) for t in row[key]]
    if "input_ids" in row:
        learnt = row.get("completion_mask", row.get("assistant_masks"))
        if learnt is None and "labels" in row:
            learnt = [label != -100 for label in row["labels"]]
        start = next((i for i, flag in enumerate(learnt) if flag), 0) if learnt is not None else 0
        if start:
            return [int(t) for t in row["input_ids"][:start]]
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt:
        return chat.encode(prompt, special=True)
    turns = prompt or row.get("messages")
    if not isinstance(turns, (list, tuple)) or not all(isinstance(turn, dict) and turn.get("role") for turn in turns):
        raise ProbeError(_UNTOLD)
    turns = _without_nulls(turns)
    while turns and turns[-1]["role"] == "assistant":  # what is learnt
        turns.pop()
    if not turns:
        raise ProbeError(_UNTOLD)
    parts = [part for turn in turns if isinstance(turn.get("content"), list) for part in turn["content"]]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise ProbeError("they hold more than text")
    tools = row.get("tools")
    tools = _without_nulls(json.loads(tools) if isinstance(tools, str) else tools)
    return chat.prompt_ids(turns, **({"tools": tools} if tools else {}), **(row.get("chat_template_kwargs") or {}))


def _without_nulls(value: Any) -> Any:
    """Tables write null for every field that another row has."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def sample_prompts(
    dataset: Any,
    chat: Chat,
    size: int,
    seed: int,
    longest: int = _LONGEST,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, list[int]]:
    """
    A seeded sample of training prompts.

    Args:
        dataset (`Dataset`):
            A table of `datasets`, or a list or tuple of dicts; all else is left alone, since to read it might change it.
        chat (`Chat`):
            How the model is spoken to.
        size (`int`):
            Prompts.
        seed (`int`):
            Of the sample.
        longest (`int`, *optional*, defaults to `1024`):
            Tokens of the longest prompt that may be taken; never more than the default.
        tell (`Callable[[str], None]`, *optional*):
            Is told, once, how many prompts were left out and why, or why there are none.

    Returns:
        `dict[str, list[int]]`: token ids by a name of ours; empty where prompts cannot be told.
    """
    if size < 1 or dataset is None:
        return {}
    if not is_plain_table(dataset) and type(dataset) not in (list, tuple):
        tell(
            f"AlignGuard: drift on training prompts is not measured: the training set ({type(dataset).__name__}) is a stream, a class or "
            "has a transform of its own, and to read it might change what training is given"
        )
        return {}
    found: dict[str, list[int]] = {}
    left: Counter[str] = Counter()
    longest = min(longest, _LONGEST)
    for index in np.random.default_rng(seed).permutation(len(dataset))[: 4 * size]:
        try:
            ids = prompt_of(dataset[int(index)], chat)
        except Exception as error:  # a statistic ends no run
            line = one_line(error).partition(";")[0]
            left[
                line if isinstance(error, ProbeError) else f"they cannot be read ({type(error).__name__}: {line})"
            ] += 1
            continue
        if ids and len(ids) <= longest:
            found[f"train-{int(index)}"] = ids
            if len(found) == size:
                break
        elif ids:
            left[f"they are longer than {longest:,} tokens"] += 1
    if left:
        why = "; ".join(f"{count} since {reason}" for reason, count in left.most_common(3))
        tell(
            f"AlignGuard: drift on training prompts is measured on {len(found)}; {left.total()} were left out: {why}"
            + ("; ..." if len(left) > 3 else "")
        )
    return found
