"""
A model behind a server, in place of a model: what it goes on to say, and how likely it finds what others have said.

It is asked by `/completions`, with the token ids that training asks with: no other chat template comes between. How a server wants
to be asked is found out once, see `meeting.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeVar

from ..errors import EngineError
from .chat import Answer, Chat
from .endpoint import Endpoint
from .forward import Row
from .generation import answer_elsewhere
from .sampled import Draw
from .stopping import Asked, TokenBudget

T = TypeVar("T")
_ASIDE = ("reasoning_content", "reasoning")  # where servers put what they take out of a text
_ROUNDING = 1e-3  # of a logarithm of a probability, which is never above 0
# ways of asking for the log-probabilities of a prompt's own tokens; one more token is generated, since some servers take no 0
ECHO: dict[str, Any] = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
PROMPT_LOGPROBS: dict[str, Any] = {"prompt_logprobs": 0, "max_tokens": 1, "temperature": 0}


@dataclass
class Served:
    """
    A model as its server lets it be asked.

    Args:
        endpoint ([`Endpoint`]):
            The server.
        name (`str`):
            The model's, there.
        chat ([`Chat`]):
            How it is spoken to.
        size (`int`):
            Tokens that it reads at most, prompt and answer together.
        server (`str`, *optional*):
            What serves it, with a version where it tells one.
        parallel (`int`, *optional*, defaults to `16`):
            Questions that it is asked at once.
        extras (`dict[str, Any]`, *optional*):
            What every question says beside OpenAI's own fields; nothing to a server that refuses others.
        as_text (`bool`, *optional*, defaults to `False`):
            Whether prompts go as text, to a server that takes no token ids.
        wants_logprobs (`bool`, *optional*, defaults to `False`):
            Whether the ids of what it says come with their log-probabilities alone.
        tells_ids (`bool`, *optional*, defaults to `False`):
            Whether they come at all; else what it says is text, encoded again.
        way (`dict[str, Any]`, *optional*):
            How it is asked for the log-probabilities of a prompt; `None` where it gives none, and `why_not` tells why.
    """

    endpoint: Endpoint
    name: str
    chat: Chat
    size: int
    server: str = ""
    parallel: int = 16
    extras: dict[str, Any] = field(default_factory=dict)
    as_text: bool = False
    wants_logprobs: bool = False
    tells_ids: bool = False
    way: dict[str, Any] | None = None
    why_not: str = ""
    fingerprint: str = field(init=False, default="")  # by which some servers tell their version

    def answer(self, prompt: list[int], inside: bool, budget: TokenBudget, draw: Draw | None = None) -> Answer:
        """What it answers to one prompt, as a local model is asked: see [`answer_elsewhere`]."""

        def ask(rows: list[Asked], most: int) -> list[list[int]]:
            return [self.go_on(row.prompt + row.said, most, draw, len(row.said)) for row in rows]

        return answer_elsewhere(ask, prompt, inside, self.chat, budget, self.size, draw)

    def go_on(self, ids: list[int], most: int, draw: Draw | None = None, said: int = 0) -> list[int]:
        """
        What it goes on to say, in at most so many tokens.

        Args:
            ids (`list[int]`):
                What it has read and said so far.
            most (`int`):
                Tokens.
            draw (`Draw`, *optional*):
                How it is drawn; greedily by default. The server draws, from a seed made of the draw's key and of where it goes on.
            said (`int`, *optional*):
                How many of the ids it has said itself.
        """
        most = min(most, self.size - len(ids))
        if most < 1:
            raise EngineError(f"the server reads {self.size:,} tokens, which a prompt and its answer have filled")
        how: dict[str, Any] = {"temperature": 0, "top_p": 1}
        if draw is not None:
            seed = int.from_bytes(hashlib.sha256(f"{draw.key}:{said}".encode()).digest()[:4], "big") >> 1
            how = {"temperature": draw.temperature, "top_p": draw.top_p, "seed": seed}
        if self.wants_logprobs:
            how["logprobs"] = 1
        return self.tokens(self.choice(ids, max_tokens=most, **how), ids, most)

    def choice(self, ids: Sequence[int], **how: Any) -> dict[str, Any]:
        """
        One question, the one completion that it is answered with, and the `usage` that is told of it.

        Raises:
            EngineError: It is none, or of another prompt than was asked.
        """
        prompt = self.text(ids) if self.as_text else list(ids)
        told = self.endpoint.post("/completions", {"model": self.name, "prompt": prompt, **self.extras, **how})
        choices, usage = told.get("choices"), told.get("usage")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise EngineError(f"{self.endpoint.url} answers without a completion (choices: {self._shown(choices)})")
        read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if isinstance(read, int) and read != len(ids):
            raise EngineError(
                f"{self.endpoint.url} has read {read:,} tokens where {len(ids):,} were asked: it adds or leaves out some, so that its "
                "answers are to something else; ask a server that takes prompts as token ids, as vLLM does"
            )
        self.fingerprint = str(told.get("system_fingerprint") or "")
        return {**choices[0], "usage": usage}

    def text(self, ids: Sequence[int]) -> str:
        """
        Token ids as text that gives them again.

        Raises:
            EngineError: None does.
        """
        text = self.chat.tokenizer.decode(list(ids), skip_special_tokens=False)
        if self.chat.encode(text) != list(ids):
            raise EngineError(
                f"{self.endpoint.url} takes no prompts as token ids, and as text one would be others ({self._shown(text[-60:])}); ask a "
                "server that takes token ids, as vLLM does"
            )
        return text

    def tokens(self, choice: dict[str, Any], before: Sequence[int], most: int) -> list[int]:
        """Token ids of a completion: as the server tells them, else of its text, and with the end of an answer where it ended."""
        text, end = choice.get("text"), choice.get("finish_reason")
        if not isinstance(text, str) or end not in ("stop", "length"):
            raise EngineError(
                f"{self.endpoint.url} answers what cannot be read (text {self._shown(text)}, finish_reason {self._shown(end)})"
            )
        ids, ends = told_ids(choice), self.chat.eos_token_ids
        if ids is None:
            if aside := next((name for name in _ASIDE if choice.get(name)), ""):
                raise EngineError(
                    f"{self.endpoint.url} puts traces aside ({aside}); start it without a reasoning parser, so that a text is all that was said"
                )
            ids = self._encoded(text, before, end == "length")
        if not all(0 <= token < len(self.chat.tokenizer) for token in ids):
            raise EngineError(
                f"{self.endpoint.url} answers with tokens that the tokenizer does not know; is MODEL the model that it serves?"
            )
        ids = ids[:most]  # of a text that is cut elsewhere by this tokenizer there may be more
        if end == "stop" and not (ids and ids[-1] in ends):
            ids = [*ids, ends[0]]
        if not ids:
            raise EngineError(f"{self.endpoint.url} says nothing, and does not end its answer either")
        return ids

    def _encoded(self, text: str, before: Sequence[int], cut: bool) -> list[int]:
        """Token ids of a text, as it goes on from others: a tokenizer may write the beginning of a text in its own way."""
        text = (text.rstrip("\ufffd") or text) if cut else text  # half of a letter
        whole = self.chat.encode(self.chat.tokenizer.decode(list(before), skip_special_tokens=False) + text)
        return whole[len(before) :] if whole[: len(before)] == list(before) else self.chat.encode(text)

    def check_tags(self) -> None:
        """
        Whether what it says shows where a trace begins and ends.

        Raises:
            EngineError: It tells text alone, which special tokens may be left out of.
        """

        def text(tag: str, without: bool) -> str:
            return str(self.chat.tokenizer.decode(self.chat.encode(tag), skip_special_tokens=without))

        tags = [tag for tag in self.chat.tags if text(tag, True) != text(tag, False)]
        if tags and not self.tells_ids:
            raise EngineError(
                f"{self.endpoint.url} tells no token ids, and text alone may lack {' and '.join(tags)}, which are special tokens: traces "
                "would be read as answers; ask a server that tells token ids, as vLLM does"
            )

    def logprob(self, row: Row) -> float:
        """Log-probability of a row's whole target, in nats."""
        ids = [*row.context, *row.target]
        return sum(self.read(ids)[len(row.context) :])

    def read(self, ids: Sequence[int], way: dict[str, Any] | None = None) -> list[float]:
        """
        Log-probability of each token of a prompt, in nats; 0 of the first.

        Raises:
            EngineError: The server does not give them.
        """
        way = way or self.way
        assert way is not None
        choice = self.choice(ids, **way)
        found = _echoed(choice) if way is ECHO else _of_prompt(choice, ids)
        if found is None or len(found) < len(ids) or not all(_is_logprob(value) for value in found[1 : len(ids)]):
            raise EngineError(f"{self.endpoint.url} does not give a log-probability of each token of a prompt")
        return [0.0, *found[1 : len(ids)]]

    def each(self, jobs: Sequence[Callable[[], T]], done: Callable[[], None] = lambda: None) -> list[T]:
        """
        What all of these give, in their order, several at once.

        Args:
            jobs (`Sequence[Callable[[], T]]`):
                Each asks the server, one question after another.
            done (`Callable[[], None]`, *optional*):
                Called as each of them ends, for a progress bar.
        """
        pool = ThreadPoolExecutor(self.parallel)
        try:
            asked = [pool.submit(job) for job in jobs]
            for future in as_completed(asked):
                future.result()  # the first that fails ends all
                done()
            return [future.result() for future in asked]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _shown(self, value: object) -> str:
        return self.endpoint.shown(value if isinstance(value, str) else repr(value), 60)


def told_ids(choice: dict[str, Any]) -> list[int] | None:
    """Token ids as vLLM (`token_ids`) and llama.cpp (`logprobs.content`) tell them; `None` where they are not told."""
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    if ids is None and isinstance(logprobs, dict) and isinstance(content := logprobs.get("content"), list):
        ids = [part.get("id") if isinstance(part, dict) else None for part in content]
    return ids if isinstance(ids, list) and all(type(token) is int for token in ids) else None


def said_logprobs(choice: dict[str, Any]) -> list[Any]:
    """Log-probabilities of what was said, in OpenAI's form or in llama.cpp's; nothing where there are none."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return []
    if isinstance(content := logprobs.get("content"), list):
        return [part.get("logprob") if isinstance(part, dict) else None for part in content]
    found = logprobs.get("token_logprobs")
    return found if isinstance(found, list) else []


def _echoed(choice: dict[str, Any]) -> list[Any] | None:
    logprobs = choice.get("logprobs")
    found = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    return found if isinstance(found, list) else None


def _of_prompt(choice: dict[str, Any], ids: Sequence[int]) -> list[Any] | None:
    """As vLLM tells them: of each place a few tokens by id, the one that stands there among them."""
    places = choice.get("prompt_logprobs")
    if not isinstance(places, list) or len(places) != len(ids):
        return None
    there = [
        place.get(str(token)) if isinstance(place, dict) else None for place, token in zip(places, ids, strict=True)
    ]
    return [told.get("logprob") if isinstance(told, dict) else None for told in there]


def _is_logprob(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value <= _ROUNDING
