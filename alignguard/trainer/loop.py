"""What a trainer tells no callback, read off its loop as it stands on the stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def training_loop() -> Mapping[str, Any]:
    """
    The names of the loop that has called us, `self` and `resume_from_checkpoint` among them; empty where none has.

    Unsloth puts a loop of its own in the place of transformers', of the same source: `_fast_inner_training_loop`.
    """
    frame: Any = sys._getframe()
    while frame is not None and not frame.f_code.co_name.endswith("_inner_training_loop"):
        frame = frame.f_back
    return frame.f_locals if frame is not None else {}
