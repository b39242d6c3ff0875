"""When an answer has come to its end: how long it may be depends on whether it thinks, which is seen from its text."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from transformers import StoppingCriteria

from ..given import is_flag, is_whole, need
from .chat import Chat
from .forms import begun_form, form_in, split_trace
from .sampled import Draw

LOOK_EVERY = 16  # tokens between two looks at a row's text, for its thinking tags
_MOST_TAGS = 32  # that a row opens or closes a trace with: what comes after them is read as it stands
_TAIL = 64  # tokens of a trace that are looked at: those since the last look, and room for a tag that began before it


@dataclass(frozen=True)
class TokenBudget:
    """
    How long the model may speak.

    Args:
        answer (`int`, *optional*, defaults to `64`):
            Tokens of the answer proper.
        trace (`int`, *optional*, defaults to `512`):
            Tokens of a trace, if it opens one.
        force_close (`bool`, *optional*, defaults to `True`):
            Close a trace that ran out of its budget, or in which the model ended, so that the answer can still be asked
            for; such answers are marked `forced`. Otherwise they are TRUNCATED and unscored.
        batch_tokens (`int`, *optional*, defaults to `8192`):
            Padded tokens, prompt and answer, that are read at once.
        decode_tokens (`int`, *optional*):
            Padded tokens, prompt and answer, whose keys and values are held at once while answers are generated. By default
            what fits into half of the memory that is free on a GPU, and `batch_tokens` on a CPU and of a sharded model.
    """

    answer: int = 64
    trace: int = 512
    force_close: bool = True
    batch_tokens: int = 8192
    decode_tokens: int | None = None

    def __post_init__(self) -> None:
        hold = partial(need, where="TokenBudget")
        for name in ("answer", "trace", "batch_tokens", "decode_tokens"):
            value = getattr(self, name)
            free = name == "decode_tokens" and value is None
            hold(free or is_whole(value, 1), f"{name} must be at least 1", value)
        hold(is_flag(self.force_close), "force_close is True or False", self.force_close)


@dataclass(eq=False)
class Asked:
    """One prompt on its way to an answer."""

    prompt: list[int]
    inside: bool  # the prompt itself opened a trace
    said: list[int]  # generated so far
    draw: Draw | None = None  # of a sampled answer; none of a greedy one
    most: int = sys.maxsize  # tokens that fit in the model's context
    forced: int = 0  # what it had said when its trace was closed for it


class Budgets(StoppingCriteria):
    """
    Stops each row about where its budget ends: how far that is depends on whether it thinks, which is seen from its text.

    Text is looked at every few tokens, of a trace only its end; between two looks nothing is fetched from the device. A row
    that is stopped too early goes on in the next batch, what one says too much is cut.
    """

    def __init__(self, rows: list[Asked], start: int, chat: Chat, budget: TokenBudget, device: torch.device) -> None:
        self.rows, self.start, self.chat, self.budget = rows, start, chat, budget
        self.active = list(range(len(rows)))
        self.limits = [limit_of(row, row.said, chat, budget) - len(row.said) for row in rows]  # of new tokens
        self.closes = [closing_tag(row, row.said, chat) for row in rows]
        self.caps = torch.tensor(self.limits, device=device)
        self.stops = torch.zeros_like(self.caps)  # after how many new tokens each was stopped; padding follows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        new = input_ids.shape[1] - self.start
        if new % LOOK_EVERY == 0:
            self._look(input_ids, new)
        stop = self.caps <= new
        self.stops = torch.where(stop & (self.stops == 0), new, self.stops)
        return stop

    def _look(self, input_ids: torch.Tensor, new: int) -> None:
        tails = input_ids[:, max(self.start, input_ids.shape[1] - _TAIL) :].tolist()
        ends, decode = self.chat.eos_token_ids, self.chat.decode
        self.active = [
            i for i in self.active if self.limits[i] > new and not any(t in ends for t in tails[i][-LOOK_EVERY:])
        ]
        # a trace may have been closed since; an answer may have begun with one
        due = [i for i in self.active if (self.closes[i] in decode(tails[i]) if self.closes[i] else new == LOOK_EVERY)]
        for i, tokens in zip(due, input_ids[due, self.start :].tolist() if due else [], strict=True):
            row = self.rows[i]
            said = row.said + tokens
            self.limits[i] = limit_of(row, said, self.chat, self.budget) - len(row.said)
            self.closes[i] = closing_tag(row, said, self.chat)
        if due:
            self.caps = torch.tensor(self.limits, device=input_ids.device)


def closing_tag(row: Asked, said: list[int], chat: Chat) -> str:
    """What would close the trace that it is inside of; nothing where it is in none."""
    text = chat.decode(said)
    _, _, thinks, closed = split_trace(text, chat.form, row.inside)
    return (form_in(text, chat.form) or chat.form).close if thinks and not closed else ""


def is_thinking(row: Asked, chat: Chat) -> bool:
    """Whether it is inside of a trace, as far as is seen: a draft may end with the first token of a tag."""
    return bool(closing_tag(row, row.said, chat)) or bool(row.said and row.said[-1] == chat.open_ids()[0])


def limit_of(row: Asked, said: list[int], chat: Chat, budget: TokenBudget) -> int:
    """
    How many tokens this row may have said in all, judged by what it has said so far.

    That changes with each tag, and only there: it ends where what it had said up to then allows no more, whatever followed while
    others of its batch were still at it. Else, of one that goes on opening traces, what is cut off would decide whether it may
    go on, for ever.
    """
    if row.forced:
        return row.forced + budget.answer
    limit, tags = 0, _tags(said, chat)
    for at, following in zip([0, *tags], [*tags, sys.maxsize], strict=True):
        limit = max(at, _allowed(row, said[:at], chat, budget))
        if limit < following > LOOK_EVERY:  # a tag may be longer than an answer
            break
    return limit


def _tags(said: list[int], chat: Chat) -> list[int]:
    """After how many tokens each of the tags that it opens and closes traces with was there; of the first that there are."""
    text = chat.decode(said)
    forms = {chat.form, begun_form(text) or chat.form}
    tag = re.compile("|".join(re.escape(tag) for form in forms for tag in (form.open, form.close)))
    ends = [found.end() for found in islice(tag.finditer(text), _MOST_TAGS)]
    return [chat.fewest(said, partial(_reaches, end)) for end in ends]


def _reaches(end: int, text: str) -> bool:
    return len(text) >= end


def _allowed(row: Asked, said: list[int], chat: Chat, budget: TokenBudget) -> int:
    """The same, of all that it has said."""
    _, _, thinks, closed = split_trace(chat.decode(said), chat.form, row.inside)
    if not thinks:
        return budget.answer
    if not closed:  # a whole answer must fit after it
        return min(budget.trace, row.most - budget.answer)
    return min(min(chat.closing(said), budget.trace) + budget.answer, row.most)


def has_ended(row: Asked, chat: Chat) -> bool:
    return bool(row.said) and row.said[-1] in chat.eos_token_ids


def is_done(row: Asked, chat: Chat, budget: TokenBudget) -> bool:
    return has_ended(row, chat) or (bool(row.said) and len(row.said) >= limit_of(row, row.said, chat, budget))
