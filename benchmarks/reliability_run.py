"""A short run that something befalls, in a process of its own, and what it leaves: for the sections that kill it or plant faults in it.

Processes are forked from one that has imported everything (multiprocessing's forkserver), so that one costs a second or two. A run
is SFT of a tiny model with dropout: checkpoints at every second step, audits at steps that differ from them, a drift budget, and
TensorBoard. Nothing in it depends on time, so that two runs that nothing befalls leave the same record, figure for figure.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from math import isclose
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import environment  # noqa: F401  (no network, no account: before anything reads it)
import torch
from runs import guard, sft
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_tokenizer

from alignguard import DriftBudget, Schedule
from alignguard.model.checkpoints import latest_checkpoint
from alignguard.records.record import read_record

STEPS = 8
AUDITS = (1, 4, 5)  # one at a checkpoint, one beside; beside these the start and the last step
BUDGET = DriftBudget(max_kl=0.05, every=2)
_CONFIG = {
    "max_steps": STEPS,
    "learning_rate": 1e-3,
    "report_to": ["tensorboard"],
    "save_strategy": "steps",
    "save_steps": 2,
    "lr_scheduler_type": "constant",
}
_OF_TIME = ("time", "cost/")  # what two runs differ in anyway
_PATIENCE = 240.0  # seconds for a run that takes two


@dataclass(frozen=True)
class Left:
    """
    What a process of a run left.

    Args:
        code (`int`):
            Its exit code; -9 of one that was killed, 1 of one that raised.
        said (`str`):
            All that it printed and logged.
        weights (`str`, *optional*):
            A hash of the final ones, of one that came to its end.
        error (`str`, *optional*):
            What it raised, as `Type: message`.
        told (`dict[str, Any]`, *optional*):
            What was told of it from inside.
    """

    code: int
    said: str
    weights: str = ""
    error: str = ""
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """What of ours is told to have failed, once for each time that it is told."""
        lines = [line.partition(" failed and training goes on") for line in self.said.splitlines()]
        return [before.partition("AlignGuard: ")[2] for before, told, _ in lines if told]

    @property
    def is_told_once(self) -> bool:
        """Whether something is told to have failed, and nothing twice."""
        return bool(self.failures) and len(set(self.failures)) == len(self.failures)


def lived(folder: Path, live: Callable[..., None], *given: Any) -> Left:
    """
    A process that lives in a folder until it ends or is ended.

    Args:
        folder (`Path`):
            Where it trains; what it says goes to `FOLDER.said`, and is added to what earlier ones said.
        live (`Callable`):
            Called as `live(folder, *given)`, in the process.
        given (`Any`):
            What can be sent there.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reliability_run"])
    # which Python 3.11's server looks for by this alone
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    said, told = folder.with_suffix(".said"), folder.with_suffix(".told")
    told.unlink(missing_ok=True)
    before = said.stat().st_size if said.exists() else 0
    process = context.Process(target=_process, args=(folder, live, given))
    process.start()
    process.join(_PATIENCE)
    if hung := process.is_alive():
        process.kill()
        process.join()
    text = said.read_bytes()[before:].decode("utf-8", "replace") if said.exists() else ""
    left = json.loads(told.read_text()) if told.exists() else {}
    if hung:
        left["error"] = f"it did not end within {_PATIENCE:g} s"
    return Left(process.exitcode or 0, text, **left)


def _process(folder: Path, live: Callable[..., None], given: Any) -> None:
    said = os.open(folder.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which what is started in the background ignores
    multiprocessing.set_start_method("fork", force=True)  # as in a script that somebody starts
    told: dict[str, Any] = {}
    try:
        live(folder, *given, told)
    except BaseException as error:
        told["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        outside = {key: value for key, value in told.items() if key not in ("weights", "error")}
        kept = {key: told[key] for key in ("weights", "error") if key in told}
        folder.with_suffix(".told").write_text(json.dumps({**kept, "told": outside}))


def trainer_of(
    folder: Path, watched: bool = True, callbacks: Any = (), config: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """The trainer of a run; `config` of its own and `settings` of ours replace what it has."""
    tokenizer = tiny_tokenizer()
    schedule = Schedule(at=AUDITS, every=0, draw=2)
    ours = {"schedule": schedule, "budget": BUDGET, "train_prompts": 2}
    given = [guard(**{**ours, **settings})] if watched else []
    return sft(
        tokenizer,
        folder,
        [*given, *callbacks],
        **{**_CONFIG, **(config or {})},
    )


def train(folder: Path, told: dict[str, Any]) -> None:
    """A run that goes on from its latest whole checkpoint, as the one who is told of a half-written one would have it."""
    trainer = trainer_of(folder)
    checkpoint = latest_checkpoint(folder, sys.maxsize)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    told["weights"] = weights(trainer.model)


def weights(model: Any) -> str:
    """A hash of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether the last step's checkpoint is there: transformers would take one more step from it, and people do not resume it."""
    checkpoint = latest_checkpoint(folder, sys.maxsize)
    return checkpoint is not None and checkpoint.name == f"checkpoint-{STEPS}"


def record_of(folder: Path) -> dict[str, Any]:
    """All that is on record of a run and does not depend on time: lines, verdict, the start's answers, and what TensorBoard has."""
    record = read_record(str(folder))
    names = ("audits.jsonl", "budget.jsonl", "pulses.jsonl")
    return {
        **{name: [_timeless(line) for line in record.store.lines(name)] for name in names},
        "verdict": record.verdict,
        "baseline": record.baseline,
        "answers": record.audits[-1].results,
        "tracker": tracker_of(folder),
    }


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in line.items() if not key.startswith(_OF_TIME)}
    if "metrics" in kept:
        kept["metrics"] = {
            k: v for k, v in kept["metrics"].items() if not k.removeprefix("alignguard/").startswith(_OF_TIME)
        }
    return kept


def tracker_of(folder: Path) -> dict[str, dict[str, list[float]]]:
    """What TensorBoard has of ours: by figure and step the different values that stand there."""
    found: dict[str, dict[str, list[float]]] = {}
    for path in sorted((folder / "runs").rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            if name.startswith("alignguard/") and not name.removeprefix("alignguard/").startswith(_OF_TIME):
                for event in events.Scalars(name):
                    values = found.setdefault(name, {}).setdefault(str(event.step), [])
                    if not any(_is_same(event.value, value) for value in values):
                        values.append(event.value)
    return found


def differs(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """In which parts two records differ, by more than rounding: a run that was resumed reads the same answers in other batches."""
    return [name for name in expected if not _is_same(found.get(name), expected[name])]


def _is_same(one: Any, other: Any) -> bool:
    if is_dataclass(one) and is_dataclass(other):
        return type(one) is type(other) and _is_same(vars(one), vars(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=1e-5, abs_tol=1e-6) or (one != one and other != other)
    return bool(one == other)
