"""Section `long` of `reliability.py`: hundreds of audits in one process, and what grows with them.

What a process holds stays as it was once it has warmed up, an audit takes as long as one before it, and what is on disk grows by as
much with each audit; the report alone, which is written anew each time, takes as much longer as it has more to show. A row is a quantity, looked at in every tenth of the run: *lost* counts the looks at which it was more than
planned. Seconds are the processor's, since others may be at work on the machine. The report of all audits is opened in a browser.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

from reliability_browser import browser
from reliability_found import Found, row

TRACKERS = [name for name in ("wandb", "trackio", "tensorboard", "mlflow") if find_spec(name)]
_HELD = {"memory": 0.25, "open files": 0.0, "threads": 0.0}  # what may be added with an audit: its scores are kept
_SLOWER, _LARGER = 1.5, 1.5  # than in the second tenth of the run, before which it warms up
_FIRST_SCREEN = 1.0  # seconds
# until what is seen without scrolling has been drawn
_DRAWN = """
const done = arguments[0];
new PerformanceObserver(list => done(Math.max(...list.getEntries().map(e => e.startTime))))
  .observe({type: 'largest-contentful-paint', buffered: true});
"""


def run(quick: bool) -> Found:
    """Five hundred audits; `quick`: forty."""
    with tempfile.TemporaryDirectory() as folder:
        marks = long_run(Path(folder), 40 if quick else 500)
        with browser() as driver:
            drawn = first_screen(driver, Path(folder) / "run" / "_alignguard" / "report.html") if driver else None
    return judge(marks, drawn)


def long_run(folder: Path, audits: int, trackers: list[str] = TRACKERS) -> list[dict[str, Any]]:
    """A run of so many audits, and its marks."""
    environment = {
        **os.environ,
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb-data"),
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    script = Path(__file__).with_name("reliability_long_run.py")
    command = [sys.executable, str(script), str(folder), str(audits), json.dumps(trackers)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the run of {audits} audits ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in (folder / "marks.jsonl").read_text("utf-8").splitlines()]


def first_screen(driver: Any, report: Path) -> float:
    """Seconds until what is seen first of a report has been drawn; the median of five times."""
    taken = []
    for _ in range(5):
        driver.get(report.as_uri())
        taken.append(driver.execute_async_script(_DRAWN) / 1000)
    return median(taken)


def judge(marks: list[dict[str, Any]], drawn: float | None) -> Found:
    """
    What grew, and what should not have.

    Args:
        marks (`list[dict[str, Any]]`):
            Of a run, in its order.
        drawn (`float`, *optional*):
            Seconds until the first screen of its report was drawn.
    """
    rows, wrong = [], []
    audits = marks[-1]["audits"]

    def tell(what: str, right: list[bool], why: str) -> None:
        rows.append(row(what, audits, len(right), right.count(False), right.count(True)))
        if not right[-1]:  # before that it may be a hiccup of the machine
            wrong.append(why)

    for name, allowed in _HELD.items():
        held = [mark[name] for mark in marks[1:]]
        most = [held[0] + allowed * (mark["audits"] - marks[1]["audits"]) for mark in marks[1:]]
        told = f"{name}: {held[0]:,.0f} after {marks[1]['audits']} audits, {held[-1]:,.0f} after {audits}"
        tell(told + " (MiB)" * (name == "memory"), [h <= m for h, m in zip(held, most, strict=True)], told)
    ratios = {}
    for name in ("an audit", *sorted(key for key in marks[-1] if _is_part(key))):
        seconds = _each(marks, name)
        ratios[name] = seconds[-1] / seconds[0]
        told = f"seconds of {name}: {seconds[0]:.3f}, in the last tenth {seconds[-1]:.3f}"
        more = [mark["audits"] / marks[1]["audits"] if name == "the report" else 1.0 for mark in marks[1:]]
        tell(told, [s <= _SLOWER * seconds[0] * m + 0.002 for s, m in zip(seconds, more, strict=True)], told)
    written = [mib - mark["size of report"] for mib, mark in zip(_each(marks, "written"), marks[1:], strict=True)]
    told = f"written beside the report, MiB an audit: {written[0]:.2f}, in the last tenth {written[-1]:.2f}"
    tell(told, [w <= _LARGER * written[0] for w in written], told)
    for name in sorted(key for key in marks[-1] if key.startswith("size of ") and marks[-1][key]):
        sizes = [mark[name] / mark["audits"] for mark in marks[1:]]
        told = f"{name}: {marks[-1][name]:.1f} MiB, {sizes[0]:.3f} an audit after {marks[1]['audits']}, {sizes[-1]:.3f} after {audits}"
        tell(told, [size <= _LARGER * sizes[0] for size in sizes], told)
    if drawn is not None:
        told = f"report: first screen after {drawn:.2f} s"
        tell(told, [drawn <= _FIRST_SCREEN], told)
    return Found(
        rows,
        {
            "long_audits": audits,
            "long_memory_growth_mib": round(marks[-1]["memory"] - marks[1]["memory"], 1),
            "long_open_files_growth": marks[-1]["open files"] - marks[1]["open files"],
            "long_threads_growth": marks[-1]["threads"] - marks[1]["threads"],
            "long_seconds": round(mean(_each(marks, "on the clock")), 3),
            "long_seconds_ratio": round(ratios["an audit"], 3),
            "long_report_seconds_ratio": round(ratios["the report"], 3),
            "long_written_mib": round(written[-1], 3),
            "long_report_mib": round(marks[-1]["size of report"], 2),
            "long_first_screen_s": None if drawn is None else round(drawn, 3),
        },
        wrong,
    )


def _is_part(key: str) -> bool:
    return key in ("the store", "the report", "W&B", "MLflow", "Trackio", "TensorBoard")


def _each(marks: list[dict[str, Any]], name: str) -> list[float]:
    """By how much a figure grew with an audit, in each tenth of the run from the second on."""
    pairs = itertools.pairwise(marks)
    return [(after[name] - before[name]) / (after["audits"] - before["audits"]) for before, after in pairs]
