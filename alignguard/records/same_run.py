"""Whether a resumed run is the run that a record on disk is of: the baseline belongs to the start of training."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable
from pathlib import Path

from ..auditing.prompts import encode_prompt
from ..auditing.result import Result
from ..errors import RunError
from ..model.chat import Chat
from .about import About

# what must be the same when a run is resumed, and how an error names it
_MUST_MATCH = {
    "model_fingerprint": "the model given is not the one this run began with; load the same start and let "
    "resume_from_checkpoint load the checkpoint's weights, or give reference= the start's path",
    "tokenizer_fingerprint": "the tokenizer or its chat template is not the one this run began with",
    "pool_hash": "the probes are not those this run began with; give the same probes=",
    "toxicity": "the toxicity scorer is not the one this run began with",
    "judge": "the judge of your own probes is not the one this run began with",
    "seed": "the seed is not the one this run began with",
    "answer_tokens": "the token budget of answers is not the one this run began with",
    "trace_tokens": "the token budget of traces is not the one this run began with",
    "tags": "the thinking tags are not those this run began with; give the same tags=",
    "template_kwargs": "the chat template is not given what it was given when this run began; give the same template_kwargs=",
}


def check_same_run(path: Path, then: About, now: About) -> None:
    """
    Hold what a run is against what it was when it began.

    Args:
        path (`Path`):
            Of the record, for messages.
        then, now ([`About`]):
            What is asked of whom.

    Raises:
        RunError: They differ in what figures depend on; the message names it, and what would be right.
    """
    for key, message in _MUST_MATCH.items():
        before, after = getattr(then, key), getattr(now, key)
        if before != after:
            raise RunError(f"{path}: {message} ({key}: {before} then, {after} now)")


_NAMES = [
    name for kind in ("month", "day") for form in ("name", "abbr") for name in getattr(calendar, f"{kind}_{form}")
]
_DATE = re.compile("|".join([r"\d+", *(rf"\b{name}\b" for name in _NAMES if name)]), re.IGNORECASE)


def check_prompts(path: Path, baseline: Iterable[Result], chat: Chat) -> None:
    """
    Hold how probes are rendered now against the prompts on record, which are asked as they are; days may pass between.

    Args:
        path (`Path`):
            Of the record, for messages.
        baseline (`Iterable[Result]`):
            On record; of earlier versions without prompts.
        chat ([`Chat`]):
            How the model is spoken to now.

    Raises:
        RunError: They differ in more than numbers and the names of months and days; the message names the probe.
    """
    for result in baseline:
        ids = result.prompt
        if ids is None or list(ids) == (fresh := encode_prompt(result.probe, chat)[0]):
            continue
        then, now = (chat.tokenizer.decode(list(tokens), skip_special_tokens=False) for tokens in (ids, fresh))
        if _DATE.sub("0", then) != _DATE.sub("0", now):
            at = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
            shown = slice(max(0, at - 20), at + 40)
            raise RunError(
                f"{path}: probe {result.probe.id!r} is asked otherwise than when this run began; render it alike (its chat "
                f"template, or the version of transformers): {then[shown]!r} then, {now[shown]!r} now"
            )
