"""How a model answers at an audit: the form it thinks in, and what it puts around an answer. Shown, and never scored."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.chat import Answer, Chat
from ..model.forms import Form, form_in, leading_marker, wrapper_of
from ..model.generation import TokenBudget, answer_all
from ..model.observe import observing

logger = logging.getLogger(__name__)
_SAMPLE, _OPENING = 8, 24  # prompts, and tokens of each answer, that tell the form of a start
_HABIT = 0.5  # of its answers: what is done in fewer is no habit


@dataclass(frozen=True)
class Manner:
    """
    What stands before what is said.

    Args:
        form ([`Form`]):
            Of its traces.
        wrapper (`str`, *optional*, defaults to `""`):
            What it begins an answer with, after a trace or without one; empty where it has no such habit.
    """

    form: Form
    wrapper: str = ""

    def before(self, chat: Chat, thinks: bool, inside: bool = False) -> list[int]:
        """
        Token ids of what stands between a prompt and what is said.

        Args:
            chat ([`Chat`]):
                How the model is spoken to.
            thinks (`bool`):
                Whether it would think here: an empty, closed trace then stands for it.
            inside (`bool`, *optional*, defaults to `False`):
                Whether the prompt itself opens a trace, which is then closed.
        """
        form = self.form
        trace = form.end if inside else form.empty if thinks else form.lead
        wrapper = "" if self.wrapper.strip() and trace.rstrip().endswith(self.wrapper.strip()) else self.wrapper
        return chat.encode(trace + wrapper) if trace + wrapper else []


def manner_of(answers: Iterable[Answer | None], chat: Chat) -> Manner:
    """
    The habits that a model's answers show.

    Args:
        answers (`Iterable[Answer]`):
            What it said, to any probes.
        chat ([`Chat`]):
            How it is spoken to, and in which form its family thinks.
    """
    said = [answer for answer in answers if answer is not None and answer.answer]
    forms: Counter[Form] = Counter()
    wrappers: Counter[str] = Counter()
    for answer in said:
        text = chat.decode(answer.tokens)
        if answer.thinks:
            forms[form_in(text, chat.form) or chat.form] += 1
        rest = chat.decode(answer.tokens[chat.closing(answer.tokens) :]) if answer.thinks else text
        wrappers[wrapper_of(rest)] += 1
    form = forms.most_common(1)[0][0] if forms else chat.form
    wrapper, times = wrappers.most_common(1)[0] if wrappers else ("", 0)
    if not wrapper.strip() or times < _HABIT * len(said) or wrapper.strip() == chat.form.lead.strip():
        wrapper = ""
    return Manner(form, wrapper)


def settle_form(
    model: Any, prompts: Sequence[Sequence[int]], chat: Chat, autocast: Any = None, synced: bool = False
) -> None:
    """
    Where the chat template shows no trace, see from the openings of a few answers whether the start itself thinks in some
    form, and take that; a marker of thinking that is not known is told.

    Args:
        model (`PreTrainedModel`):
            The start.
        prompts (`Sequence[Sequence[int]]`):
            Token ids of what it is asked; a few of them are taken.
        chat ([`Chat`]):
            Whose form is settled.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in.
        synced (`bool`, *optional*, defaults to `False`):
            Whether all ranks must take the same number of steps (FSDP, ZeRO-3).
    """
    if not chat.form.why.startswith("usual") or not prompts:
        return
    sample = [list(prompts[i * len(prompts) // _SAMPLE]) for i in range(_SAMPLE)]
    short = TokenBudget(_OPENING, _OPENING, force_close=False)
    with observing(model, autocast=autocast):
        said = answer_all(model, sample, [False] * _SAMPLE, chat, short, synced=synced)
    texts = [chat.decode(answer.tokens) for answer in said]
    forms = Counter(form for text in texts if (form := form_in(text, chat.form)) is not None)
    form, times = forms.most_common(1)[0] if forms else (chat.form, 0)
    if times >= _HABIT * _SAMPLE:
        chat.use(form, "as the start itself thinks")
        return
    marker, times = Counter(map(leading_marker, texts)).most_common(1)[0]
    if marker and times >= _HABIT * _SAMPLE:
        logger.warning(
            f"AlignGuard: the start begins its answers with {marker}, which is no marker of thinking that is known here; give "
            f"tags=({marker!r}, its closing one), or traces are taken for answers."
        )
