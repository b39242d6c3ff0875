import json
from dataclasses import replace

import pytest
from tiny import tiny_probes

from alignguard.auditing.audit import Audit
from alignguard.auditing.result import ProbeDrift, Result
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Answer
from alignguard.records.about import About
from alignguard.records.store import Store, read_results, write_results


def results():
    said = Answer((3, 4, 1), "hm", "no \ud800 <script>", True, True, True)
    drift = ProbeDrift([0.5, 0.25], [0.125], 0.75, 0, -1)
    found = {p.id: Result(p, Score(0.5, Status.ANSWERED, {"toxicity": 0.5}), said, None, drift) for p in tiny_probes()}
    found["e1"] = Result(found["e1"].probe, Score(None, Status.EMPTY, None, True), None, [-1.0, -2.0], None)
    return found


def audit(step):
    return Audit(step, results(), {"alignguard/kl/raw": 0.1 * step}, 5.0, [0.5])


def test_results_come_back_as_they_were(tmp_path):
    found = results()
    write_results(tmp_path / "a" / "x.parquet", found)
    back = read_results(tmp_path / "a" / "x.parquet", tiny_probes())
    assert back.keys() == found.keys()
    assert back["e1"] == found["e1"]
    clean = replace(found["s1"].answer, answer="no ? <script>")  # a lone surrogate cannot be written
    assert back["s1"] == replace(found["s1"], answer=clean)


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    store = Store.of_run(tmp_path)
    store.prepare()
    store.append(audit(0))
    store.append(audit(2))
    with (store.root / "audits.jsonl").open("a") as file:
        file.write('{"step": 4, "met')
    assert [line["step"] for line in store.lines()] == [0, 2]
    zero, two = store.read_audits(tiny_probes(), 2)
    assert (
        (zero.step, two.step, two.profile) == (0, 2, [0.5])
        and not zero.results
        and two.results.keys() == results().keys()
    )


@pytest.mark.parametrize(("step", "left"), [(0, [0]), (3, [0, 2]), (4, [0, 2, 4])])
def test_rewinding_drops_the_future(tmp_path, step, left):
    store = Store.of_run(tmp_path)
    store.prepare()
    for at in (0, 2, 4):
        store.append(audit(at))
    (store.private / "traces").mkdir()
    for at in (2, 4):
        (store.private / "traces" / f"safety-refuse_00000-{at:05d}.jsonl").write_text("")
    store.rewind(step)
    assert {int(path.stem[-5:]) for path in (store.private / "traces").iterdir()} == {*left} - {0}
    assert [line["step"] for line in store.lines()] == left
    store.append(audit(9))  # and the file can be added to
    assert [line["step"] for line in store.lines()] == [*left, 9]


def test_the_baseline_comes_back(tmp_path):
    store = Store.of_run(tmp_path)
    store.prepare()
    assert store.read_about() is None and store.read_baseline(tiny_probes()) == {}
    store.write_baseline(About(seed=3), results())
    assert store.read_about() == About(seed=3)
    assert json.loads((store.root / "baseline.json").read_text())["scores"]["e1"] is None
    assert store.read_baseline(tiny_probes())["s1"].answer.tokens == (3, 4, 1)


def test_what_an_earlier_attempt_left_is_set_aside_or_gone(tmp_path):
    store = Store.of_run(tmp_path)
    store.prepare()
    store.write_prompts({"train-0": [1, 2]})  # a start that came to no record
    for name in ("reference.safetensors", "anchors.safetensors"):
        (store.private / name).write_bytes(b"")
    assert store.set_aside() is None
    store.begin_empty(keep="reference*.safetensors")
    assert [path.name for path in store.private.iterdir()] == ["reference.safetensors"]
    for name in ("rows", "said", "traces"):
        (store.private / name).mkdir()
        (store.private / name / "about.json").write_text("{}")
    assert store.set_aside() == tmp_path / "alignguard.1"  # whose figures somebody has removed
    assert (tmp_path / "_alignguard.1" / "rows" / "about.json").exists() and not store.private.exists()
    store.prepare()
    store.add("pulses.jsonl", {"step": 1, "metrics": {}})  # all that is left of figures
    assert store.set_aside() == tmp_path / "alignguard.2"
    matched = Store(tmp_path / "audit")  # its folder is people's own, and may hold an answers/ of theirs
    (matched.root / "answers").mkdir(parents=True)
    (matched.root / "answers" / "mine.txt").write_text("")
    assert matched.set_aside() is None


def test_what_was_cut_off_in_the_writing_goes_and_is_told_of(tmp_path):
    store = Store.of_run(tmp_path)
    store.prepare()
    for at in (0, 2, 4):
        store.append(audit(at))
    store.add("pulses.jsonl", {"step": 1, "metrics": {}})
    for name, torn in (("audits.jsonl", b'{"step": 6, "met'), ("pulses.jsonl", b'{"st')):
        with (store.root / name).open("ab") as file:
            file.write(torn)
    (store.private / "answers" / "step_00006.parquet.part").write_bytes(b"half")
    (store.root / "baseline.json.part").write_bytes(b"half")
    assert store.rewind(2) == ["audits.jsonl (1)", "pulses.jsonl (1)"]
    assert [line["step"] for line in store.lines()] == [0, 2]
    assert sorted(path.name for path in store.private.rglob("*.p*")) == ["step_00000.parquet", "step_00002.parquet"]
    assert not [*store.root.glob("*.part")]
    assert store.rewind(2) == []


def test_a_line_that_was_torn_in_the_middle_of_a_file_is_told_of(tmp_path):
    store = Store.of_run(tmp_path)
    store.prepare()
    (store.root / "pace.jsonl").write_text(
        '{"step": 1, "did": "audit"}\n{"did": "pu\n[]\n{"step": 3, "did": "audit"}\n'
    )
    assert store.rewind(2) == ["pace.jsonl (2)"]
    assert [line["step"] for line in store.lines("pace.jsonl")] == [1, 3]  # decided stays decided
