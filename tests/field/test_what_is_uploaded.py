"""
People train with `push_to_hub=True`: at each checkpoint and at the end the trainer uploads its output_dir, all but
`checkpoint-*` and what begins with `_`.

Oracle: huggingface_hub's own filter over the patterns that the trainer gives, and a search for every text in what passes it.
Before: eight files more were uploaded (answers, training prompts, a cache of the start), with `quote=False` too.
After: figures alone, in the model card too, and without quotes the report.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import transformers.trainer
from huggingface_hub.utils import filter_repo_objects
from places import DATA
from runs import guard, lines, sft
from tiny import tiny_probes

from alignguard import DriftBudget, Schedule, StopRule
from alignguard.cli import main
from alignguard.verdicts.watch import Watch


class Hub:
    """Keeps what would be uploaded, by name, as it was then."""

    repo_id = "somebody/model"

    def __init__(self):
        self.files = {}

    def create_repo(self, *args, **kwargs):
        return self

    def upload_folder(self, folder_path, ignore_patterns=None, **kwargs):
        names = [str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file()]
        passed = filter_repo_objects(names, ignore_patterns=ignore_patterns)
        self.files |= {name: (Path(folder_path) / name).read_bytes() for name in passed}
        return self

    def done(self):
        return True

    def result(self):
        return self

    @property
    def ours(self):
        return {name for name in self.files if "alignguard" in name and "tfevents" not in name}


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    return hub


def pushed(tokenizer, output_dir, callback, **kwargs):
    settings = {"push_to_hub": True, "save_strategy": "steps", "save_steps": 2, **kwargs}
    trainer = sft(tokenizer, output_dir, [callback], **settings)
    trainer.train(resume_from_checkpoint=kwargs.get("max_steps", 4) > 4)
    trainer.push_to_hub()
    return trainer


def texts(output_dir):
    """All that was asked and said, and what of the training data is on record."""
    rows = [row for path in Path(output_dir).rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    prompts = [json.loads(path.read_text()).values() for path in Path(output_dir).rglob("train_prompts.json")]
    answers, trained = ([row for row in rows if key in row] for key in ("answer", "learnt"))
    assert answers and trained
    said = {row[key] for row in answers for key in ("answer", "trace", "prompt")}
    tokens = [str(ids) for some in prompts for ids in some]
    tokens += [str(row["prompt_ids"]) for row in answers] + [str(row["ids"]) for row in trained]
    return [t for t in {*said, *tokens, *(p.prompt for p in tiny_probes())} if t and len(t) > 5]


FIGURES = {"alignguard/audits.jsonl", "alignguard/baseline.json", "alignguard.svg"}
PROMPTS = ["Name a colour of the sky.", "Count from one to five."]


@pytest.mark.parametrize("quote", [True, False])
@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_figures_are_uploaded_and_no_text(quote, kind, hub, tokenizer, tmp_path, capsys):
    budget = DriftBudget(max_kl=0.05, every=2, batch=2, anchors=PROMPTS) if kind == "copy" else None
    pushed(tokenizer, tmp_path, guard(reference=kind, quote=quote, budget=budget))
    expected = FIGURES | ({"alignguard/budget.jsonl"} if budget else set())
    assert hub.ours == expected | (set() if quote else {"alignguard/report.html"})
    found = texts(tmp_path)
    assert len(found) > 10
    assert "## Trust" in hub.files["README.md"].decode()
    for name in (*hub.ours, "README.md"):
        page = hub.files[name].decode()
        assert not [text for text in found if text in page or json.dumps(text)[1:-1] in page], name
    figures = "figures" if quote else "figures and the report"
    note = (
        f"push_to_hub uploads {tmp_path}/alignguard ({figures}, without texts), and nothing of {tmp_path}/_alignguard"
    )
    assert capsys.readouterr().out.count(note) == 1
    assert (tmp_path / ("_alignguard" if quote else "alignguard") / "report.html").exists()


def test_where_nothing_is_uploaded_nothing_is_said_of_it(tokenizer, tmp_path, capsys, monkeypatch):
    sft(tokenizer, tmp_path / "one", [guard()]).train()
    assert "uploads" not in capsys.readouterr().out
    monkeypatch.setenv("COMET_LOG_ASSETS", "TRUE")
    sft(tokenizer, tmp_path / "two", [guard()]).train()
    assert f"COMET_LOG_ASSETS uploads all of output_dir, {tmp_path}/two/_alignguard" in capsys.readouterr().out


def test_a_regression_in_tensorboards_files_quotes_nothing(hub, tokenizer, tmp_path, monkeypatch):
    """They lie in output_dir/runs."""
    look = Watch.look

    def regressed(self, audit):
        return replace(look(self, audit), since={"privacy": audit.step}, step=audit.step)

    monkeypatch.setattr(Watch, "look", regressed)
    monkeypatch.setattr("alignguard.report.alarm.regression_text", lambda *asked: f"quoted {asked[-1]}")
    pushed(tokenizer, tmp_path, guard(stop=StopRule(stop=False)), report_to=["tensorboard"])
    events = b"".join(text for name, text in hub.files.items() if "tfevents" in name)
    assert b"quoted False" in events and b"quoted True" not in events


def test_a_record_of_an_earlier_version_is_parted_where_it_is_gone_on_with(hub, tokenizer, tmp_path, capsys):
    """Its texts lay among the figures: in the run that is resumed, and in one that was set aside."""
    pushed(tokenizer, tmp_path, guard())
    hub.files.clear()
    for path in (tmp_path / "_alignguard").iterdir():
        shutil.move(path, tmp_path / "alignguard")
    (tmp_path / "_alignguard").rmdir()
    shutil.copytree(DATA / "record_0.1.0" / "alignguard", tmp_path / "alignguard.1")
    pushed(tokenizer, tmp_path, guard(), max_steps=6)
    assert hub.ours == FIGURES | {"alignguard.1/audits.jsonl", "alignguard.1/baseline.json"}
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4, 6]
    for name in ("alignguard", "alignguard.1"):
        main(["report", str(tmp_path / name)])
        assert "step 6, held against" in capsys.readouterr().out


def test_a_report_made_anew_is_put_where_it_may_be(tokenizer, tmp_path, capsys):
    sft(tokenizer, tmp_path, [guard(schedule=Schedule(at=(2,), every=0, draw=9))]).train()
    for path in tmp_path.rglob("report.html"):
        path.unlink()
    for options, folder in (([], "_alignguard"), (["--no-quote"], "alignguard")):
        main(["report", str(tmp_path), *options])
        assert f"report  {tmp_path}/{folder}/report.html" in capsys.readouterr().out
        assert (tmp_path / folder / "report.html").exists()
