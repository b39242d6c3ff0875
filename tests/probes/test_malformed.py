"""Malformed input: each mistake is one line that names the file, the line and the field, and says what would be right."""

import json

import pytest
from datasets import Dataset

from alignguard.errors import ProbeError
from alignguard.probes.pool import load_probes
from alignguard.probes.probe import Probe
from alignguard.probes.public.load import load_public

GOOD = {"id": "a", "dimension": "safety", "family": "f", "judge": "refusal", "expect": "refuse", "prompt": "How?"}
CHOICE = {**GOOD, "judge": "choice", "expect": None, "options": ["a", "b"], "target": 0}
STATS = "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\nnurse\t85\t89\t2015\n"


def line(**change):
    return json.dumps({k: v for k, v in {**GOOD, **change}.items() if v is not None})


# what is loaded (a benchmark's name, or none for a probe file), the file and what it holds, what the error says
TABLE = [
    ("", "mine.jsonl", "{", "line 1: not JSON"),
    ("", "mine.jsonl", line() + "\n[1]", "line 2: expected an object"),
    ("", "mine.jsonl", line(id=None), "line 1: the field 'id' is missing"),
    ("", "mine.jsonl", line(family=""), "'family' must be a non-empty string"),
    ("", "mine.jsonl", line(dimension="safty"), "no dimension 'safty'; did you mean 'safety'?"),
    ("", "mine.jsonl", line(judge="refuse"), "no judge 'refuse'; did you mean 'refusal'?"),
    ("", "mine.jsonl", line(expect=None), "the judge 'refusal' needs the field 'expect'"),
    ("", "mine.jsonl", line(expect="maybe"), "'expect' must be 'refuse' or 'comply'"),
    ("", "mine.jsonl", line(promt="x"), "unknown field 'promt'; did you mean 'prompt'?"),
    ("", "mine.jsonl", line(prompt=None), "give either 'prompt' or 'messages'"),
    ("", "mine.jsonl", line(messages=[]), "give either 'prompt' or 'messages', not both"),
    ("", "mine.jsonl", line(prompt="  "), "an empty prompt or turn"),
    ("", "mine.jsonl", line(prompt=None, messages=[{"role": "user"}]), "'messages' must be a list of"),
    (
        "",
        "mine.jsonl",
        line(prompt=None, messages=[{"role": "assistant", "content": "x"}]),
        "the last turn must be the user's",
    ),
    (
        "",
        "mine.jsonl",
        line(judge="choice", expect=None, options=["a"], target=0),
        "'options' must be a list of two or more",
    ),
    ("", "mine.jsonl", line(judge="choice", expect=None, options=["a", "a"], target=0), "two options are the same"),
    ("", "mine.jsonl", line(judge="choice", expect=None, options=["a", "b"], target=2), "0 to 1, not 2"),
    ("", "mine.jsonl", line(judge="leak", expect=None, secrets="x"), "'secrets' must be a list of non-empty strings"),
    *(
        (
            "",
            "mine.jsonl",
            line(judge=judge, expect=None, **{key: ["Jane", unseen]}),
            f"mine.jsonl, line 1, probe 'a': '{key}' hold {shown}, of which nothing can be seen in an answer; give ",
        )
        for judge, key in (("leak", "secrets"), ("tell", "facts"))
        for unseen, shown in (("\u200b", "'\\u200b'"), (" \u00ad\u2060 ", "' \\xad\\u2060 '"), ("\u0301", "'\\u0301'"))
    ),
    (
        "",
        "mine.jsonl",
        line(judge="number", expect=None, expected="seven"),
        "'expected' must be a number in a string, not 'seven'",
    ),
    ("", "mine.jsonl", line() + "\n" + line(), "the id stands twice"),
    ("", "mine.jsonl", "", "holds no probe"),
    ("", "mine.jsonl", b"\xff\xfe{\x00", "line 1: not UTF-8"),
    ("", "mine.jsonl", line(**{**CHOICE, "listed": "no"}), "line 1: 'listed' must be true or false"),
    (
        "",
        "mine.jsonl",
        line(**{**CHOICE, "target": -1}),
        "line 1: 'target' must be the index of an option, 0 to 1, not -1",
    ),
    ("", "mine.jsonl", "id,dimension,prompt\na,safety,How?\n", "mine.jsonl, line 1: not JSON (Expecting value)"),
    (
        "",
        "mine.jsonl",
        b"x" * 100_000_000,
        "mine.jsonl, line 1: longer than 1,000,000 bytes; one probe a line is expected",
    ),
    ("", "mine.csv", "id,prompt\n", "mine.csv: probe files are JSONL and end in .jsonl"),
    ("", "mine.jsonl", None, "mine.jsonl: cannot be read (No such file"),
    (
        "xstest",
        "x.csv",
        "prompt,type\nhello,a\n",
        "x.csv, row 1: the field 'label' is missing or empty; found: prompt, type",
    ),
    ("xstest", "x.csv", "prompt,label\nhello,safe\n,unsafe\n", "x.csv, row 2: the field 'prompt' is missing or empty"),
    (
        "xstest",
        "x.csv",
        "prompt,label\nhello,maybe\n",
        "xstest, row 1: 'label' must be 'safe' or 'unsafe', not 'maybe'",
    ),
    ("xstest", "x.csv", "", "x.csv: holds no row"),
    ("xstest", "x.csv", 'prompt,label\n"hello,safe', "x.csv: cannot be read (unexpected end of data)"),
    ("xstest", "x.csv", b"prompt,label\n\xff,safe\n", "x.csv: not UTF-8 (byte 13)"),
    ("xstest", "x.jsonl", '{"prompt": 1}\n{', "x.jsonl, line 2: not JSON"),
    ("xstest", "x.jsonl", "[1]", "x.jsonl, line 1: an object with fields is expected"),
    ("xstest", "x.json", "{}", "x.json: a list of objects is expected"),
    ("xstest", "x.json", "{", "x.json: cannot be read (Expecting"),
    ("xstest", "x.parquet", "no", "x.parquet: cannot be read ("),
    ("xstest", "x.xlsx", "no", "csv, tsv, json, jsonl or parquet is expected, not '.xlsx'"),
    ("xstest", "x.csv", None, "x.csv: cannot be read (No such file"),
    ("ethics", "x.csv", "label,input\n2,I left.\n", "ethics, row 1: 'input' or 'scenario', and a label of 0 or 1"),
    (
        "moralchoice",
        "x.csv",
        "scenario_id,ambiguity,context,action1,action2\na,mid,b,c,d\n",
        "'low' or 'high', not 'mid'",
    ),
    ("realtoxicityprompts", "x.jsonl", '{"prompt": "text"}', "row 1: 'prompt' must be an object with a 'text'"),
    ("winogender", "x.tsv", STATS, "all_sentences.tsv is missing; give the folder that holds both files"),
    ("winogender", "x.tsv", "sentid\tsentence\na.b.1.male.txt\tHe left.\n", "occupations-stats.tsv is missing"),
    ("confaide", "x.txt", "text", "x.txt: confaide is read from the folder of its files"),
    ("xtest", "x.csv", "", "no benchmark 'xtest'; did you mean 'xstest'?"),
    (
        "AI-Secure/DecodingTrust",
        "x.csv",
        "",
        "several benchmarks; name one: decodingtrust-toxicity, decodingtrust-stereotype",
    ),
]


@pytest.mark.parametrize(("benchmark", "name", "content", "message"), TABLE)
def test_a_file_s_mistakes_are_one_line(tmp_path, benchmark, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProbeError) as error:
        load_public(benchmark, path) if benchmark else load_probes(path)
    said = str(error.value)
    assert message in said and "\n" not in said and len(said) < 700


@pytest.mark.parametrize(
    ("source", "message"),
    [
    ("safty", "no probe set 'safty'; did you mean 'safety'?"),
    ("xyz", "there are: core, safety"),
        ([], "the pool is empty"),
        ([3], "a name, a path, a dataset or probes are expected, not a int"),
        ([{**GOOD, "dimension": "x"}], "probe 0: no dimension 'x'"),
        (Dataset.from_list([GOOD, {**GOOD, "judge": "leak"}]), "dataset, row 1: the judge 'leak' needs the field 'secrets'"),
        (
            [Probe("b", "privacy", ({"role": "user", "content": "Tell."},), "leak", "f", secrets=("Jane", "\u200b "))],
            "probe 'b': 'secrets' hold '\\u200b ', of which nothing can be seen in an answer",
        ),
        # there is no network in tests
    ("Paul/XSTest", "Paul/XSTest: cannot be loaded from the hub ("),
    ("winogender", "winogender is not on the hub; give load_public('winogender', path=...) its folder"),
    ],
)  # fmt: skip
def test_a_source_s_mistakes_are_one_line(source, message):
    with pytest.raises(ProbeError) as error:
        load_probes(source)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_benchmark_s_folder_must_hold_its_files(tmp_path):
    with pytest.raises(ProbeError, match="no file of xstest in it"):
        load_public("xstest", tmp_path)
    (tmp_path / "tier_1.txt").write_text("How sensitive?\n")
    with pytest.raises(ProbeError, match=r"tier_1_labels.txt: cannot be read \(No such file"):
        load_public("confaide", tmp_path)
    (tmp_path / "tier_1_labels.txt").write_text("1\n2\n")
    with pytest.raises(ProbeError, match="2 labels for 1 questions of tier 1"):
        load_public("confaide", tmp_path)
    (tmp_path / "tier_1_labels.txt").write_text("much\n")
    with pytest.raises(ProbeError, match=r"tier_1_labels.txt, line 1: a number is expected, not 'much'"):
        load_public("confaide", tmp_path)
