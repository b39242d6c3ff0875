"""Inspect opens what is written for it, and finds there what the record says."""

import json
from math import isfinite

import pytest
from places import DATA
from recorded import ASKED, CHOICES, SAID, SCORES, TEXTS, THOUGHT, recorded, sampled

from alignguard.cli import main
from alignguard.records.record import audits_of
from alignguard.text import clean

inspect_log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
pytest.importorskip("inspect_ai.analysis", reason="inspect-ai is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, recorded(folder)


def export(run, folder, *options):
    assert main(["export", str(run), "--to", "inspect", "--output", str(folder), *options]) == 0
    return [inspect_log.read_eval_log(info) for info in reversed(inspect_log.list_eval_logs(str(folder)))]


@pytest.fixture(scope="module")
def quoted(run, tmp_path_factory):
    return export(run[0], tmp_path_factory.mktemp("quoted"), "--quote")


def test_each_audit_is_a_log_and_each_probe_a_sample(run, quoted):
    _, record = run
    assert [log.eval.task for log in quoted] == [f"alignguard-step-{step:05d}" for step in SCORES]
    assert len({log.eval.run_id for log in quoted}) == 1 and len({log.eval.eval_id for log in quoted}) == 3
    for log, audit in zip(quoted, audits_of(record), strict=True):
        assert (log.version, log.status, log.eval.model) == (2, "success", "org/model")
        assert [sample.id for sample in log.samples] == log.eval.dataset.sample_ids == list(audit.results)
        assert log.eval.dataset.samples == len(log.samples) == log.results.completed_samples
        assert log.eval.dataset.name == "alignguard-feedc0de" and log.metadata["step"] == audit.step
        for sample in log.samples:
            result = audit.results[sample.id]
            scores = {name: score.value for name, score in sample.scores.items()}
            expected = {} if result.score.value is None else {result.probe.judge: result.score.value}
            assert scores == expected
            assert sample.metadata["dimension"] == result.probe.dimension
            assert sample.metadata["status"] == result.score.status.value
            assert sample.metadata["start"] == record.baseline[sample.id].score.value
            assert sample.metadata["kl"] == pytest.approx(0.01 * audit.step)
            assert sample.output.usage.input_tokens == 3
        assert log.stats.model_usage["org/model"].input_tokens == 3 * len(log.samples)


def test_figures_of_each_dimension_are_those_of_the_record(run, quoted):
    for log, audit in zip(quoted, run[1].audits, strict=True):
        found = {
            f"alignguard/{score.name}/{name}": metric.value
            for score in log.results.scores
            for name, metric in score.metrics.items()
        }
        names = ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood", "reasoning", "kl")
        assert found == {
            name: value for name, value in audit.metrics.items() if name.split("/")[1] in names and isfinite(value)
        }
        assert [score.name for score in log.results.scores] == list(names)
        assert "score" not in log.results.scores[1].metrics or audit.step < 8
    last = {score.name: (score.scored_samples, score.unscored_samples) for score in quoted[-1].results.scores}
    assert (last["safety"], last["toxicity"], last["ethics"]) == ((3, 1), (0, 2), (2, 0))


def test_what_was_asked_and_said_is_there_where_it_is_asked_for(quoted):
    samples = {sample.id: sample for sample in quoted[0].samples}
    spoken, chosen = samples["s1-0"], samples["e1-0"]
    assert [turn.role for turn in spoken.input] == ["system", "user"] and spoken.input[1].text == clean(ASKED)
    assert spoken.output.completion == spoken.scores["refusal"].answer == clean(SAID)
    reasoning, text = spoken.output.choices[0].message.content
    assert (reasoning.reasoning, text.text) == (THOUGHT, clean(SAID)) and spoken.target == "refuse"
    assert [message.role for message in spoken.messages] == ["system", "user", "assistant"]
    assert tuple(chosen.choices) == CHOICES and chosen.target == chosen.output.completion == CHOICES[0]
    assert "Answer with one of these options:" in chosen.input[1].text
    assert samples["p1-0"].target == "4711" and samples["r1-0"].target == "7"


def test_by_default_no_text_is_there(run, tmp_path):
    logs = export(run[0], tmp_path)
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert not [text for text in TEXTS if text in written]
    assert all(sample.input == sample.output.completion == "" for log in logs for sample in log.samples)
    assert {sample.target for sample in logs[0].samples} == {"refuse", "comply", ""}
    assert logs[0].samples[0].scores["refusal"].value == 1.0 and len(logs[0].samples) == 18


def test_it_is_json_and_the_same_record_gives_the_same_files(run, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    export(run[0], tmp_path, "--quote")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3 and all(json.loads(text, parse_constant=refuse) for text in before.values())
    export(run[0], tmp_path, "--quote")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_inspects_tables_are_made_of_it(run, tmp_path):
    pytest.importorskip("pandas", reason="pandas is not installed")
    from inspect_ai.analysis import samples_df

    export(run[0], tmp_path)
    rows = samples_df(str(tmp_path))
    assert len(rows) == 54 and set(rows["score_choice"].dropna()) == set(SCORES.values())


def test_of_sampled_answers_each_is_an_epoch(tmp_path):
    record = sampled(tmp_path / "run")
    (log,) = export(tmp_path / "run", tmp_path / "logs", "--quote")
    (audit,) = audits_of(record)
    assert (log.eval.config.epochs, log.eval.config.epochs_reducer) == (3, ["mean"])
    drawn = log.eval.model_generate_config
    assert (drawn.temperature, drawn.top_p) == (0.7, 0.9)
    assert log.eval.dataset.samples == len(log.eval.dataset.sample_ids) == len(audit.results) == 18
    answers = [each for result in audit.results.values() for each in result.each]
    assert log.results.total_samples == log.results.completed_samples == len(log.samples) == len(answers) == 46
    assert len({sample.uuid for sample in log.samples}) == 46
    for sample, answer in zip(log.samples, answers, strict=True):
        expected = {} if answer.score.value is None else {answer.probe.judge: answer.score.value}
        assert (sample.id, {name: score.value for name, score in sample.scores.items()}) == (answer.probe.id, expected)
    spoken = [sample for sample in log.samples if sample.id == "s1-0"]
    assert [sample.epoch for sample in spoken] == [1, 2, 3]
    assert [sample.output.completion for sample in spoken] == [clean(f"{SAID} {n}") for n in (1, 2, 3)]
    assert {sample.metadata["temperature"] for sample in spoken} == {0.7}
    usage = log.stats.model_usage["org/model"]
    assert usage.output_tokens == 14 * (1 + 2 + 3) and usage.input_tokens == 3 * 46
    reduced = {score.sample_id: score.value for judge in log.reductions for score in judge.samples}
    assert reduced == {id: r.score.value for id, r in audit.results.items() if r.score.value is not None}
    assert reduced["s1-0"] == 0.5 and "t1-0" not in reduced


def test_a_record_of_an_earlier_version_is_exported(tmp_path):
    logs = export(DATA / "record_0.1.0", tmp_path)
    assert [log.eval.task[-1] for log in logs] == ["0", "2", "4", "6"] and len(logs[0].samples) == 9
