"""Section `kills` of `reliability.py`: processes killed at random moments, files cut, disks full; and what a resumed run ends with.

A killed run is resumed from its latest whole checkpoint, twice killed on the way, and must end with the record, the verdict, the
tracker's figures and the weights of one that nothing befell, to the bit. A moment is a number of Python calls: drawn evenly among our
own, or among all in training; or it is one of those at which something is half-written. Two things are transformers' own: a finished
run that is resumed takes one more step, so none is; and a half-written checkpoint cannot be resumed, of which AlignGuard tells,
with the one to take instead.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reliability_run as runs
from reliability_found import Found, row
from tqdm.auto import tqdm
from transformers import Trainer

from alignguard import files
from alignguard.model.checkpoints import checkpoints, latest_checkpoint, what_is_cut_off

KILLS, CUTS, FULL = 60, 40, 27
_ON_DISK = ("alignguard", "_alignguard")
# what a stack tells of the moment, the innermost first
_STAGES = {
    "files.py": "while a file is written",
    "results.py": "while a file is written",
    "store.py": "while the record is written",
    "html.py": "while the report is written",
    "tensorboard_writer.py": "while a tracker is told",
    "generation.py": "while answers are generated",
    "judged.py": "while answers are judged",
    "drifts.py": "while drift is measured",
    "likelihoods.py": "while likelihoods are read",
    "holder.py": "in the drift budget's step",
    "audit.py": "elsewhere in an audit",
    "run.py": "elsewhere in an audit",
    "resume.py": "while a run is taken up",
    "start.py": "while a run begins",
    "callback.py": "elsewhere in our hooks",
}


def run(quick: bool) -> Found:
    """Kill, cut and fill; `quick`: a few of each."""
    share = 10 if quick else 1
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        whole, calls = _never_killed(home / "whole")
        found = [
            _killed(home, whole, calls, KILLS // share),
            _cut(home, whole, CUTS // share),
            _full(home, whole, FULL // share),
        ]
    figures = {key: value for part in found for key, value in part.figures.items()}
    return Found([r for part in found for r in part.rows], figures, [line for part in found for line in part.wrong])


def _never_killed(folder: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    """What a run leaves that nothing befell, with its weights; and how many calls it made, ours and all."""
    left = runs.lived(folder, _train, "count", 0)
    if left.code:
        raise RuntimeError(f"a run that nothing befell ended with {left.error}: {left.said[-2000:]}")
    return {**runs.record_of(folder), "weights": left.weights}, (left.told["ours"], left.told["all"])


# killed --------------------------------------------------------------------------------------------------------------


def _killed(home: Path, whole: dict[str, Any], calls: tuple[int, int], count: int) -> Found:
    chance, moments = random.Random(0), Counter[str]()
    lost: Counter[str] = Counter()
    told, half, wrong, number = 0, 0, [], 0
    plans = _plans(chance, calls)
    bar = tqdm(total=count, desc="kills", unit="kill")
    while moments.total() < count:
        folder, here = home / f"killed{number}", []
        number += 1
        for _ in range(2):  # killed, and killed again when it was resumed
            left = runs.lived(folder, _train, *next(plans))
            if left.code != -signal.SIGKILL:
                break
            here.append((folder / "moment").read_text())
            cut = [path for path in checkpoints(folder).values() if what_is_cut_off(path)]
            if runs.is_finished(folder):
                break
            if cut and cut[-1] == [*checkpoints(folder).values()][-1]:
                half += 1
                said = runs.lived(folder, _told_of).told["said"]
                told += str(latest_checkpoint(folder, sys.maxsize) or "none before it") in said
        moments.update(here)
        bar.update(len(here))
        if not runs.is_finished(folder):
            left = runs.lived(folder, runs.train)
        missing = runs.differs(_left(folder, left), whole)
        if left.failures or (left.code and not runs.is_finished(folder)):
            missing.append(f"{left.error} {left.failures}")
        if missing:
            lost.update(here)
            wrong.append(f"killed {' and '.join(here)}: {', '.join(missing)} ({folder.name})")
        else:
            shutil.rmtree(folder)
    bar.close()
    if told < half:
        wrong.append(f"of {half} half-written checkpoints {half - told} were not told of")
    rows = [row(f"killed {name}", n, n, lost[name], n - lost[name]) for name, n in sorted(moments.items())]
    rows.append(row("checkpoint half-written", half, told, 0, told))
    return Found(rows, {"killed": moments.total(), "lost": lost.total()}, wrong)


def _plans(chance: random.Random, calls: tuple[int, int]) -> Any:
    """Moments without end: of three, two are drawn by calls, one is where something is half-written."""
    while True:
        yield "ours", chance.randrange(calls[0])
        yield "all", chance.randrange(calls[1])
        yield chance.choice(("line", "replace", "checkpoint", "step")), chance.randrange(8)


def _left(folder: Path, left: runs.Left) -> dict[str, Any]:
    """What stands there in the end; of a run that was killed after its last checkpoint the weights are that one's."""
    try:
        found = runs.record_of(folder)
    except Exception as error:
        return {"error": str(error)}
    return found | {"weights": left.weights or runs.lived(folder, _weights_of).weights}


def _weights_of(folder: Path, told: dict[str, Any]) -> None:
    trainer = runs.trainer_of(folder.with_name("weights"), watched=False)
    trainer._load_from_checkpoint(str(latest_checkpoint(folder, sys.maxsize)))
    told["weights"] = runs.weights(trainer.model)


def _told_of(folder: Path, told: dict[str, Any]) -> None:
    """What is said when the trainer is made, before anybody resumes."""
    import logging

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("alignguard").addHandler(handler)
    runs.trainer_of(folder)
    told["said"] = "\n".join(line for line in said if "half-written" in line)


def _train(folder: Path, where: str, number: int, told: dict[str, Any]) -> None:
    """A run that kills itself at a moment."""
    _arm(folder, where, number, told)
    runs.train(folder, told)
    sys.setprofile(None)


def _arm(folder: Path, where: str, number: int, told: dict[str, Any]) -> None:
    here = str(Path(files.__file__).parent)
    counts = {"ours": 0, "all": 0}
    told.update(counts)

    def die(moment: str) -> None:
        (folder.mkdir(exist_ok=True), (folder / "moment").write_text(moment))
        os.kill(os.getpid(), signal.SIGKILL)

    def count(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            ours = frame.f_code.co_filename.startswith(here)
            told["all"] += 1
            told["ours"] += ours
            if where in counts and told[where] > number and (ours or where == "all"):
                sys.setprofile(None)
                die(_moment(frame, here))

    def halfway(do: Callable[..., Any], moment: str, first: Callable[..., None]) -> Callable[..., Any]:
        left = [number]

        def done(*given: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                first(*given)
                die(moment)
            return do(*given, **options)

        return done

    if where == "line":
        write = os.write
        files.os.write = halfway(write, "while a line is written", lambda fd, data: write(fd, data[: len(data) // 2]))  # type: ignore[attr-defined]
    elif where == "replace":
        files.os.replace = halfway(os.replace, "before a file has its name", lambda *given: None)  # type: ignore[attr-defined]
    elif where == "checkpoint":
        save = Trainer._save_optimizer_and_scheduler
        Trainer._save_optimizer_and_scheduler = halfway(save, "while a checkpoint is written", lambda *given: None)  # type: ignore[method-assign]
    elif where == "step":
        step = Trainer.training_step
        Trainer.training_step = halfway(step, "in training", lambda *given: None)  # type: ignore[method-assign]
    else:
        sys.setprofile(count)


def _moment(frame: Any, here: str) -> str:
    """What was going on, from the stack."""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(here) and (stage := _STAGES.get(Path(path).name)):
            return stage
        if frame.f_code.co_name == "_save_checkpoint":
            return "while a checkpoint is written"
        if frame.f_code.co_name == "_inner_training_loop":
            return "in training"
        frame = frame.f_back
    return "elsewhere"


# cut -----------------------------------------------------------------------------------------------------------------


def _cut(home: Path, whole: dict[str, Any], count: int) -> Found:
    """A loss of power: a file of the record ends somewhere. The run goes on as if it had not, or says what it lacks, before step 1."""
    stopped = home / "stopped"
    runs.lived(stopped, _train_until, 6)
    chance = random.Random(1)
    paths = [
        path
        for name in _ON_DISK
        for path in sorted((stopped / name).rglob("*"))
        if path.is_file() and path.stat().st_size
    ]
    rows: dict[str, list[int]] = {}
    wrong = []
    for number in tqdm(range(count), desc="cuts", unit="run"):
        path = paths[number % len(paths)].relative_to(stopped)
        folder = home / f"cut{number}"
        shutil.copytree(stopped, folder)
        size = (folder / path).stat().st_size
        os.truncate(folder / path, chance.randrange(size))
        left = runs.lived(folder, runs.train)
        lacks = runs.differs(_left(folder, left), whole) if not left.code else []
        refused = left.code != 0 and left.error.startswith(("RunError: ", "StartError: ")) and path.name in left.error
        said = "not on record" in left.said or "cut off in the writing" in left.said or "cannot be read" in left.said
        tally = rows.setdefault(path.name if "step_" not in path.name else "answers of a step", [0, 0, 0, 0])
        tally[0] += 1
        tally[1] += refused or said or not lacks
        tally[2] += bool(lacks)
        tally[3] += not lacks and not left.code
        if left.code and not refused:
            wrong.append(f"{path} cut: {left.error[:300]} ({folder.name})")
        elif lacks and not said:
            wrong.append(f"{path} cut: {', '.join(lacks)} differ, and nothing is said ({folder.name})")
        shutil.rmtree(folder)
    told = [row(f"cut: {name}", *tally) for name, tally in sorted(rows.items())]
    return Found(told, {"cut": count, "cut_silently": len(wrong)}, wrong)


def _train_until(folder: Path, step: int, told: dict[str, Any]) -> None:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                os._exit(0)  # as a job that is out of time

    runs.trainer_of(folder, callbacks=[Stop()]).train()


# full ----------------------------------------------------------------------------------------------------------------


def _full(home: Path, whole: dict[str, Any], count: int) -> Found:
    """A disk that is full at the n-th write of ours, and free again after a few; training goes on, and nothing is missing."""
    seen = recovered = lost = 0
    wrong = []
    for number in tqdm(range(0, FULL, FULL // count), desc="full disks", unit="run"):
        folder = home / f"full{number}"
        left = runs.lived(folder, _train_on_full_disk, number)
        if left.told.get("opened", 0) <= number:
            wrong.append(f"there is no write {number}")
            continue
        lacks = runs.differs(_left(folder, left), whole) if not left.code else [left.error]
        seen += left.is_told_once
        lost += bool(lacks)
        recovered += not lacks
        if lacks or not left.is_told_once:
            wrong.append(f"a full disk at write {number}: {', '.join(lacks)}; told of {left.failures} ({folder.name})")
        shutil.rmtree(folder, ignore_errors=not lacks)
    return Found([row("disk full at a write", seen + len(wrong), seen, lost, recovered)], {}, wrong)


def _train_on_full_disk(folder: Path, number: int, told: dict[str, Any]) -> None:
    """From the n-th opening to write in our folders on three fail, in the middle of training."""
    homes = tuple(str(folder / name) for name in _ON_DISK)
    opened = [0]
    begun = [False]

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event != "open" or not begun[0] or not isinstance(given[0], (str, os.PathLike)):
            return
        path, _, flags = given
        if str(path).startswith(homes) and (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            opened[0] += 1
            if number < opened[0] <= number + 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    from transformers import TrainerCallback

    class Begin(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            begun[0] = True

    sys.addaudithook(hook)
    trainer = runs.trainer_of(folder, callbacks=[Begin()])
    trainer.train()
    told["opened"] = opened[0]
    told["weights"] = runs.weights(trainer.model)
