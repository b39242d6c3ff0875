"""Mistakes a user can mend. The message is one line that says where, what was found, and what would be right."""

from .text import in_a_line


class AlignGuardError(ValueError):
    """
    The root of all errors that AlignGuard raises on purpose; all but a few of them before training begins.

    What was found is others' text (a file's line, a library's message), so the message is made one line that can be shown.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(in_a_line(str(message)))


class ProbeError(AlignGuardError):
    """A probe, a probe file or the name of one is wrong."""


class RunError(AlignGuardError):
    """The record of a run cannot be written, or belongs to another run."""


class StartError(AlignGuardError):
    """The frozen start cannot be had, or cannot be proven to be the start."""


class EngineError(AlignGuardError):
    """A served model cannot be asked, or what its server says cannot be read."""


def one_line(error: object, most: int = 160) -> str:
    """What an error says, in one line of at most so many characters: libraries write paragraphs."""
    line = in_a_line(str(error))
    shown = (c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
    return "".join(shown)[:most]
