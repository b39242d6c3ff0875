"""What a signal's handler raises in the middle of an audit is no failure of the audit: whoever set it wants training to end."""

from __future__ import annotations

import signal
from types import CodeType, TracebackType


def raised_by_signal(error: BaseException) -> BaseException | None:
    """
    What a Python handler of a signal has raised, where it led to this error; `None` where none did.

    Args:
        error (`BaseException`):
            As it was caught; on its way it may have become another one's cause or context.
    """
    handlers = set(filter(None, map(_code, signal.valid_signals())))
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if _passes(found.__traceback__, handlers):
            return found
        found = found.__cause__ or found.__context__
    return None


def _code(number: int) -> CodeType | None:
    handler = signal.getsignal(number)
    return getattr(getattr(handler, "__func__", handler), "__code__", None)


def _passes(trace: TracebackType | None, handlers: set[CodeType]) -> bool:
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False
