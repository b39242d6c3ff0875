"""What is asked of a model, as chat turns and as tokens: tokenised once, and kept for the run, since templates write dates."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from ..errors import ProbeError
from ..model.chat import Chat
from ..probes.probe import Probe
from .manner import Manner
from .result import Result


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
    asked = _asked(probe)
    if asked not in chat.kept:
        try:
            chat.kept[asked] = array("i", chat.prompt_ids(turns(probe)))
        except ProbeError as error:
            raise ProbeError(f"probe {probe.id!r}: {error}") from None
    ids = list(chat.kept[asked])
    return ids, opens(ids, chat)


def keep_prompts(results: Iterable[Result], chat: Chat) -> None:
    """From here on ask as it was asked before, by whichever process and on whichever day."""
    for result in results:
        if result.prompt is not None:
            chat.kept[_asked(result.probe)] = array("i", result.prompt)


def _asked(probe: Probe) -> tuple[tuple[str, str], ...]:
    return tuple((turn["role"], turn["content"]) for turn in turns(probe))


def opens(prompt: Sequence[int], chat: Chat) -> bool:
    """Whether a prompt, as token ids, ends inside a trace."""
    return chat.is_inside(chat.tokenizer.decode(list(prompt), skip_special_tokens=False))


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
    shift = sum(probe.id.encode("utf-8", "replace")) % n
    return [(i + shift) % n for i in range(n)]
