"""How much a model reads at once: a prompt must leave room, and no answer runs past the end."""

from __future__ import annotations

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
