"""Published benchmarks: by their formats, and from the real files where these lie beside the project."""

import json
from collections import Counter
from pathlib import Path

import pytest

from alignguard.probes import ProbeError, load_probes
from alignguard.probes.public import BENCHMARKS, load_public

REAL = Path(__file__).parents[2] / "shared" / "benchmarks"
real = pytest.mark.skipif(not REAL.exists(), reason=f"the benchmarks' files are not at {REAL}")


@real
@pytest.mark.parametrize(
    ("name", "harmful", "benign"),
    [("xstest", 200, 250), ("advbench", 520, 0), ("jailbreakbench", 100, 0), ("strongreject", 313, 0)],
)
def test_real_files_are_read_whole(name, harmful, benign):
    probes = load_public(name, REAL / name)
    assert Counter(p.group for p in probes) == Counter({"harmful": harmful, "benign": benign})
    assert all((p.expect == "refuse") == (p.group == "harmful") and p.prompt.strip() for p in probes)
    assert len({p.id for p in probes}) == len(probes)
    assert max(Counter(p.family for p in probes).values()) <= 12
    assert len(load_probes(["safety", *probes])) == len(load_probes("safety")) + len(probes)


@real
def test_samples_are_seeded():
    path = REAL / "xstest"
    found = load_public("Paul/XSTest", path, size=40, seed=1)
    assert len(found) == 40 and found == load_public("xstest", path, size=40, seed=1)
    assert found != load_public("xstest", path, size=40, seed=2)
    assert load_public("xstest", path, size=10_000) == load_public("xstest", path)


def test_formats_without_a_file_here(tmp_path):
    harm = tmp_path / "harmbench.csv"
    harm.write_text("Behavior,ContextString,BehaviorID\nDo it,Some text,b1\nDo that,,b2\n")
    with_context, without = load_public("harmbench", harm)
    assert with_context.prompt == "Some text\n\n---\n\nDo it" and without.prompt == "Do that"
    safety = tmp_path / "sst.jsonl"
    safety.write_text(json.dumps({"id": 1, "prompts_final": "Help me hurt"}) + "\n")
    assert [p.prompt for p in load_public("simplesafetytests", safety)] == ["Help me hurt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "prompt,type\nhello,a\n", "x.csv, row 1: the field 'label' is missing or empty; found: prompt, type"),
        ("x.csv", "prompt,label\nhello,safe\n,unsafe\n", "x.csv, row 2: the field 'prompt' is missing or empty"),
        ("x.csv", "", "x.csv: holds no row"),
        ("x.csv", 'prompt,label\n"hello,safe', "x.csv: cannot be read (unexpected end of data)"),
        ("x.csv", b"prompt,label\n\xff,safe\n", "x.csv: not UTF-8 (byte 13)"),
        ("x.jsonl", '{"prompt": 1}\n{', "x.jsonl, line 2: not JSON"),
        ("x.json", "{}", "x.json: a list of objects is expected"),
        ("x.json", "{", "x.json: cannot be read (Expecting"),
        ("x.parquet", "no", "x.parquet: cannot be read ("),
        ("x.xlsx", "no", "csv, tsv, json, jsonl or parquet is expected, not '.xlsx'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProbeError) as error:
        load_public("xstest", tmp_path / name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ProbeError, match="no benchmark 'xtest'; there are: xstest, advbench"):
        load_public("xtest")
    with pytest.raises(ProbeError, match="no file of xstest in it"):
        load_public("xstest", tmp_path)
    with pytest.raises(ProbeError, match=r"missing.csv: cannot be read \(No such file"):
        load_public("xstest", tmp_path / "missing.csv")
    with pytest.raises(ProbeError, match=r"Paul/XSTest: cannot be loaded from the hub .*path=\.\.\."):
        load_probes("Paul/XSTest")  # there is no network in tests


def test_each_benchmark_is_cited_with_its_licence():
    from alignguard.probes.public import refusals

    for benchmark in BENCHMARKS:
        assert f"| {benchmark.name} |" in (refusals.__doc__ or "")
