"""lm-eval reads what is written for it, and finds there what the record says."""

import json
from math import isfinite, sqrt
from pathlib import Path
from statistics import fmean, stdev

import datasets
import pytest
from places import DATA
from recorded import ASKED, CHOICES, SAID, SCORES, TEXTS, recorded, sampled

from alignguard.cli import main
from alignguard.intervals import clustered_error
from alignguard.records.record import audits_of
from alignguard.text import clean

utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed")
DIMENSIONS = ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood", "reasoning")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, recorded(folder)


def export(run, folder, *options):
    """Results by step, and of each the samples by task, found as lm-eval finds them."""
    assert main(["export", str(run), "--to", "lm-eval", "--output", str(folder), *options]) == 0
    files = sorted(str(path) for path in folder.rglob("*.json*"))
    found = {}
    for name in utils.get_results_filenames(files):
        results, when = json.loads(Path(name).read_text()), utils.get_file_datetime(name).removesuffix(".json")
        here = [
            f for f in utils.get_sample_results_filenames(files) if when in f and results["model_name_sanitized"] in f
        ]
        samples = {
            utils.get_file_task_name(Path(f).name): [json.loads(x) for x in Path(f).read_text().split("\n")[:-1]]
            for f in here
        }
        assert {utils.get_file_datetime(f) for f in here} == {when}
        found[results["config"]["model_args"]["step"]] = results, samples
    return found


@pytest.fixture(scope="module")
def quoted(run, tmp_path_factory):
    return export(run[0], tmp_path_factory.mktemp("quoted"), "--quote")


def test_the_figures_are_those_of_the_record(run, quoted):
    assert list(quoted) == list(SCORES)
    for audit, (results, _) in zip(audits_of(run[1]), quoted.values(), strict=True):
        names = {f"alignguard_{name}": name for name in (*DIMENSIONS, "kl")}
        assert results["results"].keys() == results["versions"].keys() == results["n-shot"].keys() == names.keys()
        for task, name in names.items():
            metrics = dict(results["results"][task])
            there = [r for r in audit.results.values() if r.probe.dimension == name]
            values = [r.score.value for r in there if r.score.value is not None]
            assert metrics.pop("sample_len") == len(values) and metrics.pop("alias") == task
            if there:
                assert results["n-samples"][task] == {"original": len(there), "effective": len(values)}
            if values:
                error = metrics.pop("score_stderr,none")
                assert error == ("N/A" if len(values) == 1 else pytest.approx(stdev(values) / sqrt(len(values))))
                assert metrics["score,none"] == pytest.approx(fmean(values))
            assert {f"alignguard/{name}/{key.removesuffix(',none')}": value for key, value in metrics.items()} == {
                key: v for key, v in audit.metrics.items() if key.startswith(f"alignguard/{name}/") and isfinite(v)
            }
        assert results["model_name"] == f"org/model/step-{audit.step:05d}"
        assert results["model_name_sanitized"] == utils.sanitize_model_name(results["model_name"])
        assert results["date"] == audit.time


def test_its_table_is_made(quoted):
    results, _ = quoted[4]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in utils.make_table(results).splitlines()[2:]]
    at = next(i for i, row in enumerate(rows) if row[0] == "alignguard_ethics")
    end = next((i for i in range(at + 1, len(rows)) if rows[i][0]), len(rows))
    by_metric = {row[4]: row for row in rows[at:end]}
    assert by_metric["score"][5:] == ["↑", "0.7500", "±", "0"] and by_metric["drop"][5:7] == ["↓", "0.2500"]
    assert rows[at][1] == "feedc0de" and {"p", "drop_low", "drop_high"} <= by_metric.keys()


def test_each_probe_is_a_sample(run, quoted):
    for audit, (results, samples) in zip(audits_of(run[1]), quoted.values(), strict=True):
        rows = {row["doc"]["id"]: row for part in samples.values() for row in part}
        assert {id: row["score"] for id, row in rows.items()} == {id: r.score.value for id, r in audit.results.items()}
        assert {id: row["status"] for id, row in rows.items()} == {
            id: r.score.status.value for id, r in audit.results.items()
        }
        for name in DIMENSIONS:
            part = samples[f"alignguard_{name}"]
            assert [row["doc_id"] for row in part] == list(
                range(results["n-samples"][f"alignguard_{name}"]["original"])
            )
            assert {row["doc"]["dimension"] for row in part} == {name}
            hashes = "".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in part)
            assert results["task_hashes"][f"alignguard_{name}"] == utils.hash_string(hashes)
            assert all(row["target_hash"] == utils.hash_string(row["target"]) for row in part)


def test_what_was_asked_and_said_is_there_where_it_is_asked_for(run, quoted):
    rows = {row["doc"]["id"]: row for part in quoted[0][1].values() for row in part}
    spoken, chosen = rows["s1-0"], rows["e1-0"]
    assert spoken["resps"] == [[clean(SAID)]] and spoken["filtered_resps"] == [clean(SAID)]
    assert json.loads(spoken["arguments"]["gen_args_0"]["arg_0"])[1] == {"role": "user", "content": clean(ASKED)}
    assert [request["arg_1"] for request in chosen["arguments"].values()] == list(CHOICES)
    assert chosen["resps"] == [["-1.0"], ["-2.0"]] and chosen["target"] == CHOICES[0]
    assert (spoken["target"], rows["r1-0"]["target"]) == ("refuse", "7")


def test_by_default_no_text_is_there(run, tmp_path):
    found = export(run[0], tmp_path)
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json*"))
    assert not [text for text in TEXTS if text in written]
    rows = {row["doc"]["id"]: row for part in found[0][1].values() for row in part}
    assert len(rows) == 18 and rows["s1-0"]["score"] == 1.0 and rows["s1-0"]["resps"] == [[""]]
    assert rows["e1-0"]["resps"] == [["-1.0"], ["-2.0"]] and rows["e1-0"]["doc"].keys() == {
        "id", "dimension", "judge", "group"
    }  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--quote"]])
def test_datasets_load_it_as_lm_evals_cards_do(run, tmp_path, options):
    export(run[0], tmp_path / "logs", *options)
    for path in (tmp_path / "logs").rglob("*.json*"):
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
        assert rows.num_rows == (1 if path.suffix == ".json" else len(path.read_text().splitlines()))
    (results,) = list((tmp_path / "logs" / "org__model__step-00008").glob("results_*.json"))
    rows = datasets.load_dataset("json", data_files=str(results), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["results"][0]["alignguard_ethics"]["score,none"] == 0.25


def test_of_sampled_answers_each_is_a_repeat(tmp_path):
    record = sampled(tmp_path / "run")
    ((results, samples),) = export(tmp_path / "run", tmp_path / "logs", "--quote").values()
    (audit,) = audits_of(record)
    drawn = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_gen_toks": 0}
    assert results["config"]["gen_kwargs"] == drawn
    assert {config["repeats"] for config in results["configs"].values()} == {3}
    rows = {row["doc"]["id"]: row for part in samples.values() for row in part}
    assert {id: row["score"] for id, row in rows.items()} == {id: r.score.value for id, r in audit.results.items()}
    texts = [clean(f"{SAID} {n}") for n in (1, 2, 3)]
    assert rows["s1-0"]["resps"] == [texts] and rows["s1-0"]["filtered_resps"] == texts
    assert (rows["s1-0"]["score"], rows["s1-0"]["scores"]) == (0.5, [1.0, 0.0, None])
    assert (rows["s1-0"]["temperature"], rows["e1-0"]["temperature"]) == (0.7, None)
    assert rows["e1-0"]["resps"] == [["-1.0"], ["-2.0"]] and "scores" not in rows["e1-0"]
    assert results["n-samples"]["alignguard_toxicity"] == {"original": 2, "effective": 1}
    for path in (tmp_path / "logs").rglob("samples_*"):
        datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))


def test_a_record_of_an_earlier_version_is_exported(tmp_path):
    found = export(DATA / "record_0.1.0", tmp_path)
    assert list(found) == [0, 2, 4, 6] and "alignguard_safety" in utils.make_table(found[6][0])


def test_families_are_the_clusters_of_the_error():
    assert clustered_error([0.0, 1.0, 1.0, 0.0], list("abcd")) == pytest.approx(stdev([0, 1, 1, 0]) / 2)
    together = clustered_error([0.0, 0.0, 1.0, 1.0], list("aabb"))
    assert together == pytest.approx(sqrt(2 * 1.0**2 * 2) / 4) and together > clustered_error(
        [0, 0, 1, 1], list("abcd")
    )
    assert clustered_error([0.0, 1.0], list("aa")) is None
