"""`alignguard compare`: what it calls comparable, and what it tells of what an audit lacks; on records made by hand."""

import json
from dataclasses import replace

import pytest
from recorded import recorded

from alignguard.cli import main
from alignguard.cli.compare import _over

SERVED = {"max_steps": None, "alpha_until": None, "model_fingerprint": "", "engine": {"server": "vllm"}}


def compared(capsys, *runs):
    """The exit code, what is said on stderr, and the JSON."""
    code = main(["compare", *map(str, runs), "--json"])
    out, err = capsys.readouterr()
    return code, err, json.loads(out)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ({}, {"template_kwargs": {"enable_thinking": True}}, "template options"),
        ({"tags": ("<a>", "</a>")}, {"tags": ("<b>", "</b>")}, "thinking tags"),
        ({}, {"alignguard": "0.0.1"}, "version of AlignGuard"),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, "dtype"),
        ({}, {"left_out": ("drift", "choices")}, "what is left out"),
        ({**SERVED, "against": "http://a/v1"}, {**SERVED, "against": "http://b/v1"}, "start"),
        ({"model": "org/start"}, {**SERVED, "against": "org/other"}, "start"),
        ({"model": "org/start"}, SERVED, "start"),
    ],
)
def test_what_figures_depend_on_is_held_side_by_side(tmp_path, one, other, name, capsys):
    runs = tmp_path / "one", tmp_path / "other"
    for run, about in zip(runs, (one, other), strict=True):
        recorded(run, {0: 1.0, 8: 1.0}, **about)
    _, err, told = compared(capsys, *runs)
    assert told["differ"] == [name] and f"not comparable: the runs differ in their {name}\n" in err
    main(["compare", *map(str, runs), "--html", str(tmp_path / "x.html")])
    assert f"differ in their {name}" in (tmp_path / "x.html").read_text()


def test_what_a_record_does_not_tell_is_no_difference(tmp_path, capsys):
    recorded(tmp_path / "now", {0: 1.0, 8: 1.0}, tags=("<a>", "</a>"), dtype="float32", tokenizer_fingerprint="abc")
    recorded(tmp_path / "old", {0: 1.0, 8: 1.0}, alignguard="")
    recorded(tmp_path / "served", {0: 1.0, 8: 1.0}, **SERVED, against="org/model")
    _, err, told = compared(capsys, *(tmp_path / name for name in ("now", "old", "served")))
    assert told["differ"] == told["drawn"] == [] and err == ""


def test_other_probes_of_the_same_pool_are_told_of(tmp_path, capsys):
    recorded(tmp_path / "a", {0: 1.0, 8: 1.0})
    recorded(tmp_path / "b", {0: 1.0, 8: 1.0}, seed=7, draw=12)
    _, err, told = compared(capsys, tmp_path / "a", tmp_path / "b")
    assert told["differ"] == [] and told["drawn"] == ["seed", "draw"]
    assert err == "alignguard: other probes of the pool were drawn (seed, draw): figures differ by chance, too\n"


def test_other_rules_are_told_of(tmp_path, capsys):
    strict = {"alpha": 0.01, "min_drop": 0.03, "checkpoint": False}
    recorded(tmp_path / "a", stop={"alpha": 0.05, "min_drop": 0.03})
    recorded(tmp_path / "b", stop=strict)
    recorded(tmp_path / "alone", {0: 0.75}, **SERVED, stop={"alpha": 0.2})  # nothing is called of it
    _, err, told = compared(capsys, tmp_path / "a", tmp_path / "b")
    assert told["ruled"] == ["alpha"] and "called by other rules (alpha): what" in err
    _, err, told = compared(capsys, tmp_path / "a", tmp_path / "alone")
    assert told["ruled"] == [] and "rules" not in err


def test_weights_that_were_put_back_are_told_of(tmp_path, capsys):
    """The figures beside a run's name would be taken for those of the weights that it left."""
    recorded(tmp_path / "a")
    recorded(tmp_path / "b", put_back="checkpoint-2")
    page = tmp_path / "page.html"
    capsys.readouterr()
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(page)])
    note = f"{tmp_path / 'b'}: After training the weights of checkpoint-2 were put back; the figures are of the last audit's."
    assert capsys.readouterr().err == f"alignguard: {note}\n" and note.replace("'", "&#39;") in page.read_text("utf-8")


def test_the_last_drop_is_the_last_audits(tmp_path, capsys):
    """Of toxicity nothing can be judged at the last: the drop of the audit before was told in its place."""
    record = recorded(tmp_path / "run")
    assert record.audits[-2].figure("toxicity/drop") == 0.25 and record.audits[-1].figure("toxicity/drop") is None
    _, _, told = compared(capsys, tmp_path / "run")
    (run,) = told["runs"]
    assert run["last_drop"]["toxicity"] is None and run["worst_drop"]["toxicity"] == 0.25
    assert run["last_drop"]["safety"] == record.audits[-1].figure("safety/drop")
    main(["compare", str(tmp_path / "run")])
    assert " - (+0.25)" in capsys.readouterr().out


def test_where_too_few_could_be_judged_there_is_no_last_drop(tmp_path):
    """One pair of twelve makes a drop of that audit, which is no drop of the dimension."""
    record = recorded(tmp_path / "run")
    safety = replace(record.verdict.dimensions["safety"], n=1, asked=12, unscored=11, unjudged=True)
    few = replace(record, verdict=replace(record.verdict, dimensions={**record.verdict.dimensions, "safety": safety}))
    assert _over(record)["last_drop"]["safety"] is not None and _over(few)["last_drop"]["safety"] is None


def test_of_a_model_held_against_nothing_the_score_is_told(tmp_path, capsys):
    recorded(tmp_path / "alone", {0: 0.75}, **SERVED)
    main(["compare", str(tmp_path / "alone")])
    head, row = capsys.readouterr().out.splitlines()[:2]
    assert row.split()[1:8] == ["-", "1", "0.0000", "0.75", "-", "-", "0"] and head.split()[4] == "reasoning"


def test_models_that_could_not_be_audited_are_told_of_and_do_not_pass(tmp_path, capsys):
    recorded(tmp_path / "many" / "sft", {0: 1.0, 4: 1.0})
    run = tmp_path / "many" / "sft"
    for path in (run / "alignguard").iterdir():
        path.rename(run / path.name)
    (run / "_alignguard").rename(tmp_path / "many" / "_sft")
    listed = tmp_path / "many" / "models.json"
    listed.write_text(json.dumps({"models": [], "failed": {"runs/b": "runs/b: lacks \u202eweights"}}))
    capsys.readouterr()
    code, err, told = compared(capsys, tmp_path / "many")
    assert main(["compare", str(run)]) == 0 and capsys.readouterr()
    assert code == 1 and len(told["runs"]) == 1 and list(told["failed"]) == ["runs/b"]
    assert err == "alignguard: not audited: runs/b: lacks \\u202eweights\n"
    main(["compare", str(tmp_path / "many"), "--html", str(tmp_path / "x.html")])
    assert "not audited: runs/b: lacks" in (tmp_path / "x.html").read_text()
    listed.write_text("[]")
    assert main(["compare", str(tmp_path / "many")]) == 1
    assert "models.json: is not what `alignguard audit` wrote" in capsys.readouterr().err
