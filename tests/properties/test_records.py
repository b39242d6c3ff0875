"""A record may have been written by anybody, or cut off anywhere: it is read, or told of in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fuzz import any_json, any_text, quickly
from hypothesis import given
from hypothesis import strategies as st
from reliability_case import Ground
from tiny import tiny_probes

from alignguard.auditing.audit import Audit
from alignguard.auditing.result import Result
from alignguard.errors import RunError
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Answer
from alignguard.records.about import About
from alignguard.records.lines import audit_of, probe_of, read_lines
from alignguard.records.record import read_record
from alignguard.records.results import read_results, write_results
from alignguard.report.html import render
from alignguard.report.terminal import dumps, summary, tables
from alignguard.text import clean

LINE = {"step": 5, "time": 0.0, "scores": {"s1": 1.0}, "metrics": {"alignguard/kl/raw": 0.1}, "profile": [0.5]}
FILES = ["alignguard/baseline.json", "alignguard/audits.jsonl", "_alignguard/probes.jsonl"]
PARQUET = ["_alignguard/answers/baseline.parquet", "_alignguard/answers/step_00005.parquet"]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    ground = Ground(tmp_path_factory.mktemp("record"))
    shutil.copytree(ground.record, ground.folder / "changed")
    return ground.record, ground.folder / "changed"


def read_or_told(path):
    """Whatever is read can be shown, too."""
    try:
        record = read_record(str(path))
    except RunError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        return
    tables(record)
    json.loads(dumps(summary(record)))
    render(record.about, record.audits, record.verdict)


@quickly
@given(st.sampled_from([*FILES, *PARQUET]), st.integers(0, 10**6), st.binary(max_size=4), st.booleans())
def test_a_record_of_which_bytes_are_changed_is_read_or_told_of(there, name, at, put, cut):
    before, after = (Path(folder) / name for folder in there)
    held = before.read_bytes()
    at %= len(held) + 1
    after.write_bytes(held[:at] + put + (b"" if cut else held[at + len(put) :]))
    try:
        read_or_told(there[1])
    finally:
        after.write_bytes(held)


@quickly
@given(st.sampled_from(FILES), st.data())
def test_a_record_of_which_a_field_is_another_is_read_or_told_of(there, name, data):
    before, after = (Path(folder) / name for folder in there)
    held = before.read_text()
    parts = [json.loads(held)] if name.endswith(".json") else [json.loads(line) for line in held.splitlines()]
    number = data.draw(st.integers(0, len(parts) - 1))
    key = data.draw(st.sampled_from(sorted(parts[number])))
    parts[number][key] = data.draw(any_json)
    after.write_text("\n".join(map(json.dumps, parts)))
    try:
        read_or_told(there[1])
    finally:
        after.write_text(held)


@quickly
@given(st.dictionaries(st.sampled_from([*LINE, "unsure", "leaning"]), any_json, max_size=3))
def test_a_line_is_an_audit_or_says_which_field_is_wrong(change):
    try:
        found = audit_of(LINE | change)
    except ValueError as error:
        assert str(error).startswith("audits.jsonl: ") and any(name in str(error) for name in change)
    else:
        assert isinstance(found, Audit) and found.step >= 0


@quickly
@given(
    st.dictionaries(st.sampled_from(["id", "messages", "options", "target", "newer", "listed"]), any_json, max_size=3)
)
def test_a_line_is_a_probe_or_says_which_field_is_wrong(change):
    line = {
        "id": "a",
        "dimension": "safety",
        "messages": [{"role": "user", "content": "?"}],
        "judge": "own",
        "family": "f",
    }
    try:
        assert probe_of(line | change).dimension == "safety"
    except ValueError as error:
        assert str(error).startswith("probes.jsonl: ")


@quickly
@given(any_json)
def test_what_a_record_says_of_itself_is_read_or_told_of(value):
    for told in (value, {"pool_hash": "x", "seed": 0, "model": value}, {"pool_hash": "x", "seed": 0, "stop": value}):
        try:
            about = About.from_dict(told)
            assert isinstance(about.model, str)
        except (ValueError, TypeError) as error:
            assert str(error)


@quickly
@given(any_text, any_text, any_text)
def test_what_was_said_comes_back_as_it_was(tmp_path_factory, said, thought, opening):
    probe = tiny_probes()[0]
    answer = Answer((1, 2), thought, said, True, True, False)
    result = Result(probe, Score(0.5, Status.ANSWERED, {"toxicity": 0.5}), answer, [-1.0, -2.0], opening=opening)
    path = tmp_path_factory.getbasetemp() / "results.parquet"
    write_results(path, {probe.id: result})
    (back,) = read_results(path, [probe]).values()
    kept = replace(answer, trace=clean(thought), answer=clean(said))
    assert back == replace(result, answer=kept, opening=clean(opening))


@quickly
@given(st.binary(max_size=200))
def test_of_any_file_of_lines_its_objects_are_read(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(content + b'\n{"step": 1}\n')
    assert read_lines(path)[-1] == {"step": 1}
