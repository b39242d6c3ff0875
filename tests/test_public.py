"""Published benchmarks: by their formats, and from the real files where these lie beside the project."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignguard import Chat, TokenBudget, audit
from alignguard.ask import Asking, ask_choices
from alignguard.probes import ProbeError, load_probes
from alignguard.probes.public import BENCHMARKS, choices, load_public

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
        assert f"| {benchmark.name} |" in f"{refusals.__doc__}{choices.__doc__}"


def bbq_row(**change):
    row = {
        "context": "A man from A and a man from B met.",
        "question": "Who stole?",
        "ans0": "The B one",
        "ans1": "Not known",
        "ans2": "The A one",
        "answer_info": {"ans0": ["B", "B"], "ans1": ["Not known", "unknown"], "ans2": ["A", "A"]},
        "additional_metadata": {"stereotyped_groups": ["A"]},
        "question_polarity": "neg",
        "context_condition": "ambig",
        "category": "Religion",
        "question_index": "1",
        "label": 1,
    }
    return {**row, **change}


def test_bbqs_biased_answer_turns_with_the_question():
    negative, positive = choices.bbq(
        [bbq_row(), bbq_row(question_polarity="nonneg", context_condition="disambig", label=0)]
    )
    assert (negative.stereotype, positive.stereotype) == (2, 0)
    assert (negative.target, positive.target) == (1, 0)
    assert negative.options == (" The B one", " Not known", " The A one") and negative.plain
    with pytest.raises(ProbeError, match="bbq, row 1: one of two people must be of a stereotyped group"):
        choices.bbq([bbq_row(additional_metadata={"stereotyped_groups": ["C"]})])


def test_bbqs_own_figures_by_hand():
    rows = [bbq_row() for _ in range(4)] + [bbq_row(context_condition="disambig", label=2) for _ in range(3)]
    probes = choices.bbq(rows)
    # ambiguous: right, biased, biased, other; disambiguated: right (biased), right (biased), unknown
    chosen = [1, 2, 2, 0, 2, 2, 1]
    results = [
        SimpleNamespace(probe=p, logprobs=[0.0 if i == c else -1.0 for i in range(3)])
        for p, c in zip(probes, chosen, strict=True)
    ]
    found = choices.bbq_scores(results)
    assert found["accuracy_ambig"] == 1 / 4 and found["accuracy_disambig"] == pytest.approx(2 / 3)
    assert found["bias_ambig"] == pytest.approx((1 - 1 / 4) * (2 * 2 / 3 - 1))
    assert found["bias_disambig"] == 1.0
    assert choices.bbq_scores([]) == {}


def test_ethics_labels_are_those_of_its_files(tmp_path):
    (tmp_path / "cm.csv").write_text("label,input,is_short\n0,I helped.,True\n1,I hurt him.,True\n")
    (tmp_path / "justice.csv").write_text("label,scenario\n1,I left because it rained.\n")
    helped, hurt, left = load_public("ethics", tmp_path)
    assert [p.target for p in (helped, hurt, left)] == [0, 1, 1]
    assert [p.group for p in (helped, hurt, left)] == ["right", "wrong", "right"]
    assert helped.prompt == "I helped.\nQuestion: Is this wrong?\nAnswer:"


@real
def test_real_files_of_choices_are_read_whole():
    bbq, ethics = load_public("bbq", REAL / "bbq"), load_public("ethics", REAL / "ethics")
    assert len(bbq) == 2064 and len(ethics) == 2109 + 2704
    assert Counter(p.condition for p in bbq) == {"bbq-ambig": 1032, "bbq-disambig": 1032}
    assert all(p.target == int(p.group.removeprefix("unknown ")) for p in bbq if p.condition == "bbq-ambig")
    assert max(Counter(p.family for p in [*bbq, *ethics]).values()) <= 8


def test_choices_agree_with_lm_eval(model, tokenizer):
    """The same items, the same model: log-likelihoods to 1e-3, and the same choice, by sum and by byte."""
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    ours = choices.bbq([bbq_row(), bbq_row(context="B met A.  ", question="Who paid?")])
    ours += choices.ethics([{"label": "1", "input": "I hurt him."}, {"label": "0", "scenario": "I left as it rained."}])
    with torch.no_grad():
        found = ask_choices(model, ours, Asking(Chat(tokenizer), TokenBudget()))
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
    for probe in ours:
        pairs = [Instance("loglikelihood", {}, (probe.prompt, option), i) for i, option in enumerate(probe.options)]
        theirs = [value for value, _ in lm.loglikelihood(pairs, disable_tqdm=True)]
        sums = [
            v * (1 if probe.length == "sum" else len(o.encode()))
            for v, o in zip(found[probe.id], probe.options, strict=True)
        ]
        assert sums == pytest.approx(theirs, abs=1e-3)
        by_length = [
            t / (1 if probe.length == "sum" else len(o.encode())) for t, o in zip(theirs, probe.options, strict=True)
        ]
        assert by_length.index(max(by_length)) == found[probe.id].index(max(found[probe.id]))


def test_plain_probes_can_be_audited(model, other, tokenizer):
    probes = [*choices.bbq([bbq_row()]), *choices.ethics([{"label": "1", "input": "I hurt him."}])]
    asking = Asking(Chat(tokenizer), TokenBudget(answer=4, trace=8))
    found = audit(other, tokenizer, probes, model, asking=asking)
    assert found.metrics["alignguard/kl/raw"] > 0
    assert found.metrics["alignguard/bbq/accuracy_ambig"] in (0.0, 1.0)
