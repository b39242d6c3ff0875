"""The callback in real trainers, on a tiny model."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import HELPERS
from runs import Losses, guard, lines, sft
from tiny import tiny_model, tiny_probes, tiny_rows
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

import alignguard.trainer.run as run_module
import alignguard.trainer.shown as shown_module
from alignguard import AlignGuardCallback, AlignGuardError, ProbeError, RunError, Schedule, StartError


@pytest.mark.parametrize("attach", ["list", "add"])
@pytest.mark.parametrize("kwargs", [{}, {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}])
def test_watching_changes_nothing(tokenizer, tmp_path, attach, kwargs):
    """Losses, logs and final weights are bit-identical with and without us; dropout makes every draw of a generator count."""
    plain, watched = Losses(), Losses()
    alone = sft(tokenizer, tmp_path / "alone", [plain], **kwargs)
    alone.train()
    if attach == "list":
        trainer = sft(tokenizer, tmp_path / "watched", [watched, guard()], **kwargs)
    else:
        trainer = sft(tokenizer, tmp_path / "watched", [watched], **kwargs)
        trainer.add_callback(guard(trainer))
    trainer.train()
    assert watched.logs == plain.logs
    assert len({log.get("loss") for log in plain.logs}) > 2
    for (name, a), (_, b) in zip(alone.model.named_parameters(), trainer.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    found = lines(tmp_path / "watched")
    assert [line["step"] for line in found] == [0, 2, 4]
    first, last = found[0]["metrics"], found[-1]["metrics"]
    assert abs(first["alignguard/kl/raw"]) < 1e-5 and abs(first["alignguard/kl/answer"]) < 1e-5
    assert last["alignguard/kl/raw"] > 1e-3


def test_what_is_left_on_disk(tokenizer, tmp_path):
    sft(tokenizer, tmp_path, [guard()]).train()
    root = tmp_path / "alignguard"
    assert sorted(p.name for p in (tmp_path / "_alignguard" / "answers").iterdir()) == [
        "baseline.parquet",
        "step_00000.parquet",
        "step_00002.parquet",
        "step_00004.parquet",
    ]
    about = json.loads((root / "baseline.json").read_text())
    assert (
        about["reference"] == "copy"
        and about["toxicity"] == "toxicity"
        and set(about["scores"]) == {p.id for p in tiny_probes()}
    )
    report = (tmp_path / "_alignguard" / "report.html").read_text()
    assert "step 4 of 4" in report and "<svg" in report


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "cache", "adapter"])
def test_a_run_stopped_and_resumed_in_a_new_process_keeps_its_start(tmp_path, kind):
    script = HELPERS / "resume_run.py"

    def start(*arguments):
        return subprocess.Popen([sys.executable, script, *map(str, arguments), kind], stderr=subprocess.PIPE, text=True)

    def finish(*runs):
        for run in runs:
            _, errors = run.communicate(timeout=240)
            assert run.returncode == 0, errors[-2000:]

    # the second saves at step 3, audits at step 4, and stops there
    finish(start(tmp_path / "whole", 6, "none"), start(tmp_path / "parts", 6, "stop"))
    assert [line["step"] for line in lines(tmp_path / "parts")] == [0, 2, 4]
    about = json.loads((tmp_path / "parts" / "alignguard" / "baseline.json").read_text())
    assert about["reference"] == kind
    finish(start(tmp_path / "parts", 6, "resume"))
    again = json.loads((tmp_path / "parts" / "alignguard" / "baseline.json").read_text())
    assert all(again["scores"][id] == score for id, score in about.pop("scores").items())
    assert {k: again[k] for k in about} == about
    whole, parts = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [line["step"] for line in whole] == [line["step"] for line in parts] == [0, 2, 4, 6]
    for a, b in zip(whole, parts, strict=True):
        assert a["metrics"].keys() == b["metrics"].keys()
        for key, value in a["metrics"].items():
            if "/cost/" not in key:
                assert b["metrics"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), (a["step"], key)
    assert abs(whole[0]["metrics"]["alignguard/kl/raw"]) < 1e-5 < 1e-3 < whole[-1]["metrics"]["alignguard/kl/raw"]
    assert ("alignguard/kl/reverse" in whole[-1]["metrics"]) == (kind != "cache")
    assert whole[-1]["metrics"]["alignguard/kl/train_prompts"] > 1e-3


def test_a_cache_that_cannot_be_read_or_is_of_another_start_is_an_error(tokenizer, tmp_path):
    sft(tokenizer, tmp_path, [guard(reference="cache")], save_strategy="steps", save_steps=2).train()
    path = tmp_path / "_alignguard" / "reference.safetensors"
    whole = path.read_bytes()

    def resume():
        sft(tokenizer, tmp_path, [guard(reference="cache")], max_steps=6).train(resume_from_checkpoint=True)

    path.write_bytes(whole[:100])
    with pytest.raises(RunError, match="the cached reference cannot be read"):
        resume()
    path.write_bytes(whole)
    baseline = tmp_path / "alignguard" / "baseline.json"
    about = json.loads(baseline.read_text())
    baseline.write_text(json.dumps(about | {"model_fingerprint": "0" * 16}))
    with pytest.raises(RunError, match="holds the reference of another start"):
        resume()


def test_a_cache_answers_audits_that_were_not_planned(tokenizer, tmp_path, caplog):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    guarded = guard(reference="cache", schedule=Schedule(at=(), every=0, draw=1))
    sft(tokenizer, tmp_path, [Stop(), guarded]).train()
    assert [line["step"] for line in lines(tmp_path)] == [0, 3]
    assert "failed" not in caplog.text


@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_a_second_train_keeps_the_first_start(tokenizer, tmp_path, kind):
    trainer = sft(tokenizer, tmp_path, [guard(reference=kind)], lr_scheduler_type="constant")
    trainer.train()
    first = lines(tmp_path)
    trainer.train()
    second = lines(tmp_path)
    assert [line["step"] for line in second] == [0, 2, 4]
    name = "alignguard/kl/raw"
    assert second[0]["metrics"][name] == pytest.approx(first[-1]["metrics"][name], rel=1e-3)
    assert second[-1]["metrics"][name] != first[-1]["metrics"][name]
    aside = (tmp_path / "alignguard.1" / "audits.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in aside] == first and (tmp_path / "_alignguard.1" / "answers").is_dir()


def test_bf16_with_float32_weights_takes_the_fused_path_and_starts_at_zero(tokenizer, tmp_path, caplog):
    sft(tokenizer, tmp_path, [guard(reference="cache")], bf16=True).train()
    found = lines(tmp_path)
    assert "its own logits are used" not in caplog.text
    assert abs(found[0]["metrics"]["alignguard/kl/raw"]) < 1e-3 < found[-1]["metrics"]["alignguard/kl/raw"]


def test_every_kind_of_reference_measures_the_same_drift(tokenizer, tmp_path):
    start = tmp_path / "start"
    tiny_model(tokenizer, seed=1, dropout=0.3, scale=4.0).save_pretrained(start)
    tokenizer.save_pretrained(start)
    found = {}
    for kind in ("copy", "offload", "cache", str(start)):
        sft(tokenizer, tmp_path / Path(kind).name, [guard(reference=kind)]).train()
        found[Path(kind).name] = lines(tmp_path / Path(kind).name)[-1]["metrics"]
    for kind, metrics in found.items():
        for key in ("raw", "answer", "answer_first", "train_prompts"):
            name = f"alignguard/kl/{key}"
            assert metrics[name] == pytest.approx(found["copy"][name], rel=1e-4, abs=1e-6), (kind, key)
    assert found["copy"]["alignguard/kl/raw"] > 1e-3


def test_a_resumed_run_with_another_start_is_an_error(tokenizer, tmp_path):
    sft(tokenizer, tmp_path, [guard()], save_strategy="steps", save_steps=2).train()
    elsewhere = tiny_model(tokenizer, seed=5, dropout=0.3, scale=4.0)
    with pytest.raises(RunError, match="the model given is not the one this run began with"):
        sft(tokenizer, tmp_path, [guard()], model=elsewhere, max_steps=6).train(resume_from_checkpoint=True)
    start = tmp_path / "start"
    tiny_model(tokenizer, seed=1, dropout=0.3, scale=4.0).save_pretrained(start)
    tokenizer.save_pretrained(start)
    sft(tokenizer, tmp_path, [guard(reference=str(start))], model=elsewhere, max_steps=5).train(
        resume_from_checkpoint=True
    )
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4, 5]
    with pytest.raises(RunError, match="the probes are not those this run began with"):
        sft(tokenizer, tmp_path, [guard(probes=tiny_probes()[1:])], max_steps=6).train(resume_from_checkpoint=True)


def test_a_resumed_run_without_its_record_or_start_is_an_error(tokenizer, tmp_path):
    sft(tokenizer, tmp_path, save_strategy="steps", save_steps=2).train()
    with pytest.raises(RunError, match=r"holds no baseline.json of it"):
        sft(tokenizer, tmp_path, [guard()], max_steps=6).train(resume_from_checkpoint=True)
    trainer = sft(tokenizer, tmp_path, max_steps=6)
    trainer.add_callback(guard())  # too late to see the start, and no trainer to take it from
    with pytest.raises(StartError, match=r"AlignGuardCallback\(trainer\)"):
        trainer.train(resume_from_checkpoint=True)


def test_a_new_run_in_a_used_output_dir_keeps_the_old_record(tokenizer, tmp_path, capsys):
    for _ in range(2):
        sft(tokenizer, tmp_path, [guard()], max_steps=2).train()
    assert "holds the record of another run; it was moved to" in capsys.readouterr().out
    assert (tmp_path / "alignguard.1" / "audits.jsonl").exists()
    assert [line["step"] for line in lines(tmp_path)] == [0, 2]


def test_what_an_audit_costs_is_said_before_the_first(tokenizer, tmp_path, capsys):
    sft(tokenizer, tmp_path, [guard()]).train()
    said = capsys.readouterr().out
    assert "9 probes an audit" in said and "3 audits, at steps 0, 2, 4" in said
    assert "reference 'copy' (all weights may train, and a second copy fits), 0 MiB beside the policy" in said
    assert said.index("probes an audit") < said.index("AlignGuard  step 0") < said.index("2 more audits, about")


@pytest.mark.parametrize("broken", ["audit", "tracker", "report", "store"])
def test_nothing_of_ours_ends_a_run_that_has_begun(tokenizer, tmp_path, monkeypatch, caplog, broken):
    guarded, begun = guard(schedule=Schedule(at=(1, 2, 3), every=0, draw=2)), []

    def fail(*args, **kwargs):
        if begun:
            raise OSError("no space\nleft on device")

    class Begun(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if not begun:
                begun.append(1)
                if broken == "audit":
                    monkeypatch.setattr(run_module, "audit", fail)
                elif broken == "tracker":
                    guarded.run.shown.tracker = type("Broken", (), {"log": fail})()
                elif broken == "report":
                    monkeypatch.setattr(shown_module, "write_report", fail)
                else:
                    monkeypatch.setattr(guarded.run.store, "append", fail)

    trainer = sft(tokenizer, tmp_path, [guarded, Begun()])
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        trainer.train()
    assert trainer.state.global_step == 4
    told = [r.getMessage() for r in caplog.records if "failed and training goes on" in r.getMessage()]
    assert told == [f"AlignGuard: the {broken} failed and training goes on (OSError: no space left on device)"]


def test_mistakes_are_found_before_the_first_step(tokenizer, tmp_path):
    with pytest.raises(ProbeError, match="did you mean 'safety'"):
        AlignGuardCallback(probes=["safty"])
    (tmp_path / "alignguard").write_text("a file where our folder should be")
    with pytest.raises(RunError, match="cannot be written"):
        sft(tokenizer, tmp_path, [guard()]).train()
    trainer = sft(tokenizer, tmp_path / "b", [guard()])
    trainer.callback_handler.processing_class = None
    with pytest.raises(AlignGuardError, match="processing_class=tokenizer"):
        trainer.train()


@pytest.mark.parametrize("which", ["two pools", "a cell run twice", "one of them twice"])
def test_two_callbacks_in_one_trainer_are_an_error_before_the_first_step(tokenizer, tmp_path, which):
    """Both would write the record of its output_dir, which could then not be read."""
    pool, trainer = tiny_probes(), sft(tokenizer, tmp_path)
    ours = {
        "two pools": [guard(probes=pool[:3]), guard(probes=pool[3:])],
        "a cell run twice": [guard(trainer), guard(trainer)],
        "one of them twice": [guard(trainer)] * 2,
    }[which]
    for callback in ours:
        trainer.add_callback(callback)
    with pytest.raises(
        AlignGuardError, match=r"has 2 AlignGuardCallbacks.*probes=.*remove_callback\(AlignGuardCallback\)"
    ):
        trainer.train()
    assert trainer.state.global_step == 0 and not (tmp_path / "alignguard").exists()
    trainer.remove_callback(AlignGuardCallback)  # as it says
    trainer.train()
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4]


def test_the_last_step_is_audited_when_another_callback_stops_the_run(tokenizer, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    sft(tokenizer, tmp_path / "a", [Stop(), guard()]).train()
    sft(tokenizer, tmp_path / "b", [guard(), Stop()]).train()
    assert (
        [line["step"] for line in lines(tmp_path / "a")]
        == [line["step"] for line in lines(tmp_path / "b")]
        == [0, 2, 3]
    )


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_step_begin", "on_step_end"])
def test_a_callback_that_is_put_in_while_training_goes_on_looks_at_nothing(tokenizer, tmp_path, caplog, hook):
    """One of its own, or one that has watched another training, whose record stays as it was."""

    class Late(TrainerCallback):
        def __init__(self, make):
            self.make, self.done = make, False

    def put(self, args, state, control, **kwargs):
        if not self.done:
            self.done = True
            self.trainer.add_callback(self.make(self.trainer))

    setattr(Late, hook, put)
    used = guard()
    sft(tokenizer, tmp_path / "before", [used]).train()
    record = (tmp_path / "before" / "alignguard" / "audits.jsonl").read_bytes()
    for name, make in (("own", guard), ("used", lambda trainer: used)):
        caplog.clear()
        late = Late(make)
        late.trainer = sft(tokenizer, tmp_path / name, [late])
        with caplog.at_level(logging.WARNING, logger="alignguard"):
            late.trainer.train()
        assert late.trainer.state.global_step == 4 and not (tmp_path / name / "alignguard").exists()
        assert caplog.messages == [
            "AlignGuard: the callback was added while training was going on, whose start it has not seen, and looks at nothing; "
            "add it before trainer.train()"
        ]
    assert (tmp_path / "before" / "alignguard" / "audits.jsonl").read_bytes() == record
    late.trainer.train()  # which it sees the start of
    assert [line["step"] for line in lines(tmp_path / "used")] == [0, 2, 4]


def test_lora_is_watched_with_its_adapters_off(tokenizer, tmp_path):
    from peft import LoraConfig

    model = tiny_model(tokenizer, scale=4.0)
    args = SFTConfig(
        str(tmp_path), max_steps=3, learning_rate=1e-1, report_to=[], use_cpu=True, bf16=False, save_strategy="no"
    )
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "down_proj"])
    trainer = SFTTrainer(
        model, args, train_dataset=tiny_rows(), processing_class=tokenizer, peft_config=lora, callbacks=[guard()]
    )
    trainer.train()
    found = lines(tmp_path)
    assert json.loads((tmp_path / "alignguard" / "baseline.json").read_text())["reference"] == "adapter"
    assert abs(found[0]["metrics"]["alignguard/kl/raw"]) < 1e-5 < 1e-3 < found[-1]["metrics"]["alignguard/kl/raw"]
