"""Prompts and thinking tags, from the tokenizer's chat template.

`Chat` is the one place that knows how a model is spoken to: it turns a probe into token ids, and the tokens a model
answers with into trace and answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..errors import ProbeError, one_line
from .forms import FAMILIES, Form, form_in, read_form, split_trace, wrapper_of
from .spoken import check_said, check_tokenizer, unchanged
from .turns import WAYS, end_of_turn, is_plain, left_out

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """
    What a model said to one probe.

    Args:
        tokens (`tuple[int, ...]`):
            All generated token ids, with the end-of-answer token where there was one.
        trace (`str`):
            What stands between the thinking tags.
        answer (`str`):
            What stands after them.
        thinks (`bool`):
            Whether a trace was opened.
        closed (`bool`):
            False where a trace was opened and never closed.
        finished (`bool`):
            False where a token budget cut it off.
        forced (`bool`, *optional*, defaults to `False`):
            True where the trace ran out of budget and was closed for the model, so that the answer could be asked for.
    """

    tokens: tuple[int, ...]
    trace: str
    answer: str
    thinks: bool
    closed: bool
    finished: bool
    forced: bool = False


@dataclass
class Chat:
    """
    How one tokenizer is spoken to.

    Args:
        tokenizer (`PreTrainedTokenizerBase` or processor):
            The trainer's `processing_class`; a processor's tokenizer is taken.
        template_kwargs (`dict[str, Any]`, *optional*):
            Passed on to the chat template, e.g. `{"enable_thinking": True}`.
        tags (`tuple[str, str]`, *optional*):
            Thinking tags. Found in the chat template by default, else `<think>` and `</think>`.
        eos_token_ids (`tuple[int, ...]`, *optional*):
            Tokens that end an answer. By default the tokenizer's, and that with which the template ends a turn.

    What was asked before stays in `kept` as token ids, by its turns (see `auditing/prompts.py`).
    """

    tokenizer: Any
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, str] = ("", "")
    eos_token_ids: tuple[int, ...] = ()
    form: Form = field(init=False)
    kept: dict[tuple[tuple[str, str], ...], array[int]] = field(init=False, default_factory=dict, repr=False)
    # tags that most answers begin with, and that were told of
    unread: set[str] = field(init=False, default_factory=set, repr=False)
    # how turns are rendered, with a system turn and without
    _ways: dict[bool, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        given = self.tokenizer
        check_tokenizer(given)
        check_said(self.tags if any(self.tags) else None, self.template_kwargs)
        self.tokenizer = getattr(given, "tokenizer", given)
        # a processor may have the template, and its tokenizer none
        self._speaker = given if getattr(given, "chat_template", None) else self.tokenizer
        self.template = str(getattr(self._speaker, "chat_template", None) or "")
        if not self.template:
            logger.warning("AlignGuard: the tokenizer has no chat template; probes are asked as plain text.")
        for name in self.template_kwargs:
            if not re.search(rf"\b{re.escape(name)}\b", self.template):
                logger.warning(
                    f"AlignGuard: the chat template knows no {name!r} of template_kwargs; it changes nothing."
                )
        self._read_form()
        if not self.eos_token_ids:
            self._read_end()

    def _read_end(self) -> None:
        """What ends an answer: the tokenizer's own token, and that with which the template ends a turn, which training may teach."""
        own = () if self.tokenizer.eos_token_id is None else (self.tokenizer.eos_token_id,)
        marks = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        more, text = end_of_turn(self._render, self.encode, marks, own)
        self.eos_token_ids = own if more is None else (*own, more)
        if text:
            logger.warning(
                f"AlignGuard: the chat template ends a turn by {text[:40]!r}, which is no token that could end an answer; what a model "
                "says after it is taken for its answer. A token of its own for the end of a turn would tell."
            )

    def _read_form(self) -> None:
        opener, closer = (tag.strip() for tag in self.tags)
        if opener:
            known = next((f for f in FAMILIES if (f.open, f.close) == (opener, closer)), Form("given", opener, closer))
            self.form = replace(known, why="as given by tags=")
        else:
            self.form, unknown = read_form(self._render, self.template)
            if unknown:
                logger.warning(
                    f"AlignGuard: the chat template shows {unknown}, which is no marker of thinking that is known here; give "
                    f"tags=({unknown!r}, its closing one), or traces are taken for answers."
                )
        self.tags = (self.form.open, self.form.close)

    def use(self, form: Form, why: str) -> None:
        """Take another form than the chat template shows."""
        self.form = replace(form, why=why, assumed=False)
        self.tags = (form.open, form.close)

    def _render(self, turns: Sequence[dict[str, Any]], begun: bool, more: dict[str, Any]) -> str:
        kwargs = {"tokenize": False, "add_generation_prompt": begun, **self.template_kwargs, **more}
        return str(self._speaker.apply_chat_template(list(turns), **kwargs)) if self.template else ""

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        template_kwargs: dict[str, Any] | None = None,
        tags: tuple[str, str] | None = None,
    ) -> Chat:
        """How this model is spoken to: its generation config may end an answer with more tokens than its tokenizer."""
        chat = cls(tokenizer, template_kwargs or {}, tags or ("", ""))
        eos = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        more = eos if isinstance(eos, (list, tuple)) else [eos]
        ids = dict.fromkeys([*chat.eos_token_ids, *(token for token in more if token is not None)])
        chat.eos_token_ids = tuple(ids)
        return chat

    @property
    def pad_token_id(self) -> int:
        """A token to fill batches with; always masked, so any valid one does."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else (self.eos_token_ids[0] if self.eos_token_ids else 0)

    def text(self, messages: Sequence[dict[str, Any]], **more: Any) -> str:
        """
        The prompt as text, ready for the model to go on from. `more` goes to the template: `tools`, for one.

        Raises:
            ProbeError: The template refuses the turns, or leaves one out.
        """
        if not self.template:
            if not is_plain(messages):
                raise ProbeError("without a chat template there are no tools and no parts")
            names = {"system": "System", "user": "User", "assistant": "Assistant"}
            return "\n\n".join([f"{names[m['role']]}: {m['content']}" for m in messages] + ["Assistant:"])
        system = messages[0]["role"] == "system"
        first, plain = self._ways.get(system, 0), is_plain(messages)
        refused, dropped = "", ""
        for way in (first, *(way for way in range(len(WAYS)) if way != first)):
            turns = WAYS[way](messages)
            if turns is None:
                continue
            try:
                text = self._render(turns, True, more)
            except Exception as error:
                refused = refused or one_line(error)
                continue
            gone = left_out(messages, text, more.get("tools"))
            if not gone:
                if plain:
                    self._ways[system] = way
                return text
            dropped = dropped or gone
        if dropped:
            raise ProbeError(f"the chat template leaves out {dropped}; leave the probe out, or mend the template")
        roles = ", ".join(turn["role"] for turn in messages)
        raise ProbeError(
            f"the chat template refuses turns of {roles} ({refused}); leave the probe out, or mend the template"
        )

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of `text`, begun as the tokenizer begins a text where `special`, else without its own additions."""
        with unchanged(self.tokenizer):
            ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        begin = self._begin if special else []
        return ids if ids[: len(begin)] == begin else begin + ids  # what is written out is not said twice

    @cached_property
    def _begin(self) -> list[int]:
        """What the tokenizer puts before a text by itself; what it puts behind one would end what is to be gone on from."""
        with unchanged(self.tokenizer):
            bare, whole = (list(self.tokenizer("a", add_special_tokens=add)["input_ids"]) for add in (False, True))
        return next((whole[:i] for i in range(len(whole)) if bare and whole[i : i + len(bare)] == bare), [])

    def prompt_ids(self, messages: Sequence[dict[str, Any]], **more: Any) -> list[int]:
        """Token ids of the prompt, see [`~Chat.text`]. Templates write special tokens; plain text gets the tokenizer's."""
        return self.encode(self.text(messages, **more), special=not self.template)

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of text that is no chat, begun as the tokenizer does; of an empty text the one token a sequence begins with."""
        first = self.tokenizer.bos_token_id
        return self.encode(text, special=True) or [first if first is not None else self.eos_token_ids[0]]

    def continuation(self, context: str, text: str) -> tuple[list[int], list[int]]:
        """
        Token ids of a context and of the text that goes on from it.

        Both are encoded together and cut where the context ends, with spaces at its end given to the text, as lm-eval
        does: a tokenizer may join what stands at the border.
        """
        bare = context.rstrip()
        text, context = context[len(bare) :] + text, bare
        if not context:
            first, rest = self.plain_ids(""), self.encode(text)
            return first, rest[len(first) :] if rest[: len(first)] == first else rest
        cut = len(self.encode(context, special=True))
        whole = self.encode(context + text, special=True)
        return whole[:cut], whole[cut:]

    def opens_trace(self, messages: Sequence[dict[str, str]]) -> bool:
        """Whether the prompt itself ends inside a trace, as the templates of some reasoning models do."""
        return self.is_inside(self.text(messages))

    def is_inside(self, text: str) -> bool:
        """Whether a prompt ends inside a trace."""
        return text.rstrip().endswith(self.form.open)

    def open_ids(self, form: Form | None = None) -> list[int]:
        """
        Token ids that begin a trace, in the model's own form or in another. Where the tag is several tokens its last is left
        out, since a model may merge it with what follows.
        """
        ids = self.encode((form or self.form).open)
        return ids if len(ids) == 1 else ids[:-1]

    def closed_trace_ids(self) -> list[int]:
        """Token ids of an empty, closed trace: what is put before an answer to compare behaviour without format."""
        return self.encode(self.form.empty)

    def close_ids(self, said: Sequence[int] = ()) -> list[int]:
        """Token ids that close a trace from inside, in the form in which it was begun."""
        return self.encode((form_in(self.decode(said), self.form) or self.form).end)

    def lead_ids(self) -> list[int]:
        """Token ids of what stands before an answer that was not thought about; of most families nothing."""
        return self.encode(self.form.lead) if self.form.lead else []

    def fingerprint(self) -> str:
        """16 hexadecimal digits over vocabulary and chat template."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        text = json.dumps([vocabulary, self.template or str(None)])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of generated tokens, up to the first end-of-answer token. Tags that are special tokens stay."""
        for index, token in enumerate(tokens):
            if token in self.eos_token_ids:
                tokens = tokens[:index]
                break
        return self.tokenizer.decode(list(tokens), skip_special_tokens=False)

    def closing(self, tokens: Sequence[int]) -> int:
        """How many tokens it takes to close the last trace, found to the token; all of them where none is closed."""
        whole = self.decode(tokens)
        close = (form_in(whole, self.form) or self.form).close
        count = whole.count(close)
        return self.fewest(tokens, lambda text: text.count(close) >= count) if count else len(tokens)

    def forced_tokens(self, answer: Answer) -> slice:
        """Which tokens of an answer closed its trace for it; none where it did so itself."""
        tokens, close = list(answer.tokens), self.close_ids(answer.tokens)
        if answer.forced:
            for start in range(len(tokens) - len(close) + 1):
                if tokens[start : start + len(close)] == close:
                    return slice(start, start + len(close))
        return slice(0, 0)

    def answer_start(self, tokens: Sequence[int], inside: bool) -> int:
        """How many tokens stand before what is said: a trace, and what wraps the answer; all of them where nothing is said."""
        answer = self.answer(tokens, inside)
        if not answer.answer:
            return len(tokens)
        whole, rest = self.decode(tokens), self.after_trace(tokens)
        wrapper = wrapper_of(rest)
        if not wrapper.strip():
            return self.closing(tokens) if answer.thinks else 0
        begins = len(whole) - len(rest.lstrip()) + len(wrapper)
        return self.fewest(tokens, lambda text: len(text) >= begins)

    def after_trace(self, tokens: Sequence[int]) -> str:
        """What was generated after the last trace, to the letter: a tokenizer may join the end of a tag with what follows."""
        text = self.decode(tokens)
        return text.rpartition((form_in(text, self.form) or self.form).close)[2]

    def fewest(self, tokens: Sequence[int], reached: Callable[[str], bool]) -> int:
        """The fewest tokens of which something is so, which is then so of more."""
        low, high = 0, len(tokens)
        while low < high:
            middle = (low + high) // 2
            if reached(self.decode(tokens[:middle])):
                high = middle
            else:
                low = middle + 1
        return low

    def answer(self, tokens: Sequence[int], inside: bool, forced: bool = False) -> Answer:
        """
        Read generated tokens as trace and answer.

        Args:
            tokens (`Sequence[int]`):
                Generated ids; with the end-of-answer token where generation finished.
            inside (`bool`):
                Whether the prompt itself opened a trace, see [`~Chat.opens_trace`].
            forced (`bool`, *optional*, defaults to `False`):
                Whether the trace was closed for the model.
        """
        trace, answer, thinks, closed = split_trace(self.decode(tokens), self.form, inside)
        finished = any(token in self.eos_token_ids for token in tokens[-1:])
        return Answer(tuple(tokens), trace, answer, thinks, closed, finished, forced)
