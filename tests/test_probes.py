import json
from collections import Counter
from pathlib import Path

import pytest

import alignguard.probes as probes_module
from alignguard.probes import DIMENSIONS, TRUST_DIMENSIONS, ProbeError, load_probes, pool_hash, probe_from_row

GOOD = {"id": "a", "dimension": "safety", "family": "f", "judge": "refusal", "expect": "refuse", "prompt": "How?"}


def test_the_pool_is_large_and_varied():
    pool = load_probes("core")
    counts = Counter(p.dimension for p in pool)
    assert all(counts[d] >= 200 for d in TRUST_DIMENSIONS) and counts["reasoning"] >= 100
    assert max(Counter((p.dimension, p.family) for p in pool).values()) <= 8
    assert len({json.dumps(p.messages) for p in pool}) == len(pool)


def test_the_pool_is_balanced():
    pool = load_probes("core")
    safety = Counter(p.expect for p in pool if p.dimension == "safety")
    assert safety["refuse"] == safety["comply"]
    ethics = Counter(p.target for p in pool if p.dimension == "ethics")
    assert ethics[0] == ethics[1]
    stereotype = [p for p in pool if p.dimension == "stereotype"]
    assert len({p.group for p in stereotype}) >= 9
    conditions = Counter(p.condition for p in stereotype)
    assert conditions["ambiguous"] == conditions["disambiguated"] > 0
    assert {p.judge for p in pool if p.dimension == "privacy"} == {"leak", "tell"}


def test_secrets_stand_in_what_is_asked_and_facts_are_told_by_themselves():
    from alignguard.scoring import _squeeze, _tells

    for p in load_probes("privacy"):
        asked = " ".join(turn["content"] for turn in p.messages)
        for secret in p.secrets:
            assert len(_squeeze(secret)) >= 3 and _squeeze(secret) in _squeeze(asked), p.id
        for fact in p.facts:
            assert _tells(fact, f"It is {fact}."), p.id


def test_sources_are_names_files_and_probes(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n", encoding="utf-8")
    assert [p.id for p in load_probes(path)] == [p.id for p in load_probes(str(path))] == ["a"]
    pool = load_probes(["privacy", probe_from_row(GOOD), *load_probes("ethics")[:2]])
    assert len(pool) == len(load_probes("privacy")) + 3
    assert pool_hash(pool) != pool_hash(pool[1:])


def line(**change):
    return json.dumps({k: v for k, v in {**GOOD, **change}.items() if v is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1: not JSON"),
        (line() + "\n[1]", "line 2: expected an object"),
        (line(id=None), "line 1: the field 'id' is missing"),
        (line(family=""), "'family' must be a non-empty string"),
        (line(dimension="safty"), "no dimension 'safty'; did you mean 'safety'?"),
        (line(judge="refuse"), "no judge 'refuse'; did you mean 'refusal'?"),
        (line(expect=None), "the judge 'refusal' needs the field 'expect'"),
        (line(expect="maybe"), "'expect' must be 'refuse' or 'comply'"),
        (line(promt="x"), "unknown field 'promt'; did you mean 'prompt'?"),
        (line(prompt=None), "give either 'prompt' or 'messages'"),
        (line(messages=[]), "give either 'prompt' or 'messages', not both"),
        (line(prompt="  "), "an empty prompt or turn"),
        (line(prompt=None, messages=[{"role": "user"}]), "'messages' must be a list of"),
        (line(prompt=None, messages=[{"role": "assistant", "content": "x"}]), "the last turn must be the user's"),
        (line(judge="choice", expect=None, options=["a"], target=0), "'options' must be a list of two or more"),
        (line(judge="choice", expect=None, options=["a", "a"], target=0), "two options are the same"),
        (line(judge="choice", expect=None, options=["a", "b"], target=2), "0 to 1, not 2"),
        (line(judge="leak", expect=None, secrets="x"), "'secrets' must be a list of non-empty strings"),
        (line(judge="number", expect=None, expected="seven"), "'expected' must be a number in a string, not 'seven'"),
        (line() + "\n" + line(), "the id stands twice"),
        ("", "holds no probe"),
        (b"\xff\xfe{\x00", "line 1: not UTF-8"),
        ("x" * 3000, "longer than 2,000 bytes"),
    ],
)
def test_mistakes_are_one_line_that_says_where(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(probes_module, "MAX_LINE", 2000)
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProbeError) as error:
        load_probes(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("safty", "no probe set 'safty'; did you mean 'safety'?"),
        ("xyz", "there are: core, safety"),
        ("missing.jsonl", "missing.jsonl: cannot be read (No such file"),
        ("data.csv", "data.csv: probe files are JSONL and end in .jsonl"),
        ([], "the pool is empty"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(ProbeError) as error:
        load_probes(source)
    assert message in str(error.value)


def test_every_file_ships_with_the_package():
    for dimension in DIMENSIONS:
        assert (Path(probes_module.__file__).parent / f"{dimension}.jsonl").exists()
