"""How a model answers at an audit: the form it thinks in, and what it puts around an answer. Shown, and never scored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..model.chat import Answer, Chat
from ..model.forms import WRAPPERS, Form, form_in, wrapper_of

_BLOCK = re.compile(r"<([a-z][\w:-]{0,30})>.*?</\1>\s*\S", re.IGNORECASE | re.DOTALL)
# HTML that answers may begin with
_MARKUP = re.compile(
    r"a|b|body|br|center|code|del|div|em|font|h[1-6]|head|html|i|li|[ou]l|p|pre|s|small|span|strong|su[bp]|table|u",
    re.IGNORECASE,
)
HABIT = 0.5  # of its answers: what is done in fewer is no habit


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

    @property
    def closes(self) -> bool:
        """Whether it writes something after an answer, too, where a start that does not wrap its own would end."""
        tagged = any(closer and opener.strip() in self.wrapper for opener, closer in WRAPPERS)
        return tagged or self.wrapper.rstrip().endswith('"')  # of JSON

    def writes(self, own: str) -> bool:
        """Whether a start that writes this before an answer that it does not think about wraps it in the same way."""
        own = own.strip()
        return own == self._text(thinks=False).strip() or not (own or self.wrapper)

    def end(self, chat: Chat, tokens: Sequence[int], own: str) -> int:
        """
        How many of a start's tokens are read: where it ends, a policy that wraps its answer as the start does not closes the
        wrapper.
        """
        ended = any(token in chat.eos_token_ids for token in tokens[-1:])
        return len(tokens) - (self.closes and not self.writes(own) and ended)

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
        text = self._text(thinks, inside)
        return chat.encode(text) if text else []

    def _text(self, thinks: bool, inside: bool = False) -> str:
        trace = self.form.end if inside else self.form.empty if thinks else self.form.lead
        joined = self.wrapper.strip() and trace.rstrip().endswith(self.wrapper.strip())
        return trace if joined else trace + self.wrapper


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
        rest = chat.after_trace(answer.tokens) if answer.thinks else text
        wrappers[wrapper_of(rest)] += 1
    form = forms.most_common(1)[0][0] if forms else chat.form
    wrapper, times = wrappers.most_common(1)[0] if wrappers else ("", 0)
    if not wrapper.strip() or times < HABIT * len(said) or wrapper.strip() == chat.form.lead.strip():
        wrapper = ""
    return Manner(form, wrapper)


def unread_tag(answers: Iterable[Answer]) -> str:
    """A tag in which most answers first say something apart, and which is read as a part of them; empty where there is none."""
    said = [answer.answer for answer in answers if answer.answer]
    tags = Counter(found[1] for text in said if (found := _BLOCK.match(text)) and not _MARKUP.fullmatch(found[1]))
    tag, times = tags.most_common(1)[0] if tags else ("", 0)
    return tag if tag and times >= HABIT * len(said) else ""
