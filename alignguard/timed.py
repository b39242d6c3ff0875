"""How long others' code may take: scorers, judges and trackers are called where training waits for them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any, TypeVar

from .errors import AlignGuardError

T = TypeVar("T")
_AGAIN = 5.0  # seconds for what was late before, or twice what it took when it was not
_REPEAT = 1.0  # seconds: libraries that catch whatever they can are interrupted until they let go


class LateError(AlignGuardError):
    """Something took longer than it may."""


class _Interruption(BaseException):
    """No `Exception`: what is retried on every failure would be retried."""


class Patience:
    """How long each may take: one that was late gets little time, until it answers in time again."""

    def __init__(self) -> None:
        self._late: set[str] = set()
        self._took: dict[str, float] = {}  # the longest, in seconds

    def call(self, name: str, seconds: float, do: Callable[[], T]) -> T:
        """
        What a call gives.

        Args:
            name (`str`):
                Of what is called.
            seconds (`float`):
                That it may take; infinity for what is no other's.
            do (`Callable[[], T]`):
                The call.

        Raises:
            LateError: It takes longer, and was interrupted.
        """
        if seconds == inf:
            return do()
        late = name in self._late
        allowed = min(seconds, max(_AGAIN, 2 * self._took.get(name, 0.0))) if late else seconds
        begun = time.monotonic()
        try:
            found = _limited(allowed, do)
        except _Interruption:
            self._late.add(name)
            raise LateError(f"it took longer than {allowed:.3g} s, and was interrupted") from None
        self._took[name] = max(self._took.get(name, 0.0), time.monotonic() - begun)
        self._late.discard(name)
        return found


def _limited(seconds: float, do: Callable[[], T]) -> T:
    """
    What a call gives that is interrupted where it takes longer, by an alarm: it runs in the thread that it would run in anyway, so
    that nothing it knows by its thread is missing. An alarm can be set in the main thread alone, and not on Windows; elsewhere there
    is no limit. An alarm of the user's own goes off when it would have.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return do()
    over = False

    def interrupt(number: int, frame: Any) -> None:
        if not over:  # it may have been on its way when the call came back
            raise _Interruption

    begun, theirs = time.monotonic(), signal.getsignal(signal.SIGALRM)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    if (
        theirs is None or 0 < left <= seconds
    ):  # one that Python cannot put back; or it comes first, and is theirs to end this
        return do()
    signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT)
            return do()
        finally:
            over = True  # where it comes just before this, the outer one puts everything back
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, theirs)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - begun)), interval)
