"""`alignguard audit A B C --reference START`: several models against one reference, asked once."""

import gc
import json
import shutil
import weakref

import pytest
from audited import ROWS, mute, save, taken_by, write_probes
from tiny import CHATML, tiny_model, tiny_tokenizer

import alignguard.auditing.audit as auditing
import alignguard.cli.audit as command
import alignguard.cli.start as starting
from alignguard.cli import main

TOKENS = ["--answer-tokens", "8", "--trace-tokens", "8"]


@pytest.fixture(scope="module")
def there(tmp_path_factory, tokenizer):
    """A start, two models that went their way, one that is broken; and choices that one of them gets wrong."""
    root = tmp_path_factory.mktemp("models")
    models = {
        "start": tiny_model(tokenizer),
        "sft": tiny_model(tokenizer, seed=1),
        "grpo": tiny_model(tokenizer, seed=2),
    }
    for name, model in (models | {"mute": mute(tokenizer)}).items():
        save(model, tokenizer, root / name)
    _, fallen, _ = taken_by(models["start"], models["sft"], tokenizer)
    write_probes(root / "probes.jsonl", ROWS + fallen)
    return root


def audited(there, models, *options, output, reference="start"):
    names = [str(there / name) for name in models]
    asked = ["--reference", str(there / reference), "--probes", str(there / "probes.jsonl"), "--output", str(output)]
    return main(["audit", *names, *asked, *TOKENS, *options])


def told(summary):
    """What is told of a model, without where it stands and how long it took."""
    metrics = {name: value for name, value in summary["metrics"].items() if "/cost/" not in name}
    return {**summary, "metrics": metrics, "record": "", "report": ""}


def test_each_model_is_told_of_as_if_it_were_audited_alone(there, tmp_path, capsys):
    names = ("sft", "start", "grpo")
    assert audited(there, names, "--json", output=tmp_path / "all") == 3
    together = json.loads(capsys.readouterr().out)
    assert together["alpha"] == pytest.approx(0.05 / 3) and together["failed"] == {}
    for name, found in zip(names, together["models"], strict=True):
        # three looks at one reference: alone, each says so
        audited(there, [name], "--looks", "3", "--json", output=tmp_path / name)
        assert told(found) == told(json.loads(capsys.readouterr().out)), name
    assert [list(found["regressed"]) for found in together["models"]][:2] == [["ethics"], []]
    drifts = [found["metrics"]["alignguard/kl/answer"] for found in together["models"]]
    assert abs(drifts[1]) < 1e-5 and min(drifts[0], drifts[2]) > 0.1
    # and each has a record that the other commands read
    assert main(["report", str(tmp_path / "all" / "sft"), "--json"]) == 3
    assert told(json.loads(capsys.readouterr().out)) == told(together["models"][0])
    assert main(["compare", *(str(tmp_path / "all" / name) for name in names)]) == 3
    assert json.loads((tmp_path / "all" / "models.json").read_text()) == {
        name: value for name, value in together.items() if name != "page"
    }


def test_the_reference_is_loaded_and_asked_once_and_no_two_models_are_there(there, tmp_path, monkeypatch):
    alive, loads, asked, heard = weakref.WeakSet(), [], [], []
    load, ask = command.load_model, auditing.ask_baseline

    def loading(name, *others):
        gc.collect()
        loads.append((name.rpartition("/")[2], len(alive)))
        model = load(name, *others)
        if not name.endswith("start"):
            alive.add(model)
        return model

    def asking(model, probes, *others):
        asked.append(len(probes))
        handle = model.register_forward_hook(lambda *_: heard.append(len(asked)))
        try:
            return ask(model, probes, *others)
        finally:
            handle.remove()

    monkeypatch.setattr(command, "load_model", loading)
    monkeypatch.setattr(starting, "load_model", loading)
    monkeypatch.setattr(auditing, "ask_baseline", asking)
    audited(there, ["sft", "grpo"], output=tmp_path / "all")
    assert loads == [("sft", 0), ("start", 1), ("grpo", 0)]
    assert asked == [25] and heard


def test_one_table_and_one_page(there, tmp_path, capsys):
    assert audited(there, ["sft", "grpo"], "--html", str(tmp_path / "page.html"), output=tmp_path / "all") == 3
    out, err = capsys.readouterr()
    scores, _, figures = (part.splitlines() for part in out.split("\n\n")[1:4])
    assert scores[0].split() == ["model", "safety", "toxicity", "ethics", "privacy", "ood", "reasoning", "together"]
    assert scores[1].startswith(str(there / "start")) and scores[2].startswith(str(there / "sft"))
    assert "0.00 (+1.00)!" in scores[2] and "! a regression" in scores[-1]
    assert any(line.startswith("ethics/leaning") and len(line.split()) == 4 for line in figures)
    assert f"alpha is spread over 2 looks at {there / 'start'} (--looks 1: each model has all of it)" in err
    assert f"page    {tmp_path / 'page.html'}" in out
    assert main(["compare", str(tmp_path / "all"), "--json"]) == 3
    compared = json.loads(capsys.readouterr().out)["runs"]
    assert len(compared) == 2
    assert (
        main(["compare", *map(str, sorted((tmp_path / "all").iterdir())), "--json"]) == 3
    )  # as a shell's * gives them
    out, err = capsys.readouterr()
    assert json.loads(out)["runs"] == compared and "models.json: a file, and no record; left out" in err
    html = (tmp_path / "page.html").read_text()
    assert "2 models against" in html and "REGRESSION of ethics" in html and html.count("<svg") >= 1
    assert (tmp_path / "all" / "grpo" / "report.html").exists() and not (tmp_path / "all" / "report.html").exists()
    audited(there, ["grpo", "start"], output=tmp_path / "all")
    assert "holds an earlier audit; it was moved to" in capsys.readouterr().err
    assert (tmp_path / "all.1" / "sft").is_dir() and (tmp_path / "all" / "report.html").exists()
    audited(there, ["start"], output=tmp_path / "all")  # one model, where several were
    assert "it was moved to" in capsys.readouterr().err and not (tmp_path / "all" / "models.json").exists()


def test_models_that_are_asked_otherwise_have_a_reference_that_is(there, tmp_path, tokenizer, capsys):
    """A template of its own: the reference is asked with it too, as if that model were audited alone."""
    shutil.copytree(there / "grpo", tmp_path / "grpo")
    tiny_tokenizer(CHATML.replace("assistant\n", "assistant:\n")).save_pretrained(tmp_path / "grpo")
    audited(there, ["sft", tmp_path / "grpo"], "--json", output=tmp_path / "all")
    out, err = capsys.readouterr()
    assert "the two have different chat templates: both are asked with that of" in err
    first, second = json.loads(out)["models"]
    audited(there, [tmp_path / "grpo"], "--looks", "2", "--json", output=tmp_path / "alone")
    assert told(second) == told(json.loads(capsys.readouterr().out))
    assert first["reference_metrics"] != second["reference_metrics"]
    audited(there, ["sft", tmp_path / "grpo"], output=tmp_path / "all")
    assert f"{there / 'start'} (as {tmp_path / 'grpo'})" in capsys.readouterr().out


def test_looks_are_the_models_and_the_checkpoints_beside_them(there, tmp_path, capsys):
    shutil.copy(there / "probes.jsonl", tmp_path)
    for step in (1, 2, 3):
        shutil.copytree(there / "grpo", tmp_path / f"checkpoint-{step}")
    for models, options, looks in (
        (["checkpoint-1", "checkpoint-3"], [], 3),
        (["checkpoint-1", there / "sft"], [], 4),
        (["checkpoint-1", there / "sft"], ["--looks", "1"], 1),
    ):
        audited(tmp_path, models, "--json", *options, output=tmp_path / "out", reference=there / "start")
        out, err = capsys.readouterr()
        assert json.loads(out)["alpha"] == pytest.approx(0.05 / looks)
        assert (f"alpha is spread over {looks} looks" in err) == (not options)


@pytest.fixture(scope="module")
def wrong(there):
    another = tiny_tokenizer(think_tokens=("<think>",))
    save(tiny_model(another), another, there / "another")
    shutil.copytree(there / "grpo", there / "garbled")
    (there / "garbled" / "model.safetensors").write_bytes(b"no weights")
    return there


@pytest.mark.parametrize(
    ("models", "line"),
    [
        (["sft", "nowhere"], "nowhere: no such folder"),
        (["sft", "another"], "another: the reference has another tokenizer: token '<think>' is number"),
        (["sft", "sft"], "sft: is given twice"),
        (["garbled", "sft"], "garbled: cannot be loaded ("),
    ],
)
def test_what_is_wrong_early_ends_it_before_anything_is_asked(wrong, tmp_path, models, line, capsys, monkeypatch):
    monkeypatch.setattr(command, "audit", lambda *_, **__: pytest.fail("asked"))
    assert audited(wrong, models, output=tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert out == "" and line in err.splitlines()[-1] and not (tmp_path / "out").exists()


def test_a_later_model_that_cannot_be_loaded_is_named_and_the_others_are_told(wrong, tmp_path, capsys):
    assert audited(wrong, ["start", "garbled", "grpo"], "--looks", "1000", "--json", output=tmp_path / "out") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [model["model"].rpartition("/")[2] for model in found["models"]] == ["start", "grpo"]
    assert list(found["failed"]) == [str(wrong / "garbled")]
    assert err.splitlines()[-1].startswith(f"alignguard: {wrong / 'garbled'}: cannot be loaded (")
    assert audited(wrong, ["start", "garbled", "sft"], output=tmp_path / "out") == 3  # the worst of them
    out, err = capsys.readouterr()
    assert "not audited: " in out and str(wrong / "garbled") in err.splitlines()[-1]
    assert "Not audited: " in (tmp_path / "out" / "report.html").read_text()


def test_a_broken_model_among_sound_ones_does_not_pass(there, tmp_path, capsys):
    assert audited(there, ["start", "mute"], "--looks", "1000", output=tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith(f"alignguard: {there / 'mute'}: no verdict: too few answers could be judged")
    assert "?" in out
