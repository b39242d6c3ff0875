"""Whether a resumed run is the run that a record on disk is of: the baseline belongs to the start of training."""

from __future__ import annotations

from pathlib import Path

from ..errors import RunError
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
