"""How much a model reads at once: a prompt must leave room, and no answer runs past the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from ..errors import ProbeError
from ..model.generation import context_size, reserve
from ..probes.probe import Probe
from .asking import Asking
from .leaning import texts_of
from .prompts import encode_prompt


def longest_prompt(model: Any, asking: Asking) -> int:
    """Tokens that a prompt may have, so that a whole answer still fits after it."""
    return context_size(model) - reserve(asking.chat) - asking.tokens.answer


def known_size(size: int) -> int | None:
    """Tokens that are read at most, as they go on record: nothing where nothing tells."""
    return size if size < sys.maxsize else None


def trace_room(size: int, probes: Iterable[Probe], asking: Asking) -> int:
    """Tokens that a trace may have where so many are read: its budget, or what the longest prompt and a whole answer leave."""
    longest = max((len(encode_prompt(probe, asking.chat)[0]) for probe in probes if probe.judge != "choice"), default=0)
    return min(asking.tokens.trace, size - longest - asking.tokens.answer - reserve(asking.chat))


def check_traces(reader: str, size: int, other: str, most: int, probes: Iterable[Probe], asking: Asking) -> str:
    """
    Whether traces may be as long as their budget, of a model and of what it is held against.

    Args:
        reader (`str`), size (`int`):
            Who is asked, and how many tokens it reads.
        other (`str`), most (`int`):
            The same of what it is held against; nothing, and the same size, where it is held against nothing.
        probes (`Iterable[Probe]`), asking (`Asking`):
            What is asked, and how.

    Returns:
        `str`: how long they may be, where both are cut short alike; else nothing.

    Raises:
        ProbeError: One would be cut off earlier than the other, which would be told as a change.
    """
    asked, budget = list(probes), asking.tokens.trace
    ours, theirs = (trace_room(read, asked, asking) for read in (size, most))
    if ours != theirs:
        (less, read, room), (_, _, longer) = sorted(((reader, size, ours), (other, most, theirs)), key=lambda of: of[2])
        lower = f", or ask both with --trace-tokens {room}" if room > 0 else ""
        raise ProbeError(
            f"{less} reads {read:,} tokens, which leave {max(room, 0):,} for a trace, and the other one has {longer:,}: traces would be cut "
            f"off on one side alone; give it a longer context (vllm serve --max-model-len N){lower}"
        )
    if ours == budget:
        return ""
    return f"traces end after {ours:,} tokens, and not {budget:,}: {reader} reads {size:,}, prompt, trace and answer together"


def check_fits(model: Any, probes: Iterable[Probe], asking: Asking) -> None:
    """
    Hold every probe against the model's context.

    Args:
        model (`PreTrainedModel`):
            The model that will be asked.
        probes (`Iterable[Probe]`):
            What it will be asked.
        asking (`Asking`):
            How.

    Raises:
        ProbeError: A prompt leaves no room for its answer.
    """
    check_room(context_size(model), type(model).__name__, probes, asking)


def check_room(size: int, reader: str, probes: Iterable[Probe], asking: Asking) -> None:
    """The same, of whoever reads so many tokens."""
    chat, tags = asking.chat, reserve(asking.chat)
    for probe in probes:
        texts = [text for text in texts_of(probe) if len(text.encode()) >= asking.tokens.answer]  # no token is empty
        answer = max([asking.tokens.answer, *(len(chat.encode(text)) for text in texts)])
        prompt = len(encode_prompt(probe, chat)[0])
        if prompt + tags + answer > size:
            raise ProbeError(
                f"probe {probe.id!r} is {prompt:,} tokens long; with {answer:,} of answer and {tags:,} of thinking tags it "
                f"does not fit in the {size:,} that {reader} reads; leave it out, or lower TokenBudget(answer=)"
            )
