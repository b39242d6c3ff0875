"""Audits as W&B artifacts, read back from an offline run's own file, beside the checkpoints that the trainer logs."""

import json
import logging
from types import SimpleNamespace

import pytest
from planted import planted, slow
from runs import guard, sft
from tracker_records import failures, read_wandb

from alignguard import StopRule
from alignguard.trackers.find import find_trackers

wandb = pytest.importorskip("wandb", reason="wandb is not installed")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An offline run that the trainer finds open, and what is on record of it once it has ended."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    run = wandb.init(project="p", name="mine", mode="offline", dir=str(tmp_path))

    def read():
        run.finish()
        return read_wandb(tmp_path).more["artifacts"]

    yield run, read
    wandb.finish()


def test_each_audit_names_the_checkpoint_that_the_trainer_logs(tokenizer, tmp_path, offline, monkeypatch, caplog):
    run, read = offline
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        sft(
            tokenizer, tmp_path / "run", [guard(quote=False)], report_to=["wandb"], save_strategy="steps", save_steps=2
        ).train()  # fmt: skip
    assert not failures(caplog.text)
    found = read()
    logged = {f"{a['name']}:{alias}" for a in found if a["type"] == "model" for alias in a["aliases"]}
    audits = {json.loads(a["metadata"])["step"]: a for a in found if a["type"] == "alignguard-audit"}
    assert list(audits) == [0, 2, 4] and {a["name"] for a in audits.values()} == {f"alignguard-audit-{run.id}"}
    for step, audit in audits.items():
        assert f"step_{step}" in audit["aliases"]
        # of the start there is no checkpoint
        assert (json.loads(audit["metadata"])["checkpoint"] in logged) == (step > 0)
        lines = audit["files"]["audits.jsonl"].read_text().splitlines()
        assert json.loads(lines[-1])["step"] == step
        assert audit["files"].keys() == {"baseline.json", "audits.jsonl", "report.html"}


def test_an_artifact_that_fails_is_told_of_in_one_line(tokenizer, tmp_path, offline, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OSError("no space\nleft")

    monkeypatch.setattr("alignguard.trackers.wandb_artifact.wandb", SimpleNamespace(Artifact=fail))
    trainer = sft(tokenizer, tmp_path / "run", [guard()], report_to=["wandb"])
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        trainer.train()
    assert trainer.state.global_step == 4
    assert failures(caplog.text) == ["W&B failed and training goes on (OSError: no space left)"]
    assert not [artifact for artifact in offline[1]() if artifact["type"] == "alignguard-audit"]


def test_texts_among_the_figures_of_an_earlier_version_are_left_where_they_are(tmp_path, offline):
    _, read = offline
    for name in ("audits.jsonl", "probes.jsonl", "train_prompts.json", "report.html"):
        (tmp_path / name).write_text("{}")
    args = sft_args(tmp_path)
    (tracker,) = find_trackers(args, quote=False)
    tracker.keep(3, tmp_path, tmp_path / "none.html")
    tracker.end()
    tracker.end()
    (kept,) = read()
    assert kept["files"].keys() == {"audits.jsonl"} and json.loads(kept["metadata"]) == {"step": 3}


def sft_args(folder):
    return SimpleNamespace(report_to=["wandb"], run_name=None, output_dir=str(folder))


def test_the_last_version_tells_of_weights_that_were_put_back(tokenizer, tmp_path, offline):
    _, read = offline
    callback = planted(audits=3, stop=StopRule(restore=True))
    slow(tokenizer, tmp_path / "run", [callback], max_steps=6, report_to=["wandb"]).train()
    *_, last = (found for found in read() if found["type"] == "alignguard-audit")
    assert json.loads(last["files"]["baseline.json"].read_text())["put_back"] == "checkpoint-2"
