"""
What a server can, found out before it is asked anything that counts: which model, in how many tokens, as token ids or as text, and
whether its log-probabilities of a prompt are those that it generates by. A figure is right, or it is said that it cannot be had.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ..errors import EngineError
from .chat import Chat
from .endpoint import Endpoint, RefusedError
from .served import ECHO, PROMPT_LOGPROBS, Served, said_logprobs, told_ids

_TRIAL = "Wie heißt die Hauptstadt von Québec? Tell me in 3 words."  # letters that tokenizers cut differently
_TOKENS, _APART = 4, 0.25  # tokens that are read again, and nats that each may differ by: kernels of bf16 round
_WORDS, _HELD = (
    32,
    4,
)  # tokens that a text is held against, and those of them that it may end before: its end, and half a letter
_NAMES = 8  # of a server's models, in an error


def meet(
    endpoint: Endpoint, asked: str | None, model: str, chat: Chat, size: int, parallel: int, other: bool = False
) -> Served:
    """
    Find out how a served model is asked.

    Args:
        endpoint ([`Endpoint`]):
            The server.
        asked (`str`, *optional*):
            The model's name there; by default the only one it serves, or MODEL's own where it is MODEL.
        model (`str`):
            MODEL, whose tokenizer it is asked with.
        chat ([`Chat`]):
            How it is spoken to.
        size (`int`):
            Tokens that its config says it reads.
        parallel (`int`):
            Questions at once.
        other (`bool`, *optional*, defaults to `False`):
            Whether it is another than MODEL, which that is held against.

    Raises:
        EngineError: It cannot be asked; the message says what would be right.
    """
    if not chat.eos_token_ids:
        raise EngineError(
            f"{model}: its tokenizer has no token that ends an answer, so that nothing tells when one has ended"
        )
    name, size, owner = _model(endpoint, asked, None if other else model, size)
    served = Served(endpoint, name, chat, size, owner, parallel)
    trial = chat.prompt_ids([{"role": "user", "content": _TRIAL}])
    choice = _first_words(served, trial)
    served.server = endpoint.shown(f"{owner} {_version(endpoint) or served.fingerprint}".strip() or endpoint.server, 60)
    _check_tokenizer(served, trial, model)
    _find_way(served, trial, tells_ids=told_ids(choice) is not None)
    if not served.tells_ids:
        served.check_tags()
        _check_text(served, trial)
    return served


def _model(endpoint: Endpoint, asked: str | None, called: str | None, size: int) -> tuple[str, int, str]:
    """The model's name there, by default what it is called elsewhere; how much it reads, and what serves it."""
    give = f"give {endpoint.option}-model"
    try:
        told = endpoint.get(f"{endpoint.url}/models")
    except RefusedError as error:
        if error.status in (401, 403):
            raise
        told = {}  # it does not tell what it serves; the first question will
    data = told.get("data")
    there = (
        {m["id"]: m for m in data if isinstance(m, dict) and isinstance(m.get("id"), str)}
        if isinstance(data, list)
        else {}
    )
    names = ", ".join(endpoint.shown(name, 80) for name in list(there)[:_NAMES])
    name = asked or (called if called in there or not there else next(iter(there)))
    if name is None:
        raise EngineError(f"{endpoint.url} does not tell what it serves; {give} the model's name there")
    if there and (name not in there or (asked is None and name != called and len(there) > 1)):
        several = "serves several models" + (f", and none is called {called}" if called else "")
        what = f"serves no {endpoint.shown(name, 80)!r}" if asked else several
        raise EngineError(f"{endpoint.url} {what}; {give} one of: {names}")
    about = there.get(name, {})
    meta = about.get("meta")
    sizes = [
        about.get("max_model_len"),
        meta.get("n_ctx") if isinstance(meta, dict) else None,
    ]  # vLLM's and SGLang's, llama.cpp's
    size = min([size, *(n for n in sizes if type(n) is int and n > 0)])
    owner = about.get("owned_by")
    return name, size, owner if isinstance(owner, str) else ""


def _version(endpoint: Endpoint) -> str:
    try:
        version = endpoint.get(f"{endpoint.root}/version").get("version")
    except EngineError:
        return ""
    return version if isinstance(version, str) else ""


def _extras(chat: Chat) -> dict[str, Any]:
    """
    What servers do of their own accord and a plain answer does not, which one or another of them knows; its tokens as they are, tags
    and end among them.
    """
    return {
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "repeat_penalty": 1.0,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "add_special_tokens": False,
        "return_token_ids": True,
        "stop_token_ids": list(chat.eos_token_ids),
        "cache_prompt": False,  # llama.cpp's answers depend on what it was asked before
    }


def _first_words(served: Served, trial: list[int]) -> dict[str, Any]:
    """The first question, in the ways that servers take one: with all that is wanted, with OpenAI's fields alone, as text."""
    refused: RefusedError | None = None
    for as_text in (False, True):
        for extras in (_extras(served.chat), {}):
            served.as_text, served.extras = as_text, extras
            try:
                choice = served.choice(trial, max_tokens=_TOKENS, temperature=0, top_p=1)
                served.tokens(choice, trial, _TOKENS)
                return choice
            except RefusedError as error:
                if error.status == 404:
                    raise EngineError(
                        f"{error}; is the model called {served.name!r} there ({served.endpoint.option}-model), and does the "
                        "address end in /v1?"
                    ) from None
                if error.status not in (400, 422):
                    raise
                refused = refused or error
    assert refused is not None
    raise refused


def _check_tokenizer(served: Served, trial: list[int], model: str) -> None:
    """
    Whether the server's tokenizer reads a text as MODEL's does: with another one token ids would be other words.

    Raises:
        EngineError: It does not.
    """
    if served.as_text:
        return  # how many tokens it has read was seen
    text = served.chat.tokenizer.decode(trial, skip_special_tokens=False)
    body = {"model": served.name, "prompt": text, "max_tokens": 1, "temperature": 0, **served.extras}
    try:
        told = served.endpoint.post("/completions", body)
    except RefusedError:
        return  # it takes token ids alone
    choices, usage = told.get("choices"), told.get("usage")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    ids, read = choice.get("prompt_token_ids"), usage.get("prompt_tokens") if isinstance(usage, dict) else None
    same = (
        ids == trial if isinstance(ids, list) else not isinstance(read, int) or read - len(trial) in (0, 1)
    )  # 1: a first token
    if served.chat.encode(text) == trial and not same:
        raise EngineError(
            f"{served.endpoint.url} reads text as other tokens than {model}'s tokenizer does: give as MODEL the model that it serves"
        )


def _check_text(served: Served, trial: list[int]) -> None:
    """
    Whether a text is all that was said, by the number of tokens that the server counts. Of those that repeat a tokenizer makes fewer, and
    of others now and then.

    Raises:
        EngineError: It lacks most of it.
    """
    choice = served.choice(trial, max_tokens=_WORDS, temperature=0, top_p=1)
    text, usage = str(choice.get("text")), choice["usage"]
    said, counted = len(served.chat.encode(text)), usage.get("completion_tokens") if isinstance(usage, dict) else None
    repeated = sum(one == other for one, other in pairwise(text))
    if type(counted) is int and counted > 2 * (said + repeated) + _HELD:
        raise EngineError(
            f"{served.endpoint.url} counts {counted:,} tokens, and its text has {said:,}: it leaves out some of what is said, a trace or "
            "special tokens; start it without a reasoning parser, or ask a server that tells token ids, as vLLM does"
        )
    served.tokens(choice, trial, _WORDS)


def _find_way(served: Served, trial: list[int], tells_ids: bool) -> None:
    """
    How it gives log-probabilities of a prompt, if it does: what it has said is read again, and must be as likely as it was while it
    was said.
    """
    try:
        choice = served.choice(trial, max_tokens=_TOKENS, temperature=0, top_p=1, logprobs=1)
    except RefusedError:
        choice = {}
    own = said_logprobs(choice)
    served.wants_logprobs = not tells_ids and told_ids(choice) is not None
    served.tells_ids = tells_ids or served.wants_logprobs
    said = served.tokens(choice, trial, _TOKENS)[: len(own)] if own else []
    if not said or len(own) != len(said) or not all(isinstance(value, (int, float)) for value in own):
        served.why_not = "the server gives no log-probabilities that could be checked"
        return
    for way in (ECHO, PROMPT_LOGPROBS):
        try:
            again = served.read([*trial, *said], way)[len(trial) :]
        except EngineError:
            continue
        if all(abs(a - b) <= _APART for a, b in zip(own, again, strict=True)):
            served.way = way
            return
        served.why_not = "the server's log-probabilities of a prompt are not those that it generates by"
    served.why_not = served.why_not or "the server gives no log-probabilities of a prompt"
