"""What a tracker's server could not be sent waits here, and goes before what comes next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_PATIENCE = 20  # times what a failure took


@dataclass
class Outbox:
    """
    What is to be sent, by name, in its order: what is put there under a name that still waits takes its place.

    What fails stays, and all behind it; it is sent again at the next call, so it must bear to arrive twice. Clients try again
    by themselves, for minutes, and training waits for them: after a failure nothing is tried before twenty times as long has passed,
    so that a server that is away takes a twentieth of the run's time at most.
    """

    waiting: dict[str, Callable[[], Any]] = field(default_factory=dict)
    not_before: float = 0.0  # on the clock

    def send(self) -> bool:
        """
        Send all that waits, and tell whether all was sent.

        Raises:
            Exception: What came of the first that failed.
        """
        begun = time.monotonic()
        if begun < self.not_before:
            return False
        try:
            while self.waiting:
                name = next(iter(self.waiting))
                self.waiting[name]()
                del self.waiting[name]
        except BaseException:  # one that was interrupted took as long
            self.not_before = time.monotonic() + _PATIENCE * (time.monotonic() - begun)
            raise
        return True
