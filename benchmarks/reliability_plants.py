"""The faults of section `faults`, one by one: what befalls a run, what must be told of it, and which audits are on record."""

from __future__ import annotations

import signal

import reliability_run as runs
from reliability_fault import EARLY, Fault
from reliability_planting import (
    at,
    checkpoints_gone,
    clock_back,
    dying_worker,
    evaluates,
    exits,
    fails,
    filled,
    folder_in_its_place,
    gone,
    hangs,
    moved,
    noise,
    noting,
    on_a_disk,
    raise_preempted,
    raising,
    says_only,
    scores,
    short,
    signalled,
    slow_trackers,
    some_infinite,
    swapped,
    two_runs,
    writer_gone,
)

from alignguard.auditing import audit as audit_module
from alignguard.holding.holder import Holder
from alignguard.trackers.tensorboard_writer import TensorBoardWriter

_FAILED = ("the audit",)
_NO_NUMBERS = "the policy's likelihoods are no finite numbers"
_RAISES = fails(RuntimeError("no GPU"))
FAULTS: dict[str, Fault] = {
    "a tracker raises": Fault(
        "trackers",
        lambda folder: swapped(TensorBoardWriter, "log", fails(ConnectionError("refused"))),
        ("TensorBoard",),
    ),
    "a tracker hangs": Fault("trackers", slow_trackers, ("TensorBoard",), ("took longer than 0.5 s",)),
    "a tracker vanishes": Fault("trackers", writer_gone, ("TensorBoard",)),
    "a tracker's folder vanishes": Fault("trackers", lambda folder: at(gone(folder, "runs")), audits=EARLY, felt=True),
    "a scorer raises": scores(_RAISES),
    "a scorer hangs": scores(hangs),
    "a scorer gives NaN": scores(lambda texts: [float("nan")] * len(texts)),
    "a scorer gives None": scores(lambda texts: None),
    "a scorer gives a text": scores(lambda texts: "toxic"),
    "a scorer gives too few": scores(lambda texts: [0.1] * (len(texts) - 1)),
    "a scorer gives too much": scores(lambda texts: [7.0] * len(texts)),
    "a judge raises": scores(_RAISES, judge=True),
    "a judge hangs": scores(hangs, judge=True),
    "a judge gives NaN": scores(lambda prompt, answer: float("nan"), judge=True),
    "memory runs out once while answers are generated": short(audit_module, "speak", times=1),
    "memory runs out while answers are generated": short(audit_module, "speak", _FAILED, EARLY),
    "memory runs out once while drift is measured": short(audit_module, "measure_drift", times=1),
    "memory runs out while drift is measured": short(audit_module, "measure_drift", _FAILED, EARLY),
    "memory runs out while choices are read": short(audit_module, "weigh", _FAILED, EARLY),
    "memory runs out while reverse drift is measured": short(audit_module, "measure_reverse", _FAILED, EARLY),
    "memory runs out while scores are gathered": short(audit_module, "gather", _FAILED, EARLY),
    "memory runs out in the drift budget": short(Holder, "step", ("the drift budget",), budget=runs.BUDGET),
    "weights are NaN": moved(filled(float("nan")), says=(_NO_NUMBERS,)),
    "weights are infinite": moved(some_infinite, says=(_NO_NUMBERS,)),
    "weights are zero": moved(filled(0.0)),
    "a policy says nothing but its end": moved(says_only(20.0)),
    "a policy never ends": moved(says_only(5.0)),
    "SIGINT in an audit": signalled(signal.SIGINT, audits=EARLY),
    "SIGTERM in an audit": signalled(signal.SIGTERM, audits=EARLY),
    "SIGTERM whose handler exits": signalled(signal.SIGTERM, exits, audits=EARLY),
    "SIGUSR1 whose handler raises": signalled(signal.SIGUSR1, raise_preempted, audits=EARLY),
    "SIGUSR1 whose handler asks for the end": signalled(signal.SIGUSR1, noting, audits=(0, 1, 4)),
    "the clock goes back a day": Fault("callbacks and data", clock_back, felt=True),
    "a callback changes the weights": Fault(
        "callbacks and data", lambda folder: at(noise, 4, "on_step_end"), felt=True
    ),
    "a callback raises": Fault(
        "callbacks and data",
        lambda folder: at(raising(KeyError("theirs")), 4, "on_step_end"),
        audits=(0, 1, 4),
        felt=True,
    ),
    "a callback evaluates": Fault("callbacks and data", evaluates, felt=True),
    "a data loader's worker dies": Fault("callbacks and data", dying_worker, audits=None, felt=True),
    "checkpoints are deleted": Fault("callbacks and data", checkpoints_gone, felt=True),
    "the disk is full for three steps": Fault(
        "disk", lambda folder: on_a_disk(folder, "full"), ("the store", "the report"), mounts=True
    ),
    "the disk is read-only for three steps": Fault(
        "disk", lambda folder: on_a_disk(folder, "read-only"), ("the store", "the report"), mounts=True
    ),
    "the record's folder vanishes": Fault(
        "disk", lambda folder: at(gone(folder, "alignguard")), ("the store",), unreadable="no record is in it"
    ),
    "another process writes there": Fault("disk", two_runs, refused="is being written by another run"),
    "a folder stands in a file's place": Fault(
        "disk", lambda folder: at(folder_in_its_place(folder)), ("the store",), unreadable="is a folder"
    ),
}
