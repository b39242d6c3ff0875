"""A run that reports to a server, for the section `servers`, in a process of its own: reliability_servers_run.py DIR OPTIONS (JSON).

Before the steps that are named it says so (DIR/at_STEP) and waits until it may go on (DIR/go_STEP), so that a server can be ended and
started in between. How it ended stands in DIR/ended.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

for helpers in (Path(__file__).parents[1] / "tests" / "helpers", Path(__file__).parents[1]):
    sys.path.insert(0, str(helpers))

import environment  # noqa: E402, F401
from planted import planted, slow  # noqa: E402
from runs import Losses  # noqa: E402
from tiny import tiny_tokenizer  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

LAST = 8


class Gates(TrainerCallback):
    """Waits before steps."""

    def __init__(self, folder: Path, steps: list[int]) -> None:
        self.folder, self.steps = folder, steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step + 1
        if step in self.steps:
            (self.folder / f"at_{step}").touch()
            while not (self.folder / f"go_{step}").exists():
                time.sleep(0.05)


def project(name: str) -> str:
    """A name, as Trackio names its database."""
    return "".join(c for c in name if c.isalnum())


def main(folder: Path, tracker: str, watched: bool, gates: list[int], name: str) -> None:
    """Toxicity regresses at the audit of step 3, and an alert tells of it; audits go on to the last step."""
    losses = Losses()
    ours = [planted(audits=3)] if watched else []
    trainer = slow(
        tiny_tokenizer(), folder / "run", [Gates(folder, gates), losses, *ours], report_to=[tracker], run_name="served",
        max_steps=LAST, lr_scheduler_type="constant", trackio_space_id=None, project=project(name),
    )  # fmt: skip
    begun, raised = time.perf_counter(), ""
    try:
        trainer.train()
    except Exception as error:
        raised = type(error).__name__
    told = {"steps": trainer.state.global_step, "raised": raised, "seconds": time.perf_counter() - begun}
    told["losses"] = [log["loss"] for log in losses.logs if "loss" in log]
    (folder / "ended.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
