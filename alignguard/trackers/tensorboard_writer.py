"""TensorBoard: scalars, and texts as they stand."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..auditing.audit import Audit
from ..verdicts.verdict import Verdict


class TensorBoardWriter:
    """A `SummaryWriter`: the trainer's own, or one beside it. Written to after it was closed, it opens a new file."""

    name = "TensorBoard"

    def __init__(self, writer: Any) -> None:
        self.writer, self.step = writer, 0

    def begin(self, about: dict[str, Any]) -> None:
        self.writer.add_text("alignguard/about", _as_it_stands(json.dumps(about, indent=1)))
        self.writer.flush()

    def log(self, audit: Audit, history: Sequence[Audit], verdict: Verdict) -> None:
        self.step = audit.step
        for name, value in audit.metrics.items():
            self.writer.add_scalar(name, value, audit.step)
        self.writer.flush()

    def keep(self, step: int, figures: Path, report: Path) -> None:
        """It has no place for files."""

    def pulse(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def alert(self, name: str, title: str, text: str, bare: str) -> None:
        # its files lie in output_dir/runs, which push_to_hub uploads
        self.writer.add_text(f"alignguard/{name}", _as_it_stands(bare), self.step)
        self.writer.flush()

    def end(self) -> None:
        self.writer.close()


def trainers_writer(args: Any, reporter: Any = None) -> Any:
    """
    The writer of the trainer's callback where that is known, else one of our own.

    A second event file in the trainer's folder would end TensorBoard's live reading of the first: it goes on to the newest.
    A folder `alignguard` inside is a run of its own, shown beside it.
    """
    writer = getattr(reporter, "tb_writer", None)
    if writer is not None:
        return writer
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        from tensorboardX import SummaryWriter
    return SummaryWriter(log_dir=str(_trainers_folder(args) / "alignguard"))


def _trainers_folder(args: Any) -> Path:
    """Where the trainer's callback writes: as it was told, or where the newest event file below output_dir/runs is."""
    told = os.environ.get("TENSORBOARD_LOGGING_DIR")
    if told is not None:
        return Path(told).expanduser()
    runs = Path(args.output_dir) / "runs"
    files = [path for path in runs.rglob("events.out.tfevents.*") if path.parent.name != "alignguard"]
    return max(files, key=lambda path: path.stat().st_mtime).parent if files else runs


def _as_it_stands(text: str) -> str:
    """TensorBoard reads Markdown; an indented block is shown as it is, images and links of a model's answer too."""
    return "".join(f"    {line}\n" for line in text.splitlines())
