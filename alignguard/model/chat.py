"""Prompts and thinking tags, from the tokenizer's chat template.

`Chat` is the one place that knows how a model is spoken to: it turns a probe into token ids, and the tokens a model
answers with into trace and answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

# the pairs in use, commonest first; the first whose tags stand in the chat template is taken
KNOWN_TAGS = (
    ("<think>", "</think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)


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


def split_trace(text: str, tags: tuple[str, str], inside: bool = False) -> tuple[str, str, bool, bool]:
    """
    Split generated text into trace and answer.

    Args:
        text (`str`):
            What was generated.
        tags (`tuple[str, str]`):
            Opening and closing tag.
        inside (`bool`, *optional*, defaults to `False`):
            Whether the prompt itself already opened a trace.

    Returns:
        `tuple[str, str, bool, bool]`: trace, answer, whether there was a trace, whether every trace was closed. Whatever
        stands before a closing tag is trace, also where no opening one was seen.
    """
    open_tag, close_tag = tags
    thinks = inside or open_tag in text or close_tag in text
    trace: list[str] = []
    answer: list[str] = []
    for piece in re.split(f"({re.escape(open_tag)}|{re.escape(close_tag)})", text):
        if piece == open_tag:
            inside = True
        elif piece == close_tag:
            if not inside:  # a closing tag alone: what seemed to be the answer was not
                trace, answer = trace + answer, []
            inside = False
        else:
            (trace if inside else answer).append(piece)
    return "".join(trace).strip(), "".join(answer).strip(), thinks, not inside


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
            Tokens that end an answer. The tokenizer's by default.
    """

    tokenizer: Any
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, str] = ("", "")
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.tokenizer = getattr(self.tokenizer, "tokenizer", self.tokenizer)
        template = str(getattr(self.tokenizer, "chat_template", None) or "")
        if not template:
            logger.warning("AlignGuard: the tokenizer has no chat template; probes are asked as plain text.")
        if not self.tags[0]:
            self.tags = next((pair for pair in KNOWN_TAGS if pair[1] in template), KNOWN_TAGS[0])
        if not self.eos_token_ids and self.tokenizer.eos_token_id is not None:
            self.eos_token_ids = (self.tokenizer.eos_token_id,)

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

    def text(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt as text, ready for the model to go on from."""
        if not getattr(self.tokenizer, "chat_template", None):
            names = {"system": "System", "user": "User", "assistant": "Assistant"}
            return "\n\n".join([f"{names[m['role']]}: {m['content']}" for m in messages] + ["Assistant:"])
        kwargs = {"tokenize": False, "add_generation_prompt": True, **self.template_kwargs}
        try:
            return self.tokenizer.apply_chat_template(list(messages), **kwargs)
        except Exception:
            if messages[0]["role"] != "system":
                raise
        # templates that know no system turn (gemma, some mistral): it goes before the first user turn
        system, first, *rest = messages
        first = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
        return self.tokenizer.apply_chat_template([first, *rest], **kwargs)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of `text`, without the tokenizer's own additions unless `special`."""
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def prompt_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Token ids of the prompt. A template writes its own special tokens; plain text gets the tokenizer's."""
        return self.encode(self.text(messages), special=not getattr(self.tokenizer, "chat_template", None))

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of text that is no chat; of an empty text the one token a sequence begins with."""
        first = self.tokenizer.bos_token_id
        return self.encode(text) or [first if first is not None else self.eos_token_ids[0]]

    def continuation(self, context: str, text: str) -> tuple[list[int], list[int]]:
        """
        Token ids of a context and of the text that goes on from it.

        Both are encoded together and cut where the context ends, with spaces at its end given to the text, as lm-eval
        does: a tokenizer may join what stands at the border.
        """
        bare = context.rstrip()
        text, context = context[len(bare) :] + text, bare
        if not context:
            return self.plain_ids(""), self.encode(text)
        cut = len(self.encode(context))
        whole = self.encode(context + text)
        return whole[:cut], whole[cut:]

    def opens_trace(self, messages: Sequence[dict[str, str]]) -> bool:
        """Whether the prompt itself ends inside a trace, as the templates of some reasoning models do."""
        return self.text(messages).rstrip().endswith(self.tags[0])

    def open_ids(self) -> list[int]:
        """
        Token ids that begin a trace. Where the tag is several tokens its last is left out, since a model may merge
        it with what follows.
        """
        ids = self.encode(self.tags[0])
        return ids if len(ids) == 1 else ids[:-1]

    def closed_trace_ids(self) -> list[int]:
        """Token ids of an empty, closed trace: what is put before an answer to compare behaviour without format."""
        return self.encode(f"{self.tags[0]}\n\n{self.tags[1]}\n\n")

    def close_ids(self) -> list[int]:
        """Token ids that close a trace from inside."""
        return self.encode(f"\n{self.tags[1]}\n\n")

    def fingerprint(self) -> str:
        """16 hexadecimal digits over vocabulary and chat template."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        text = json.dumps([vocabulary, str(getattr(self.tokenizer, "chat_template", None))])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of generated tokens, up to the first end-of-answer token. Tags that are special tokens stay."""
        for index, token in enumerate(tokens):
            if token in self.eos_token_ids:
                tokens = tokens[:index]
                break
        return self.tokenizer.decode(list(tokens), skip_special_tokens=False)

    def closing(self, tokens: Sequence[int]) -> int:
        """How many tokens it takes to close the first trace, found to the token; all of them where none is closed."""
        low, high = 0, len(tokens)
        while low < high:
            middle = (low + high) // 2
            if self.tags[1] in self.decode(tokens[:middle]):
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
        trace, answer, thinks, closed = split_trace(self.decode(tokens), self.tags, inside)
        finished = any(token in self.eos_token_ids for token in tokens[-1:])
        return Answer(tuple(tokens), trace, answer, thinks, closed, finished, forced)
