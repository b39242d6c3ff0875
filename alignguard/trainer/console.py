"""What a run says, on one process only, and how what fails in it is told: after training has begun nothing of ours ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm.auto import tqdm

from ..distributed import LostProcess
from ..errors import RunError, one_line
from ..text import visible
from ..timed import Patience
from .signals import raised_by_signal

logger = logging.getLogger("alignguard")
T = TypeVar("T")


class Console:
    """
    A run's voice.

    Args:
        writes (`bool`):
            Whether this process speaks (rank 0).
        quiet (`bool`):
            Whether progress bars are off.
    """

    def __init__(self, writes: bool, quiet: bool) -> None:
        self.writes, self._bar_off = writes, quiet or not writes
        self._reported: set[str] = set()
        self._patience = Patience()

    def say(self, text: str) -> None:
        """Print, on one process only, without tearing a progress bar."""
        if self.writes:
            self.guarded("printing", lambda: tqdm.write(visible(text)))

    def guarded(self, what: str, do: Callable[[], T], seconds: float | None = None) -> T | None:
        """
        After training has begun nothing of ours ends it: a failure is reported once, in one line.

        Args:
            what (`str`):
                What is done, as it is told.
            do (`Callable[[], T]`):
                Does it.
            seconds (`float`, *optional*):
                How long it may take; others' code has no end that we know of.
        """
        try:
            return do() if seconds is None else self._patience.call(what, seconds, do)
        except LostProcess:
            raise  # a run that is out of step would hang at its next meeting
        except Exception as error:
            self.report_once(what, error)
            return None

    def report_once(self, what: str, error: Exception) -> None:
        """
        One line for the first failure of a kind.

        Raises:
            Exception: It is what a signal's handler has raised, which is meant for the trainer.
        """
        if (told := raised_by_signal(error)) is not None:
            raise told from None
        if what not in self._reported:
            self._reported.add(what)
            line = one_line(error, 300)
            level = logging.WARNING if self.writes or not isinstance(error, RunError) else logging.DEBUG
            logger.log(level, f"AlignGuard: {what} failed and training goes on ({type(error).__name__}: {line})")
            logger.debug("details", exc_info=error)

    def tell_once(self, what: str, text: str) -> None:
        """A warning, the first time that there is reason for it."""
        if self.writes and what not in self._reported:
            self._reported.add(what)
            logger.warning(f"AlignGuard: {text}")

    @contextmanager
    def bar(self, total: int, what: str) -> Iterator[Callable[[int], Any]]:
        """A progress bar; what is yielded moves it on."""
        if self._bar_off:  # one that is told to be silent still starts a thread that watches over bars
            yield lambda n: None
            return
        with tqdm(total=total, desc=what, leave=False) as bar:
            yield lambda n: bar.update(n) and None
