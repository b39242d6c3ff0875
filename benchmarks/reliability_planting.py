"""How the faults of section `faults` are planted: when the second step begins, unless they say otherwise."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from reliability_fault import ALL, Fault
from runs import toxicity
from tiny import tiny_probes
from transformers import TrainerCallback

from alignguard import timed
from alignguard.auditing import audit as audit_module
from alignguard.records.store import Store
from alignguard.trackers.tensorboard_writer import TensorBoardWriter
from alignguard.trainer import shown


class At(TrainerCallback):
    """Does something when a step begins, or at the end of one, before our callback or after it."""

    def __init__(self, do: Callable[..., Any], step: int = 1, hook: str = "on_step_begin") -> None:
        self._do, self._step, self._hook, self.trainer = do, step, hook, None

    def trainer_is(self, trainer: Any) -> None:
        self.trainer = trainer

    def _reached(self, hook: str, state: Any, control: Any, model: Any) -> None:
        if hook == self._hook and state.global_step == self._step:
            self._do(model=model, trainer=self.trainer, control=control)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._reached("on_step_begin", state, control, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._reached("on_step_end", state, control, model)


def at(do: Callable[..., Any], step: int = 1, hook: str = "on_step_begin", **settings: Any) -> dict[str, Any]:
    """What the trainer is given: a callback that does it, and settings of ours."""
    return {"callbacks": [At(do, step, hook)], **settings}


def swapped(owner: Any, name: str, by: Callable[..., Any], **settings: Any) -> dict[str, Any]:
    """From the second step on something of a module, or a class, is something else."""
    return at(lambda **now: setattr(owner, name, by), **settings)


def fails(error: Exception, times: int = 10**9, then: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Raises so many times, and then does what it is for."""
    left = [times]

    def fail(*given: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0 or then is None:
            raise error
        return then(*given, **options)

    return fail


def hangs(*given: Any, **options: Any) -> None:
    """Comes back in an hour."""
    time.sleep(3600)


class Scorer:
    """A scorer, or with `judge` a judge, that is right until the second step, and then gives something else."""

    seconds = 1.0

    def __init__(self, then: Callable[..., Any], judge: bool = False) -> None:
        self.then, self.judge, self.broken = then, judge, False

    def __call__(self, *given: Any) -> Any:
        if self.broken:
            return self.then(*given)
        return 0.9 if self.judge else toxicity(*given)

    def settings(self) -> dict[str, Any]:
        def breaks(**now: Any) -> None:
            self.broken = True

        if not self.judge:
            return at(breaks, toxicity=self)
        own = [replace(probe, judge="own") if probe.dimension == "toxicity" else probe for probe in tiny_probes()]
        return at(breaks, judge=self, probes=own)


def scores(then: Callable[..., Any], judge: bool = False) -> Fault:
    plant = lambda folder: Scorer(then, judge).settings()  # noqa: E731
    return Fault("scorers", plant, ("a scorer",), unscored="toxicity")


def short(
    owner: Any,
    name: str,
    told: tuple[str, ...] = (),
    audits: tuple[int, ...] = ALL,
    times: int = 10**9,
    **settings: Any,
) -> Fault:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    plant = lambda folder: swapped(owner, name, fails(error, times, getattr(owner, name)), **settings)  # noqa: E731
    return Fault("memory", plant, told, audits=audits)


def moved(change: Callable[[Any], None], **expected: Any) -> Fault:
    """Something becomes of the policy's weights at the second step."""

    def move(model: Any, **now: Any) -> None:
        with torch.no_grad():
            change(model)

    return Fault("weights", lambda folder: at(move), felt=True, **expected)


def signalled(number: int, handler: Any = None, **expected: Any) -> Fault:
    """A signal comes in the middle of the audit of the fourth step; without us, at the end of that step."""

    def plant(folder: Path) -> dict[str, Any]:
        if handler is not None:
            signal.signal(number, handler)
        inner, armed = audit_module.measure_drift, []

        def interrupted(*given: Any, **options: Any) -> Any:
            if armed:
                armed.clear()
                os.kill(os.getpid(), number)
            return inner(*given, **options)

        def arm(**now: Any) -> None:
            audit_module.measure_drift = interrupted
            armed.append(number)

        def send(trainer: Any, control: Any, **now: Any) -> None:
            if armed:  # nobody has audited
                armed.clear()
                os.kill(os.getpid(), number)
            control.should_training_stop |= bool(STOP)

        return {"callbacks": [At(arm, 3), At(send, 4, "on_step_end")]}

    return Fault("signals", plant, felt=True, **expected)


class Preempted(Exception):
    """What a handler raises that wants training to end."""


STOP: list[int] = []


def raise_preempted(number: int, frame: Any) -> None:
    raise Preempted("the node goes")


def exits(number: int, frame: Any) -> None:
    raise SystemExit(3)


def noting(number: int, frame: Any) -> None:
    STOP.append(number)


def filled(value: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for weight in model.parameters():
            weight.fill_(value)

    return change


def some_infinite(model: Any) -> None:
    model.get_input_embeddings().weight[7:9] = float("inf")


def says_only(ends: float) -> Callable[[Any], None]:
    """Weights with which the end's likelihood alone tells what is said: over the others' 10 it is all that is said, else never."""

    def change(model: Any) -> None:
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.norm.weight.zero_()
        model.model.norm.weight[0] = 5.0
        model.get_output_embeddings().weight[:, 0] = 10.0
        model.get_output_embeddings().weight[model.config.eos_token_id, 0] = ends

    return change


def noise(model: Any, **now: Any) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.linspace(-0.01, 0.01, weight.numel()).view_as(weight))


def raising(error: BaseException) -> Callable[..., Any]:
    def do(**now: Any) -> None:
        raise error

    return do


def dying_worker(folder: Path) -> dict[str, Any]:
    """A data loader's worker dies at its fourth batch."""
    from torch.utils.data import get_worker_info
    from torch.utils.data._utils.fetch import _MapDatasetFetcher

    fetch, fetched = _MapDatasetFetcher.fetch, []

    def dies(self: Any, index: Any) -> Any:
        fetched.append(index)
        if get_worker_info() is not None and len(fetched) > 3:
            os._exit(7)
        return fetch(self, index)

    _MapDatasetFetcher.fetch = dies
    return {"config": {"dataloader_num_workers": 1}}


def gone(folder: Path, name: str) -> Callable[..., Any]:
    return lambda **now: shutil.rmtree(folder / name)


def folder_in_its_place(folder: Path) -> Callable[..., Any]:
    def do(**now: Any) -> None:
        path = folder / "alignguard" / "audits.jsonl"
        path.unlink()
        path.mkdir()

    return do


def on_a_disk(folder: Path, then: str) -> dict[str, Any]:
    """The record is on a disk of its own, which becomes full, or can only be read; a later step ends that."""
    home = folder / "_alignguard"
    home.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)], check=True)

    def full(**now: Any) -> None:
        with contextlib.suppress(OSError), (home / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def read_only(**now: Any) -> None:
        subprocess.run(["mount", "--bind", str(home), str(home)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(home)], check=True)

    def again(**now: Any) -> None:
        if then == "read-only":
            subprocess.run(["umount", "-l", str(home)], check=True)
        (home / "filler").unlink(missing_ok=True)

    return {"callbacks": [At({"full": full, "read-only": read_only}[then], 2), At(again, 5)]}


def slow_trackers(folder: Path) -> dict[str, Any]:
    shown._SECONDS = 0.5
    timed._AGAIN = 0.2
    return swapped(TensorBoardWriter, "log", hangs)


def writer_gone(folder: Path) -> dict[str, Any]:
    def do(trainer: Any, **now: Any) -> None:
        for callback in trainer.callback_handler.callbacks:
            if (run := getattr(callback, "run", None)) is not None and hasattr(run, "shown"):
                for tracker in run.shown.tracker.trackers:
                    tracker.writer = None

    return at(do)


def clock_back(folder: Path) -> dict[str, Any]:
    now_is = time.time
    return swapped(time, "time", lambda: now_is() - 86_400)


def evaluates(folder: Path) -> dict[str, Any]:
    return at(lambda trainer, **now: trainer.evaluate(trainer.train_dataset), 4, "on_step_end")


def checkpoints_gone(folder: Path) -> dict[str, Any]:
    def do(**now: Any) -> None:
        for path in folder.glob("checkpoint-*"):
            shutil.rmtree(path)

    return at(do, 7)


def two_runs(folder: Path) -> dict[str, Any]:
    """Another process writes the record already."""
    store = Store.of_run(folder)
    store.prepare()
    script = "import sys; from alignguard.records.store import Store; s = Store.of_run(sys.argv[1]); s.hold(); print(1, flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline()
    atexit.register(other.kill)
    return {}
