"""The command line: what AlignGuard does without a trainer.

alignguard audit runs/sft --reference Qwen/Qwen2.5-1.5B-Instruct     one model held against another
alignguard compare runs/a runs/b --html compare.html                 training runs over one another
alignguard report runs/sft                                           a run's report, from what is on disk
alignguard probes list | show | check                                what is asked
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from ..__about__ import __version__
from ..errors import AlignGuardError
from . import audit, compare, probes, report

_EXIT_CODES = """exit codes: 0 fine, 1 a mistake (told in one line), 2 wrong options, 3 a regression
`alignguard COMMAND --help` has the options of a command, and examples"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(
        "alignguard", description=__doc__, epilog=_EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (audit, compare, report, probes):
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except AlignGuardError as error:
        return _mistake(str(error))
    except torch.OutOfMemoryError as error:
        line = " ".join(str(error).split())[:120]
        return _mistake(
            f"--device {options.device} has too little memory ({line}); try --dtype bfloat16, or --device cpu"
        )
    except OSError as error:
        return _mistake(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _mistake("interrupted", 130)


def _mistake(text: str, code: int = 1) -> int:
    print(f"alignguard: {text}", file=sys.stderr)
    return code
