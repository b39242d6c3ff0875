"""What a signal's handler raises in the middle of an audit is no failure of the audit: whoever set it wants training to end."""

from __future__ import annotations

import signal
from types import CodeType, FrameType, TracebackType

# by these libraries set time limits of their own, and leave their handlers behind
_TIMERS = {getattr(signal, name, None) for name in ("SIGALRM", "SIGVTALRM", "SIGPROF")}


def raised_by_signal(error: BaseException) -> BaseException | None:
    """
    What a Python handler of a signal has raised, where it led to this error; `None` where none did.

    Args:
        error (`BaseException`):
            As it was caught; on its way it may have become another one's cause or context.
    """
    handlers = set(filter(None, map(_code, signal.valid_signals() - _TIMERS)))
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
        if trace.tb_frame.f_code in handlers and _is_called_as_one(trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _is_called_as_one(frame: FrameType) -> bool:
    """Whether it was given the frame that was interrupted: a decorator's code is that of all that it decorates."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + bool(code.co_flags & 0x04)]  # and *args (inspect.CO_VARARGS)
    given = [frame.f_locals.get(name) for name in names]
    return any(isinstance(value, FrameType) or (isinstance(value, tuple) and _holds_frame(value)) for value in given)


def _holds_frame(values: tuple[object, ...]) -> bool:
    return any(isinstance(value, FrameType) for value in values)
