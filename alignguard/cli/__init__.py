"""The command line: what AlignGuard does without a trainer. Each command is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from ..errors import AlignGuardError, one_line
from .options import parser
from .said import settle_output, tell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    settle_output()
    options = parser().parse_args(arguments)
    try:
        return import_module(f".{options.command}", __name__).run(options) or 0
    except AlignGuardError as error:
        return _mistake(str(error))
    except OSError as error:
        return _mistake(
            f"{error.filename}: {error.strerror}" if error.filename else str(error)
        )  # pyarrow's tell it all
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which need not be imported for this
            raise
        line = one_line(error, 120)
        return _mistake(
            f"--device {options.device} has too little memory ({line}); try --dtype bfloat16, or --device cpu"
        )
    except KeyboardInterrupt:
        return _mistake("interrupted", 130)


def _mistake(text: str, code: int = 1) -> int:
    tell(text)
    return code
