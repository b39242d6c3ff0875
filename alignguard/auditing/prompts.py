"""What is asked of a model, as chat turns and as tokens."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ProbeError
from ..model.chat import Chat
from ..probes.probe import Probe
from .manner import Manner


def render_choice(probe: Probe, order: Sequence[int]) -> tuple[dict[str, str], ...]:
    """
    The turns of a choice probe with its options listed below the question.

    Args:
        probe (`Probe`):
            A probe with `options`.
        order (`Sequence[int]`):
            The order in which the options are listed: rotated from probe to probe, so that a preference for the
            first or last one favours no side.
    """
    if not probe.listed:
        return probe.messages
    listed = "\n".join(f"- {probe.options[index]}" for index in order)
    content = f"{probe.prompt}\n\nAnswer with one of these options:\n{listed}"
    return (*probe.messages[:-1], {"role": "user", "content": content})


def encode_prompt(probe: Probe, chat: Chat) -> tuple[list[int], bool]:
    """
    Token ids of what is asked, and whether they end inside a trace. A plain probe is text to go on from, no chat.

    Raises:
        ProbeError: The chat template refuses its turns, or leaves one out; the message names the probe.
    """
    if probe.plain:
        return chat.plain_ids(probe.prompt), False
    messages = turns(probe)
    try:
        return chat.prompt_ids(messages), chat.opens_trace(messages)
    except ProbeError as error:
        raise ProbeError(f"probe {probe.id!r}: {error}") from None


def answer_context(probe: Probe, chat: Chat, thinks: bool, manner: Manner) -> list[int]:
    """What stands before an answer: the prompt, an empty, closed trace where it or the model opens one, and its wrapper."""
    context, inside = encode_prompt(probe, chat)
    return context + manner.before(chat, thinks, inside)


def turns(probe: Probe) -> tuple[dict[str, str], ...]:
    """What is asked, as chat turns: choices with their options, all else word for word."""
    if probe.plain:
        return probe.messages
    if probe.judge == "choice":
        return render_choice(probe, _option_order(probe))
    return probe.messages


def _option_order(probe: Probe) -> list[int]:
    """Options listed from a place that the probe's id decides, so that over the pool each place is used alike."""
    n = len(probe.options)
    shift = sum(probe.id.encode()) % n
    return [(i + shift) % n for i in range(n)]
