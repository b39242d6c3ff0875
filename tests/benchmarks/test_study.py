"""What the study says of its runs, and that it goes on from what is on file."""

import json
import subprocess
from itertools import pairwise

import pytest
import study
from reports import MANY, run_of
from scipy.stats import spearmanr

from alignguard.probes.probe import TRUST_DIMENSIONS
from alignguard.records.about import About
from alignguard.records.record import Record


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RUNS", tmp_path)
    return tmp_path


def record(scores, probes=None, **metrics):
    audits, verdict = run_of(scores, probes=probes, **metrics)
    return Record("run", None, About(max_steps=max(scores)), {}, audits, verdict)


def test_the_figures_of_a_run_are_those_of_its_record(here):
    run = study.planned()[0]
    whole = record({0: 1.0, 5: 1.0, 10: 0.0, 15: 0.0}, MANY)
    found = study.found(run, whole)
    safety, verdict = found["dimensions"]["safety"], whole.verdict.dimensions["safety"]
    assert (safety["start"], safety["now"], safety["drop"]) == (1.0, 0.0, 1.0)
    assert (safety["run_low"], safety["p"]) == (verdict.evidence.low, verdict.evidence.p)
    assert found["called"]["safety"] == 10 and set(found["dimensions"]) == set(TRUST_DIMENSIONS)
    assert found["reasoning"]["now"] == 0.0 and found["drift"]["answer"] == pytest.approx(0.15)
    assert found["format"] == pytest.approx(0) and [audit["step"] for audit in found["audits"]] == [0, 5, 10, 15]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert study.line(found)["reasoning"] == "1.00 to 0.00" and "safety 10" in study.line(found)["called"]


def test_correlations_are_spearmans_over_audits_without_the_first(here):
    def run(*points):
        audits = [{"step": 0, **{key: [0.0, 0.0] for key in TRUST_DIMENSIONS}}]
        audits += [
            {"step": i, **{key: [None, None] for key in TRUST_DIMENSIONS}, "safety": list(point)}
            for i, point in enumerate(points, 1)
        ]
        return {"audits": audits}

    runs = [run((0.1, 0.0), (0.2, 0.3)), run((0.3, 0.2), (0.4, 0.5)), run((0.5, 0.4), (0.6, 0.1))]
    found = study.correlations(runs)
    kls, drops = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.0, 0.3, 0.2, 0.5, 0.4, 0.1)
    assert found["safety"]["rho"] == pytest.approx(spearmanr(kls, drops).statistic)
    assert found["all"] == found["safety"] and found["safety"]["points"] == 6
    assert found["safety"]["low"] <= found["safety"]["rho"] <= found["safety"]["high"]
    assert found["ethics"] == {"points": 0, "rho": None, "low": None, "high": None}
    assert study.correlations(runs[:2])["safety"]["low"] is None  # two runs are no sample of runs


def test_one_seed_of_each_is_held_and_distillation_comes_after_its_teacher(here):
    names = [run.name for run in study.planned()]
    assert names.index(study.TEACHER) == 0 and len(set(names)) == len(names) == 12
    held = sorted(name for name in names if name.endswith("-held"))
    assert held == ["distill-0-held", "distill-warm-0-held", "grpo-0-held", "sft-0-held"]


def test_a_student_that_is_warmed_is_held_against_the_aligned_start(here, monkeypatch):
    asked = []

    def taken(command):
        asked.append(dict(pairwise(command)))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(study.subprocess, "run", taken)
    study.train(next(run for run in study.planned() if run.name == "distill-warm-0"), "START", 16)
    warming, distilling = asked
    assert warming["--model_name_or_path"] == "START" and warming["--max_steps"] == str(study.COLD_STEPS)
    assert distilling["--model_name_or_path"] == warming["--output_dir"] and distilling["--reference"] == "START"


def test_a_run_goes_on_from_its_last_checkpoint_and_leaves_its_record(here, monkeypatch):
    run, asked = study.planned()[1], []
    for step in (6, 24):
        (run.folder / f"checkpoint-{step}").mkdir(parents=True)
    (run.folder / "model.safetensors").write_text("large")

    def taken(command):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(study.subprocess, "run", taken)
    study.train(run, "a model", 48)
    (command,) = asked
    assert command[command.index("--resume_from_checkpoint") + 1] == str(run.folder / "checkpoint-24")
    assert command[command.index("--max_kl") + 1] == "0.05" and command[1].endswith("recipes/sft.py")
    assert list(run.folder.iterdir()) == [run.device] and run.device.read_text() == "CPU"
    monkeypatch.setattr(study.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(SystemExit, match="sft-0-held failed"):
        study.train(run, "a model", 48)


def test_questions_are_none_of_the_rows(here):
    study.task()
    rows = [json.loads(line) for line in (here / "task" / "train.jsonl").read_text().splitlines()]
    asked = [json.loads(line) for line in (here / "questions.jsonl").read_text().splitlines()]
    assert len(asked) == study.QUESTIONS and {q["dimension"] for q in asked} == {"reasoning"}
    assert not {q["prompt"] for q in asked} & {row["prompt"][0]["content"] for row in rows}
    for q in asked:
        assert str(eval(q["prompt"].split(":")[-1].split("=")[0])) == q["expected"]
    assert rows[0]["answer"] == rows[0]["completion"][0]["content"].rpartition("</think>")[2].strip()


def test_nothing_to_read_is_said(here, monkeypatch):
    monkeypatch.setattr(study, "ROOT", here)
    with pytest.raises(SystemExit, match=r"no run in .* has been audited after its start yet"):
        study.report("a model")


def test_a_run_of_another_machine_stays_on_file(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(study, "picture", lambda runs, path: None)
    path = tmp_path / "benchmarks" / "results" / "study.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"runs": [{"run": "grpo-0", "audits": []}, {"run": "sft-0", "audits": [], "steps": 1}]}))
    monkeypatch.setattr(study, "line", lambda run: {"run": run["run"]})
    monkeypatch.setattr(study, "taken", lambda run: record({0: 1.0, 5: 1.0}) if run.name == "sft-0" else None)
    written = {}
    monkeypatch.setattr(study, "write", lambda name, results, quick: written.update(results))
    study.report("start")
    assert [(run["run"], run.get("steps")) for run in written["runs"]] == [("sft-0", 5), ("grpo-0", None)]
