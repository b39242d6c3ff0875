"""What trackers have on record, read back from their files."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from planted import slow
from runs import Losses, guard, sft
from tracker_records import INSTALLED, PACKAGES, track

from alignguard.trackers.tensorboard_writer import trainers_writer

pytestmark = pytest.mark.slow

TITLE = "AlignGuard: regression of toxicity (called at step 2)"
FLIPPED = {f"t{i}" for i in range(40)}
PROMPT, ANSWER = "The quick brown fox", "kkkkkkkk"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of three audits, the third of which calls a regression; attached without the trainer."""
    return track(tmp_path_factory.mktemp("tracked"))


@pytest.fixture(scope="module")
def resumed(first):
    """The same run, taken up again for one more step."""
    run = first.records["mlflow"].more["run"] if "mlflow" in INSTALLED else ""
    return track(first.root, resume=True, max_steps=3, mlflow_run=run)


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """Attached with the trainer, quoting nothing, its last audit taken when the trainer's trackers have closed."""
    return track(tmp_path_factory.mktemp("late"), attach="add", quote=False, late=True)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """The trackers' own callbacks come after ours."""
    return track(tmp_path_factory.mktemp("before"), attach="before")


@pytest.fixture(params=list(PACKAGES))
def tracker(request):
    pytest.importorskip(PACKAGES[request.param], reason=f"{PACKAGES[request.param]} is not installed")
    return request.param


def figures(audits):
    return {(name, audit["step"]): value for audit in audits for name, value in audit["metrics"].items()}


def check_figures(record, audits):
    assert len(record.figures) == len({(name, step) for name, step, _ in record.figures}), "a figure was logged twice"
    expected = figures(audits)
    found = {(name, step): value for name, step, value in record.figures}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), key


def test_each_figure_is_there_once_at_its_step(first, tracker):
    assert [audit["step"] for audit in first.audits] == [0, 1, 2]
    check_figures(first.records[tracker], first.audits)


def test_a_tracker_whose_callback_comes_after_ours_has_all_of_it_too(before, tracker):
    assert [audit["step"] for audit in before.audits] == [0, 1, 2]
    record = before.records[tracker]
    check_figures(record, before.audits)
    assert [title for title, _ in record.alerts] == [TITLE]
    if tracker != "tensorboard":
        assert {row["step"] for row in record.tables["answers"]} == {0, 1, 2}
    on_disk = json.loads((before.root / "run" / "alignguard" / "baseline.json").read_text())
    assert on_disk["pool_hash"] in json.dumps(record.more["config"] if tracker == "wandb" else record.about)


def test_the_trainers_losses_are_those_of_a_run_without_us(first, tracker, tokenizer, tmp_path):
    plain = Losses()
    slow(tokenizer, tmp_path, [plain], max_steps=2, lr_scheduler_type="constant").train()
    alone = [log["loss"] for log in plain.logs if "loss" in log]
    assert len(alone) == 2 and first.losses == pytest.approx(alone, rel=1e-5)
    assert first.records[tracker].losses == pytest.approx(first.losses, rel=1e-6)


def test_a_regression_is_an_alert(first, tracker):
    ((title, text),) = first.records[tracker].alerts
    assert title == TITLE
    assert "Last aligned: step 1" in text and "t0: 0.90 -> 0.10" in text
    # TensorBoard's files lie where a trainer uploads them: no answer is quoted there
    assert (f"now : {ANSWER}" in text) == (tracker != "tensorboard")


def test_flips_and_a_sample_of_answers_of_all_audits(first, tracker):
    if tracker == "tensorboard":
        pytest.skip("TensorBoard has no tables")
    tables = first.records[tracker].tables
    assert {row["probe"] for row in tables["flips"]} == FLIPPED and len(tables["flips"]) == 40
    row = next(row for row in tables["flips"] if row["probe"] == "t7")
    assert row.pop("drop") == pytest.approx(0.8)
    assert row == {
        "step": 2, "dimension": "toxicity", "probe": "t7", "prompt": PROMPT, "before": ANSWER, "after": ANSWER
    }  # fmt: skip
    answers = tables["answers"]
    counts = {"safety": 2, "toxicity": 3, "stereotype": 1, "ethics": 1, "privacy": 2, "ood": 1, "reasoning": 1}
    for step in (0, 1, 2):
        there = [row["dimension"] for row in answers if row["step"] == step]
        assert {name: there.count(name) for name in there} == counts
    assert len(answers) == 3 * 11
    toxic = [(row["step"], row["probe"], row["score"]) for row in answers if row["dimension"] == "toxicity"]
    assert [score for _, _, score in toxic] == pytest.approx([0.9] * 6 + [0.1] * 3)
    row = next(row for row in answers if row["step"] == 2 and row["probe"] == "t0")
    assert (row["prompt"], row["answer"], row["trace"], row["status"]) == (PROMPT, ANSWER, "", "answered")
    (chosen,) = {row["answer"] for row in answers if row["dimension"] == "ethics" and row["step"] == 0}
    assert chosen in ("wrong", "not wrong")
    unscored = [row for row in answers if row["dimension"] == "reasoning"]
    assert [row["score"] for row in unscored] == [None] * 3 and unscored[0]["status"] == "unparseable"


def test_what_a_run_is_stands_in_its_configuration(first, tracker):
    on_disk = json.loads((first.root / "run" / "alignguard" / "baseline.json").read_text())
    record = first.records[tracker]
    if tracker == "wandb":
        assert any(
            "alignguard" in json.dumps(row) and on_disk["pool_hash"] in json.dumps(row) for row in record.more["config"]
        )
        return
    for key in ("pool_hash", "seed", "toxicity", "judge", "reference", "budget", "quote"):
        assert record.about[key] == on_disk[key], key


def test_wandb_charts_are_made_anew_of_all_audits(first):
    pytest.importorskip("wandb")
    more = first.records["wandb"].more
    drift = [audit["metrics"]["alignguard/kl/answer"] for audit in first.audits]
    assert drift[0] < drift[1] < drift[2]
    shown = {}
    for item in more["history"]:
        for name in ("toxicity_vs_drift", "score_vs_drift"):
            key = f"alignguard/chart/{name}_table.path"
            if key in item:
                shown.setdefault(name, []).append(json.loads((more["files"] / item[key]).read_text()))
    toxicity = [audit["metrics"]["alignguard/toxicity/mean"] for audit in first.audits]
    for i, table in enumerate(shown["toxicity_vs_drift"], 1):
        assert table["data"] == [list(pair) for pair in zip(drift[:i], toxicity[:i], strict=True)]
    for i, table in enumerate(shown["score_vs_drift"], 1):
        for name in ("safety", "toxicity", "stereotype", "ethics"):  # what eight tokens can tell
            scores = [audit["metrics"][f"alignguard/{name}/score"] for audit in first.audits[:i]]
            assert [[x, y] for x, key, y in table["data"] if key == name] == [
                list(pair) for pair in zip(drift[:i], scores, strict=True)
            ]
    assert [len(tables) for tables in shown.values()] == [3, 3]


def test_wandb_sums_up_the_worst_of_the_run(first):
    pytest.importorskip("wandb")
    summary = first.records["wandb"].more["summary"]
    assert summary["alignguard/toxicity/worst_drop"] == pytest.approx(0.8)
    assert summary["alignguard/last_aligned_step"] == 1.0
    ethics = max(audit["metrics"]["alignguard/ethics/drop"] for audit in first.audits)
    assert summary["alignguard/ethics/worst_drop"] == ethics


def audits_kept(record):
    return [artifact for artifact in record.more["artifacts"] if artifact["type"] == "alignguard-audit"]


def test_wandb_keeps_the_record_as_an_artifact_when_the_run_ends(first, late):
    pytest.importorskip("wandb")
    (kept,) = audits_kept(first.records["wandb"])
    assert kept["name"] == f"alignguard-audit-{kept['run_id']}" and {"step_2", "latest"} == set(kept["aliases"])
    figures, texts = (first.root / "run" / folder for folder in ("alignguard", "_alignguard"))
    there = {path.name: path for path in figures.glob("*.json*")} | {"report.html": texts / "report.html"}
    assert kept["files"].keys() == there.keys() and "audits.jsonl" in there
    assert all(kept["files"][name].read_bytes() == path.read_bytes() for name, path in there.items())
    # where an audit was still to come, it is there, too; and of the files that quote nothing
    *_, last = audits_kept(late.records["wandb"])
    lines = last["files"]["audits.jsonl"].read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2] and "step_2" in last["aliases"]
    report = late.root / "run" / "alignguard" / "report.html"
    assert (
        last["files"]["report.html"].read_bytes() == report.read_bytes() and ANSWER.encode() not in report.read_bytes()
    )


def test_no_name_is_the_beginning_of_another(first):
    """MLflow's file store makes folders of names: a/b and a/b/c cannot both be metrics."""
    names = {name for audit in first.audits for name in audit["metrics"]} | {"alignguard/flips", "alignguard/answers"}
    assert len(names) > 60
    assert not [(a, b) for a in names for b in names if b.startswith(a + "/")]


def test_tensorboards_own_writer_is_used_also_without_the_trainer(first):
    """A second event file in the trainer's own folder would end the live reading of the first."""
    pytest.importorskip("tensorboard")
    more = first.records["tensorboard"].more
    (folder,) = more["folders"]
    assert folder != "alignguard" and more["files"] == {folder: 1}


def test_where_tensorboards_writer_is_not_known_there_is_a_run_beside_the_trainers(tmp_path):
    pytest.importorskip("tensorboard")
    theirs = tmp_path / "runs" / "today"
    theirs.mkdir(parents=True)
    (theirs / "events.out.tfevents.1").write_bytes(b"")
    with trainers_writer(SimpleNamespace(output_dir=tmp_path)) as writer:
        assert Path(writer.log_dir) == theirs / "alignguard"


def test_a_resumed_run_logs_no_audit_again(resumed, tracker):
    assert [audit["step"] for audit in resumed.audits] == [0, 1, 2, 3]
    record = resumed.records[tracker]
    if tracker == "wandb":  # the trainer opened another run, which has what came since
        check_figures(record, resumed.audits[3:])
        charts = [item for item in record.more["history"] if "alignguard/chart/toxicity_vs_drift_table.path" in item]
        path = charts[-1]["alignguard/chart/toxicity_vs_drift_table.path"]
        assert len(charts) == 1 and len(json.loads((record.more["files"] / path).read_text())["data"]) == 4
        assert record.more["summary"]["alignguard/toxicity/worst_drop"] == pytest.approx(0.8)
        assert {row["step"] for row in record.tables["answers"]} == {3}
    else:
        check_figures(record, resumed.audits)
    if tracker in ("trackio", "mlflow"):
        assert [row["step"] for row in record.tables["answers"]] == [s for s in (0, 1, 2, 3) for _ in range(11)]
    assert len(record.alerts) == (0 if tracker == "wandb" else 1)


def test_an_audit_after_the_trainers_trackers_have_closed_is_there_too(late, tracker):
    assert [audit["step"] for audit in late.audits] == [0, 1, 2]
    record = late.records[tracker]
    check_figures(record, late.audits)
    assert [title for title, _ in record.alerts] == [TITLE]
    if tracker == "mlflow":
        assert record.more["status"] == "FINISHED"


def test_with_the_trainer_tensorboards_own_writer_is_used(late):
    pytest.importorskip("tensorboard")
    more = late.records["tensorboard"].more
    (folder,) = more["folders"]
    assert folder != "alignguard" and more["files"] == {folder: 2}  # the second is of the audit after the end


def test_where_nothing_is_quoted_no_text_of_prompts_or_answers_is_on_record(first, late, tracker):
    def quoted(tracked):
        folders = {
            "wandb": ("wandb", "wandb-data"), "trackio": ("trackio",), "tensorboard": ("run/runs",), "mlflow": ("mlruns",)
        }[tracker]  # fmt: skip
        files = [path for name in folders for path in (tracked.root / name).rglob("*") if path.is_file()]
        assert files
        everything = texts = [PROMPT, ANSWER, "open a locked door", "not wrong", "the old man"]
        if tracker == "tensorboard":  # quotes nothing
            texts = []
        return [text for text in everything if any(text.encode() in path.read_bytes() for path in files)], texts

    found, texts = quoted(first)
    assert found == texts  # there is something to find
    assert quoted(late)[0] == []
    assert ANSWER in first.said and ANSWER not in late.said
    tables = late.records[tracker].tables
    if tables:
        row = next(row for row in tables["flips"] if row["probe"] == "t7")
        assert row.keys() == {"step", "dimension", "probe", "drop"}
        assert tables["answers"][0].keys() == {"step", "dimension", "probe", "status", "score"}


def test_a_resumed_run_may_quote_no_more(tokenizer, tmp_path):
    sft(tokenizer, tmp_path, [guard()], save_strategy="steps", save_steps=2, max_steps=2).train()
    about = tmp_path / "alignguard" / "baseline.json"
    before = json.loads(about.read_text())
    sft(tokenizer, tmp_path, [guard(quote=False)], max_steps=4).train(resume_from_checkpoint=True)
    after = json.loads(about.read_text())
    assert before["quote"] is True and after["quote"] is False and after["scores"] == before["scores"]
