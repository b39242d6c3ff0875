"""A long run for the section `long`, in a process of its own: reliability_long_run.py DIR AUDITS TRACKERS (JSON).

A tiny model is audited after every step. At every tenth of the run DIR/marks.jsonl gets a line: what the process holds, what is on
disk, and what audits have taken since the line before, as a whole and part by part.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

for helpers in (Path(__file__).parents[1] / "tests" / "helpers", Path(__file__).parents[1]):
    sys.path.insert(0, str(helpers))

import environment  # noqa: E402, F401
from planted import slow  # noqa: E402
from reports import MANY  # noqa: E402
from runs import guard  # noqa: E402
from tiny import tiny_tokenizer  # noqa: E402

from alignguard import Schedule  # noqa: E402
from alignguard.trainer.console import Console  # noqa: E402
from alignguard.trainer.run import Run  # noqa: E402

DRAW = 12
SECONDS: Counter[str] = Counter()  # of the processor, in audits, by who took them: others may be at work on the machine
KEPT = {
    "audits.jsonl": "alignguard/audits.jsonl",
    "answers": "_alignguard/answers",
    "report": "_alignguard/report.html",
}
KEPT |= {"TensorBoard": "runs", "W&B": "../wandb", "MLflow": "../mlruns", "Trackio": "../trackio"}


def main(folder: Path, audits: int, trackers: list[str]) -> None:
    """Train, and keep what it takes."""
    _time("an audit", Run, "audit", lambda *_: True)
    _time("", Console, "guarded", lambda what, *_: what in (*KEPT, "the store", "the report"))
    ours = guard(probes=MANY, schedule=Schedule(at=(), every=1, draw=DRAW), train_prompts=4, reverse=4)
    every = max(1, audits // 10)
    ours.on_step_end = _marked(ours.on_step_end, folder, every)  # type: ignore[method-assign]
    settings = {"report_to": trackers, "run_name": "long", "lr_scheduler_type": "constant", "logging_steps": every}
    slow(tiny_tokenizer(), folder / "run", [ours], max_steps=audits, learning_rate=1e-5, **settings).train()


def _time(name: str, owner: Any, method: str, counted: Any) -> None:
    """Count the seconds of a method under a name, or under its first argument."""
    of = getattr(owner, method)

    @wraps(of)
    def timed(self: Any, *arguments: Any, **options: Any) -> Any:
        begun, clock = time.process_time(), time.perf_counter()
        try:
            return of(self, *arguments, **options)
        finally:
            if counted(*arguments):
                SECONDS[name or arguments[0]] += time.process_time() - begun
            if name:
                SECONDS["on the clock"] += time.perf_counter() - clock

    setattr(owner, method, timed)


def _marked(on_step_end: Any, folder: Path, every: int) -> Any:
    @wraps(on_step_end)
    def marked(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        on_step_end(args, state, control, **kwargs)
        if state.global_step % every == 0:
            with open(folder / "marks.jsonl", "a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"audits": state.global_step, **_held(), **_kept(folder / "run"), **SECONDS}) + "\n"
                )

    return marked


def _held() -> dict[str, float]:
    """What this process holds, and what it has written so far, with the processes that it started."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "written": sum(map(_written, _family(os.getpid()))) / 2**20,
    }


def _family(process: int) -> list[int]:
    found = [process]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found += _family(int(path.parent.name))
    return found


def _written(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/io").read_text().split("wchar: ")[1].split()[0])
    except OSError:
        return 0


def _kept(run: Path) -> dict[str, float]:
    """What is on disk, in MiB."""
    found = {}
    for name, where in KEPT.items():
        path = run / where
        files = path.rglob("*") if path.is_dir() else [path]
        found[f"size of {name}"] = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
