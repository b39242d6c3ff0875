"""
A server that speaks HTTP and JSON: asked within limits, again where that may help, and every failure told in one line. What it
answers was written by others: bounded in size, checked, and printed without control characters.
"""

from __future__ import annotations

import json
import os
import time
from email.message import Message
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from ..errors import EngineError

KEY = "OPENAI_API_KEY"
_TIMEOUT = 600.0  # seconds without a byte: an answer comes whole, after those that it waits for
_MOST = 32 * 2**20  # bytes of an answer
_TRIES = 6
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before the second try, doubled for each after it; and at most
_BUSY = (429, 500, 502, 503, 504)
_LOCAL = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_SHOWN = 300  # characters of what a server says


class RefusedError(EngineError):
    """The server has answered, and refuses; `status` is HTTP's."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would take what is asked, and a key, to an address that nobody named."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Endpoint:
    """
    Where a model is served.

    Args:
        url (`str`):
            E.g. `http://localhost:8000/v1`.
        key_env (`str`, *optional*):
            The environment variable that holds its key. By default `OPENAI_API_KEY`, which is sent over https and to this machine
            alone: in plain text nothing goes to others that they were not meant to have.
        option (`str`, *optional*, defaults to `"--engine"`):
            The option that it was given by, for messages; its model and its key have options of the same beginning.

    Raises:
        EngineError: The address is none, or there is no such variable.
    """

    def __init__(self, url: str, key_env: str | None = None, option: str = "--engine") -> None:
        (scheme, host, _), parts, self.option = host_of(url, option), urlsplit(url), option
        if parts.username or parts.password or parts.query or parts.fragment:
            raise EngineError(
                f"{option}: an address without a password and without ? or # is expected, since it goes on record; a key is read "
                f"from {KEY}, or from the variable that {option}-key-env names"
            )
        self.root, self.path = f"{scheme}://{parts.netloc}", parts.path.rstrip("/")
        self.url = self.root + self.path
        self.server = ""  # as it calls itself in its headers
        local = host == _LOCAL[0]
        self._key = _key(key_env, scheme == "https" or local, option)
        # of this machine no proxy knows anything
        self._opener = build_opener(_NoRedirects, *([ProxyHandler({})] if local else []))
        self._reached = False

    def get(self, url: str) -> dict[str, Any]:
        """What the server says under an address of its own."""
        return self._ask(Request(url, headers=self._headers()))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """
        What it answers to a question.

        Raises:
            RefusedError: It refuses.
            EngineError: It cannot be reached, or what it says cannot be read.
        """
        return self._ask(Request(self.url + path, json.dumps(body).encode(), self._headers()))

    def _headers(self) -> dict[str, str]:
        known = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "alignguard"}
        return known | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    def _ask(self, request: Request) -> dict[str, Any]:
        for number in range(1, _TRIES + 1):
            pause = min(_LONGEST_PAUSE, _PAUSE * 2 ** (number - 1))
            try:
                with self._opener.open(request, timeout=_TIMEOUT) as answer:
                    self._reached = True
                    self.server = self.shown(answer.headers.get("Server") or "", 60)
                    return self._read(answer.read(_MOST + 1), answer.headers)
            except HTTPError as error:
                self._reached = True
                with error:
                    told = self._refusal(error)
                if error.code not in _BUSY or number == _TRIES:
                    raise told from None
                pause = _pause(error.headers, pause)
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                again = isinstance(reason, (ConnectionError, HTTPException)) and self._reached
                if not again or number == _TRIES:
                    raise self._unreachable(reason) from None
            time.sleep(pause)
        raise AssertionError("the last try ends in an answer or in an error")

    def _read(self, body: bytes, headers: Message) -> dict[str, Any]:
        if len(body) > _MOST:
            raise EngineError(f"{self.url} answers with more than {_MOST >> 20} MiB; is it a server of models?")
        try:
            told = json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError):  # also of bytes that are no text
            what = "a web page" if _is_page(body, headers) else "no JSON"
            raise EngineError(
                f"{self.url} answers with {what} ({self.shown(_text(body), 60)}); give the address that ends in /v1"
            ) from None
        if not isinstance(told, dict):
            raise EngineError(f"{self.url} answers with a {type(told).__name__}, where a JSON object is expected")
        return told

    def _refusal(self, error: HTTPError) -> RefusedError:
        try:
            body = error.read(_MOST)
        except (OSError, HTTPException):
            body = b""
        said = "a web page" if _is_page(body, error.headers) else self.shown(_message(body))
        why = f"{self.url} answers {error.code}" + (f" ({said})" if said else "")
        if error.code in (401, 403):
            key = f"the key is that of {self._named}" if self._key else "no key was sent"
            why += f"; {key}: set {KEY}, or name another variable by {self.option}-key-env"
        elif error.code == 400 and any(word in said.lower() for word in ("context", "max_model_len")):
            why += "; start it with a longer context (vllm serve --max-model-len N), or lower --trace-tokens"
        elif 300 <= error.code < 400:
            why += f"; it points to another address, which is not followed: give {self.option} that address itself"
        elif error.code in _BUSY:
            why += f", {_TRIES} times; is the server overloaded? --engine-parallel asks less of it at once"
        return RefusedError(why, error.code)

    @property
    def _named(self) -> str:
        return f"{self.option}-key-env" if self._key != os.environ.get(KEY) else KEY

    def _unreachable(self, reason: object) -> EngineError:
        if isinstance(reason, TimeoutError):
            return EngineError(f"{self.url} has not answered within {_TIMEOUT:.0f} seconds")
        if isinstance(reason, ConnectionRefusedError) and not self._reached:
            return EngineError(
                f"{self.url}: nothing listens there; start the server first, e.g. vllm serve MODEL --port "
                f"{urlsplit(self.url).port or 80}"
            )
        what = "was there, and cannot be reached any more" if self._reached else "cannot be reached"
        return EngineError(f"{self.url} {what} ({self.shown(str(reason), 160)})")

    def shown(self, text: str, most: int = _SHOWN) -> str:
        """What a server says, in a line that can be printed: no control characters, and never the key."""
        text = text.replace(self._key, "...") if self._key else text
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:most]


def host_of(url: str, option: str) -> tuple[str, str, int]:
    """
    Who listens at an address, however that is written: scheme, name and port.

    Raises:
        EngineError: It is none; the message names the option that it was given by.
    """
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        name, port = "", 0
    if not name:
        raise EngineError(f"{option}: an address such as http://localhost:8000/v1 is expected")
    return parts.scheme, _LOCAL[0] if name in _LOCAL else name, port


def _key(name: str | None, trusted: bool, option: str) -> str:
    if name is not None and not os.environ.get(name):
        raise EngineError(
            f"{option}-key-env {name}: no such environment variable is set; it names one that holds the key"
        )
    key = os.environ.get(name, "") if name is not None else os.environ.get(KEY, "") if trusted else ""
    if not (key.isascii() and key.isprintable()):
        raise EngineError(f"{name or KEY} holds no key: line breaks and letters that no header can carry are in it")
    return key


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _pause(headers: Message, otherwise: float) -> float:
    """Seconds that a busy server asks to be left alone for, within reason."""
    try:
        return min(_LONGEST_PAUSE, max(0.0, float(headers.get("Retry-After") or otherwise)))
    except ValueError:
        return otherwise


def _is_page(body: bytes, headers: Message) -> bool:
    return headers.get_content_type() == "text/html" or body.lstrip()[:1] == b"<"


def _text(body: bytes) -> str:
    return body[:1000].decode("utf-8", "replace")


def _message(body: bytes) -> str:
    """What an error says, wherever a server puts it."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return _text(body)
    for name in ("error", "message", "detail", "msg"):
        if isinstance(told, dict) and told.get(name):
            told = told[name]
    return told if isinstance(told, str) else _text(body)
