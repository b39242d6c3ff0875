"""A run that was killed, or whose disk failed, ends as one that was not; `make reliability` does this at many moments."""

import errno
import json
import logging
import os
import shutil
import signal

import pytest
from runs import guard, lines, sft
from transformers import TrainerCallback

from alignguard import AlignGuardCallback, RunError, Schedule, StopRule
from alignguard.model.checkpoints import half_written, latest_checkpoint, run_of, what_is_cut_off
from alignguard.records.record import read_record
from alignguard.records.store import Store
from alignguard.trainer import shown
from alignguard.trainer.signals import raised_by_signal

AT = Schedule(at=(1, 2, 3), every=0, draw=2)
SAVES = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}


class At(TrainerCallback):
    """Does something when a step begins."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.do()


def timeless(output_dir):
    return [
        {k: round(v, 5) for k, v in line["metrics"].items() if "cost/" not in k}
        | {"step": line["step"], **line["scores"]}
        for line in lines(output_dir)
    ]


def stopped_at_2(tokenizer, folder):
    """A run that ended after its checkpoint of step 2."""
    folder.mkdir(exist_ok=True)
    sft(tokenizer, folder, [guard(schedule=AT)], **{**SAVES, "max_steps": 2}).train()
    return folder


def resumed(tokenizer, folder):
    sft(tokenizer, folder, [guard(schedule=AT)], **SAVES).train(resume_from_checkpoint=str(folder / "checkpoint-2"))


@pytest.mark.slow
def test_what_is_lost_of_the_checkpoints_own_step_is_taken_again(tokenizer, tmp_path, capsys):
    whole, cut = stopped_at_2(tokenizer, tmp_path / "whole"), stopped_at_2(tokenizer, tmp_path / "cut")
    resumed(tokenizer, whole)
    path = cut / "alignguard" / "audits.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # the line of step 2, cut off in the writing
    capsys.readouterr()
    resumed(tokenizer, cut)
    assert timeless(cut) == timeless(whole) and [line["step"] for line in lines(cut)] == [0, 1, 2, 3, 4]
    told = capsys.readouterr().out
    assert "lines were cut off in the writing, and are dropped: audits.jsonl (1)" in told
    assert "not on record, though due before this run was resumed: audits of steps 2\n" in told


class Killed(TrainerCallback):
    """Ends a run as a signal would, at a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_checkpoint_of_an_earlier_run_is_not_resumed_into_the_record_of_another(tokenizer, tmp_path):
    """The latest checkpoint in output_dir is one of the run before: the one that is on record was killed before it saved any."""
    folder = stopped_at_2(tokenizer, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sft(tokenizer, folder, [guard(schedule=AT), Killed(2)], lr_scheduler_type="constant").train()
    record = (folder / "alignguard" / "audits.jsonl").read_bytes()
    told = (
        f"{folder / 'checkpoint-2'} is of another run than the record in {folder / 'alignguard'}; that one has saved none: begin it anew, by "
        "train() without resume_from_checkpoint; or go on with the other run, whose record is alignguard.1: put it and _alignguard.1 in their place"
    )
    with pytest.raises(RunError) as raised:
        sft(tokenizer, folder, [guard(schedule=AT)], **SAVES).train(resume_from_checkpoint=True)
    assert str(raised.value) == told and (folder / "alignguard" / "audits.jsonl").read_bytes() == record
    for name in ("alignguard", "_alignguard"):  # as it says
        (folder / name).rename(folder / f"{name}.2")
        (folder / f"{name}.1").rename(folder / name)
    sft(tokenizer, folder, [guard(schedule=AT)], **SAVES).train(resume_from_checkpoint=True)
    assert [line["step"] for line in lines(folder)] == [0, 1, 2, 3, 4]


def test_where_the_run_on_record_has_saved_some_they_are_named(tokenizer, tmp_path):
    other = stopped_at_2(tokenizer, tmp_path / "other")
    folder = stopped_at_2(tokenizer, tmp_path / "own")
    shutil.copytree(other / "checkpoint-2", folder / "checkpoint-3")
    with pytest.raises(
        RunError, match=f"checkpoint-3 is of another run .* as resume_from_checkpoint='{folder}/checkpoint-2'$"
    ):
        sft(tokenizer, folder, [guard(schedule=AT)], **SAVES).train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    # of two records that are at hand the checkpoint's own is taken
    resumed = sft(tokenizer, other, [guard(schedule=AT)], **SAVES)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert [line["step"] for line in lines(other)] == [0, 1, 2, 3, 4] and not (other / "alignguard.1").exists()


@pytest.mark.parametrize("which", ["checkpoint", "record"])
def test_what_does_not_say_of_which_run_it_is_is_taken_and_told_of(tokenizer, tmp_path, capsys, which):
    """A checkpoint of an earlier version; or its record, which takes its checkpoint's name."""
    folder = stopped_at_2(tokenizer, tmp_path)
    state, about = folder / "checkpoint-2" / "trainer_state.json", folder / "alignguard" / "baseline.json"
    run = json.loads(about.read_text())["id"]
    assert json.loads(state.read_text())["stateful_callbacks"]["alignguard"]["attributes"] == {"run": run}
    path = {"checkpoint": state, "record": about}[which]
    told = json.loads(path.read_text())
    (told["stateful_callbacks"] if which == "checkpoint" else told).pop("alignguard" if which == "checkpoint" else "id")
    path.write_text(json.dumps(told))
    capsys.readouterr()
    resumed(tokenizer, folder)
    said = f"{folder / 'checkpoint-2'} does not say which run it is of"
    assert capsys.readouterr().out.count(said) == (1 if which == "checkpoint" else 0)
    assert json.loads(about.read_text())["id"] == run == run_of(folder / "checkpoint-4")
    assert latest_checkpoint(folder, 9) == folder / "checkpoint-4"
    assert [line["step"] for line in lines(folder)] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_what_is_lost_before_it_is_told_of(tokenizer, tmp_path, capsys):
    folder = stopped_at_2(tokenizer, tmp_path)
    path = folder / "alignguard" / "audits.jsonl"
    zero, one, two = path.read_text().splitlines()
    path.write_text(f"{zero}\n{one[:50]}\n{two}\n")
    resumed(tokenizer, folder)
    assert [line["step"] for line in lines(folder)] == [0, 2, 3, 4]
    assert "audits of steps 1\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline.parquet", "train_prompts.json", "baseline.json"])
def test_what_a_run_cannot_do_without_is_an_error_before_the_first_step(tokenizer, tmp_path, name):
    folder = stopped_at_2(tokenizer, tmp_path)
    (path,) = [path for path in folder.rglob(name) if "checkpoint" not in str(path)]
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(RunError, match=name):
        resumed(tokenizer, folder)


@pytest.mark.slow
def test_what_it_can_do_without_is_not(tokenizer, tmp_path, capsys):
    folder = stopped_at_2(tokenizer, tmp_path)
    os.truncate(folder / "_alignguard" / "answers" / "step_00002.parquet", 100)
    os.truncate(folder / "_alignguard" / "probes.jsonl", 100)
    resumed(tokenizer, folder)
    assert "the answers of the latest audit cannot be read, its figures stand" in capsys.readouterr().out
    assert [audit.step for audit in read_record(str(folder)).audits] == [0, 1, 2, 3, 4]


def test_a_disk_that_is_full_for_a_while_costs_nothing(tokenizer, tmp_path, monkeypatch, caplog, capsys):
    full, append = [], Store.append
    plain = tmp_path / "plain"
    sft(tokenizer, plain, [guard(schedule=AT)]).train()

    def refused(self, audit):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, audit)

    monkeypatch.setattr(Store, "append", refused)
    fill, empty = At(0, lambda: full.append(1)), At(2, full.clear)
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        sft(tokenizer, tmp_path / "full", [guard(schedule=AT), fill, empty]).train()
    assert [r.getMessage() for r in caplog.records if "store" in r.getMessage()] == [
        "AlignGuard: the store failed and training goes on (OSError: [Errno 28] No space left on device)"
    ]
    assert timeless(tmp_path / "full") == timeless(plain)
    assert "can be written again, and nothing is missing in it" in capsys.readouterr().out
    for step in (1, 2):  # with its answers
        assert (tmp_path / "full" / "_alignguard" / "answers" / f"step_{step:05d}.parquet").exists()


def test_a_disk_that_stays_full_is_told_of_at_the_end(tokenizer, tmp_path, monkeypatch, caplog):
    full, append = [], Store.append
    monkeypatch.setattr(Store, "append", lambda self, audit: 1 / 0 if full else append(self, audit))
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        sft(tokenizer, tmp_path, [guard(schedule=AT), At(2, lambda: full.append(1))]).train()
    assert "could not be written: audits of steps 3, 4 are not on record" in caplog.text


def test_a_half_written_checkpoint_is_told_of_with_the_one_to_take(tokenizer, tmp_path, caplog):
    sft(tokenizer, tmp_path, [], **SAVES).train()
    two, four = tmp_path / "checkpoint-2", tmp_path / "checkpoint-4"
    assert half_written(tmp_path) == "" and latest_checkpoint(tmp_path, 4) == four
    weights = four / "model.safetensors"
    kept = weights.read_bytes()
    for cut in (kept[:-1], kept[:30], kept[:3], b""):
        weights.write_bytes(cut)
        assert what_is_cut_off(four) == "a part of model.safetensors"
    weights.write_bytes(kept)
    state = (four / "trainer_state.json").read_text()
    (four / "trainer_state.json").write_text(state[:-5])
    assert what_is_cut_off(four) == "half of trainer_state.json"
    (four / "trainer_state.json").unlink()
    for make in (lambda: sft(tokenizer, tmp_path, [guard()]), lambda: AlignGuardCallback(sft(tokenizer, tmp_path, []))):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="alignguard"):
            make()
        assert caplog.messages == [
            f"AlignGuard: {four} is half-written (no trainer_state.json) and cannot be resumed; "
            f"resume_from_checkpoint='{two}' goes on from one that is"
        ]
    assert latest_checkpoint(tmp_path, 4) == two
    (two / "trainer_state.json").unlink()
    assert half_written(tmp_path).endswith("none before it is either") and latest_checkpoint(tmp_path, 4) is None


@pytest.mark.slow
def test_a_half_written_checkpoint_is_not_put_back(tokenizer, tmp_path, capsys):
    from planted import planted, slow

    def cut():
        (tmp_path / "checkpoint-1" / "trainer_state.json").unlink()

    rule = StopRule(restore=True)
    slow(tokenizer, tmp_path, [planted(stop=rule), At(1, cut)], **{**SAVES, "save_steps": 1}).train()
    assert "checkpoint-1 were put back" not in capsys.readouterr().out


def test_a_tracker_that_hangs_is_interrupted_and_told_of_once(tokenizer, tmp_path, monkeypatch, caplog):
    import time

    from alignguard.trackers.tensorboard_writer import TensorBoardWriter

    monkeypatch.setattr(shown, "_SECONDS", 0.3)
    monkeypatch.setattr("alignguard.timed._AGAIN", 0.1)
    monkeypatch.setattr(TensorBoardWriter, "log", lambda *args: time.sleep(600))
    trainer = sft(tokenizer, tmp_path, [guard()], report_to=["tensorboard"])
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        trainer.train()
    told = [message for message in caplog.messages if "TensorBoard" in message]
    assert len(told) == 1 and "LateError: it took longer than 0.3 s, and was interrupted" in told[0]
    assert trainer.state.global_step == 4 and [line["step"] for line in lines(tmp_path)] == [0, 2, 4]


@pytest.mark.parametrize("error", [KeyError("stop"), KeyboardInterrupt()])
def test_what_a_signals_handler_raises_in_an_audit_is_meant_for_the_trainer(tokenizer, tmp_path, monkeypatch, error):
    import alignguard.auditing.audit as audit_module

    def handler(number, frame):
        raise error

    gather, before = audit_module.gather, signal.signal(signal.SIGUSR1, handler)

    def interrupted(*given):
        os.kill(os.getpid(), signal.SIGUSR1)
        return gather(*given)

    planted = At(0, lambda: monkeypatch.setattr(audit_module, "gather", interrupted))
    trainer = sft(tokenizer, tmp_path, [guard(), planted])
    try:
        with pytest.raises(type(error)):
            trainer.train()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert trainer.state.global_step == 2 and all(module.training for module in trainer.model.modules())
    assert [line["step"] for line in lines(tmp_path)] == [0]


def test_a_time_limit_of_a_scorers_own_is_a_failure_of_the_scorer(tokenizer, tmp_path, caplog):
    """Libraries set an alarm for it, and leave its handler behind; a decorated handler's code is that of everything decorated so."""
    import torch

    class Scorer:
        calls = 0

        def __call__(self, texts):
            self.calls += 1
            if self.calls < 3:
                return [0.1] * len(texts)
            signal.raise_signal(signal.SIGALRM)

    @torch.no_grad()
    def decorated(number, frame):
        raise RuntimeError("told to end")

    def out_of_time(number, frame):
        raise TimeoutError("out of time")

    alarm, user = signal.signal(signal.SIGALRM, out_of_time), signal.signal(signal.SIGUSR2, decorated)
    try:
        with caplog.at_level(logging.WARNING, logger="alignguard"):
            sft(tokenizer, tmp_path, [guard(toxicity=Scorer())], learning_rate=1e-5).train()
        assert raised_by_signal(_error_of(torch.no_grad()(lambda: 1 / 0))) is None
        assert isinstance(raised_by_signal(_error_of(lambda: signal.raise_signal(signal.SIGUSR2))), RuntimeError)
    finally:
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGUSR2, user)
    assert len([message for message in caplog.messages if "a scorer failed and training goes on" in message]) == 1


def _error_of(do):
    try:
        do()
    except Exception as error:
        return error


def test_a_scorer_that_hangs_leaves_its_probes_unscored(tokenizer, tmp_path, caplog):
    import time

    class Scorer:
        seconds, calls = 0.3, 0

        def __call__(self, texts):
            self.calls += 1
            return [0.1] * len(texts) if self.calls < 3 else time.sleep(600)

    with caplog.at_level(logging.WARNING, logger="alignguard"):
        sft(tokenizer, tmp_path, [guard(toxicity=Scorer())], learning_rate=1e-5).train()
    told = [message for message in caplog.messages if "scorer" in message]
    assert (
        len(told) == 1
        and "took longer than 0.3 s, and was interrupted; a scorer with an attribute `seconds`" in told[0]
    )
    zero, two, four = (json.loads(json.dumps(line["metrics"])) for line in lines(tmp_path))
    assert "alignguard/toxicity/score" in zero and "alignguard/toxicity/score" not in two | four


def test_what_json_has_no_word_for_costs_no_record(tokenizer, tmp_path, caplog):
    import numpy as np

    settings = {
        "schedule": Schedule(at=(2,), every=0, draw=np.int64(2)),
        "template_kwargs": {"tool": max, "many": np.int64(3)},
    }
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        sft(tokenizer, tmp_path, [guard(**settings)], **SAVES).train()
    assert not [message for message in caplog.messages if "failed" in message]
    about = json.loads((tmp_path / "alignguard" / "baseline.json").read_text())
    assert (about["draw"], about["template_kwargs"]) == (2, {"tool": "max", "many": 3})
    sft(tokenizer, tmp_path, [guard(**settings)], **{**SAVES, "max_steps": 6}).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 6]


def test_a_checkpoint_that_cannot_be_read_is_no_reason_to_fail(tokenizer, tmp_path, caplog):
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    (folder / "model.safetensors").symlink_to(tmp_path / "gone")
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        sft(tokenizer, tmp_path, [guard()])
    assert "checkpoint-2 is half-written (a part of model.safetensors)" in caplog.text


def test_a_judge_that_is_slow_over_all_answers_is_late(monkeypatch):
    from dataclasses import replace
    from types import SimpleNamespace

    from tiny import tiny_probes

    from alignguard.auditing.judged import judge_all
    from alignguard.model.chat import Answer
    from alignguard.timed import Patience

    class Judge:
        seconds, calls = 3.0, 0

        def __call__(self, prompt, answer):
            import time

            self.calls += 1
            time.sleep(0.9)
            return 0.5

    judge, told = Judge(), []
    probes = [replace(tiny_probes()[0], id=f"o{i}", judge="own") for i in range(20)]
    answers = [Answer((1,), "", "Well, open it with a key.", False, True, True)] * 20
    asking = SimpleNamespace(toxicity=None, judge=judge, failed=told.append, patience=Patience())
    scores = judge_all(probes, answers, asking, {})
    scored = [score.value for score in scores]
    assert "it took longer than 3 s" in str(told[0])  # and not what was left of them for the last
    assert judge.calls <= 4 and scored[:1] == [0.5] and scored[4:] == [None] * 16 and len(told) == 1
