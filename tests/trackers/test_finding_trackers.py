"""Which trackers a run has, and what becomes of one that fails, has closed or cannot be reached."""

import logging
import os
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import transformers.integrations.integration_utils as integrations
from runs import Losses, guard, lines, sft
from tracker_records import failures
from transformers import TrainerCallback

import alignguard.trainer.shown as shown_module
from alignguard import Schedule
from alignguard.trackers.base import Trackers
from alignguard.trackers.find import find_trackers


class Fake:
    """A tracker that remembers, or fails."""

    def __init__(self, name, broken=False):
        self.name, self.broken, self.seen = name, broken, []

    def _do(self, what):
        self.seen.append(what)
        if self.broken:
            raise OSError("quota\nexceeded")

    def begin(self, about):
        self._do("begin")

    def log(self, audit, history, verdict):
        assert history[-1] is audit and verdict.step == audit.step
        self._do(audit.step)

    def keep(self, step, figures, report):
        assert self.seen[-1] == step and (figures / "audits.jsonl").exists() and report.exists()

    def alert(self, name, title, text, bare):
        self._do(title)

    def end(self):
        self._do("end")


def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(tokenizer, tmp_path, monkeypatch, caplog):
    broken, well = Fake("Broken", broken=True), Fake("Well")
    monkeypatch.setattr(shown_module, "find_trackers", lambda *args: [broken, well])
    trainer = sft(tokenizer, tmp_path, [guard()])
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        trainer.train()
    assert trainer.state.global_step == 4
    assert failures(caplog.text) == ["Broken failed and training goes on (OSError: quota exceeded)"]
    assert broken.seen == well.seen == ["begin", 0, 2, 4, "end"]


def test_trackers_that_cannot_be_found_end_nothing(tokenizer, tmp_path, monkeypatch, caplog):
    def fail(*args):
        raise ImportError("no such thing")

    monkeypatch.setattr(shown_module, "find_trackers", fail)
    trainer = sft(tokenizer, tmp_path, [guard()])
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        trainer.train()
    assert trainer.state.global_step == 4
    assert failures(caplog.text) == ["the tracker failed and training goes on (ImportError: no such thing)"]


def test_a_tracker_that_has_no_run_even_then_is_told_of_once(tokenizer, tmp_path, caplog):
    """Its callback was taken out, say: three trackers that are asked for, and none that opens a run."""
    asked = [name for name in ("wandb", "trackio", "mlflow") if find_spec(name)]
    trainer = sft(tokenizer, tmp_path, [guard(schedule=Schedule(at=(1, 2, 3), every=0, draw=2))])
    trainer.args.report_to = asked
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        trainer.train()
    told = [message for message in caplog.messages if "run yet" in message]
    called = sorted({"wandb": "W&B", "trackio": "Trackio", "mlflow": "MLflow"}[name] for name in asked)
    assert told == [
        f"AlignGuard: {name} has no run yet, and gets nothing; put AlignGuardCallback after its callback"
        for name in called
    ]
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3, 4] and not failures(caplog.text)


def test_none_is_the_null_object():
    nothing = Trackers()
    nothing.begin({})
    nothing.log(None, [], None)
    nothing.alert("regression", "title", "text", "bare")
    nothing.end()


def test_wandb_absent_or_disabled(tokenizer, tmp_path, caplog):
    import wandb

    assert (
        wandb.run is None and find_trackers(SimpleNamespace(report_to=["wandb"], run_name=None, output_dir="x")) == []
    )
    assert os.environ["WANDB_MODE"] == "disabled"
    try:
        with caplog.at_level(logging.WARNING, logger="alignguard"):
            sft(tokenizer, tmp_path, [guard()], report_to=["wandb"]).train()
        assert wandb.run is not None and not failures(caplog.text)
    finally:
        wandb.finish()
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4]


class Elsewhere(TrainerCallback):
    """A tracker that has no adapter of its own."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        control.should_log = False  # as the trainer's own log leads to
        self.seen.append((state.global_step, dict(logs)))


class Deaf(TrainerCallback):
    """A reporter that takes no figures."""


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.setitem(integrations.INTEGRATION_TO_CALLBACK, "elsewhere", Elsewhere)
    monkeypatch.setitem(integrations.INTEGRATION_TO_CALLBACK, "deaf", Deaf)
    return {"report_to": ["elsewhere", "deaf"]}


def fed(trainer):
    (reporter,) = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Elsewhere)]
    ours = [(step, logs) for step, logs in reporter.seen if "alignguard/kl/raw" in logs]
    return ours, [logs["loss"] for _, logs in reporter.seen if "loss" in logs]


@pytest.mark.parametrize("attach", ["list", "add"])
def test_any_other_tracker_is_fed_through_the_trainer(tokenizer, tmp_path, elsewhere, caplog, attach):
    plain = Losses()
    sft(tokenizer, tmp_path / "alone", [plain]).train()
    trainer = sft(tokenizer, tmp_path / "watched", [guard()] if attach == "list" else [], **elsewhere)
    if attach == "add":
        trainer.add_callback(guard(trainer))
    trainer.train()
    ours, losses = fed(trainer)
    assert ours == [(line["step"], line["metrics"]) for line in lines(tmp_path / "watched")] and len(ours) == 3
    assert losses == [log["loss"] for log in plain.logs if "loss" in log] and len(losses) == 4
    assert "not fed" not in caplog.text


def test_a_callback_that_goes_to_a_second_trainer_feeds_the_trackers_of_that_one(tokenizer, tmp_path, elsewhere):
    """Of the same model: the first trainer's got the second's figures, at its own last step."""
    first = sft(tokenizer, tmp_path / "first", **elsewhere)
    shared = guard(first)
    first.add_callback(shared)
    first.train()
    before = fed(first)[0]
    second = sft(tokenizer, tmp_path / "second", model=first.model, **elsewhere)
    second.add_callback(shared)
    second.train()
    assert fed(first)[0] == before
    assert fed(second)[0] == [(line["step"], line["metrics"]) for line in lines(tmp_path / "second")]
    assert [step for step, _ in fed(second)[0]] == [0, 2, 4]


def test_where_no_trainer_is_known_it_is_said_which_tracker_is_not_fed(elsewhere, caplog):
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        assert find_trackers(SimpleNamespace(output_dir="x", **elsewhere)) == []
    assert caplog.messages == [
        "AlignGuard: elsewhere is not fed; trainer.add_callback(AlignGuardCallback(trainer)) in place of "
        "callbacks=[AlignGuardCallback()] feeds it"
    ]


def test_a_tracker_without_an_adapter_gets_nothing_once_it_has_closed(tokenizer, tmp_path, elsewhere, caplog):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    trainer = sft(tokenizer, tmp_path, **elsewhere)
    trainer.add_callback(guard(trainer, schedule=Schedule(at=(2,), every=0, draw=2)))
    trainer.add_callback(Stop())
    trainer.train()
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 3]
    assert [step for step, _ in fed(trainer)[0]] == [0, 2]
    assert "AlignGuard: elsewhere had closed before the last audit, at step 3: it is not there" in caplog.text
