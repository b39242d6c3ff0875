"""The trust card in what trainers write: a run's README.md, after checkpoints, after saving and after pushing."""

import json
import shutil

import pytest
import transformers.trainer
from huggingface_hub import ModelCard
from peft import LoraConfig
from planted import planted, slow
from runs import guard, lines, sft
from tiny import tiny_model, tiny_rows
from trainers import CASES

from alignguard import StopRule
from alignguard.cli import main
from alignguard.records.record import read_record
from alignguard.report import model_card
from alignguard.report.markdown import BEGIN, END

PLAIN = next(case for case in CASES if case.full_name == "transformers.Trainer")


def told(path):
    """What a model card says of the last audit: its scores, and the step."""
    card = ModelCard.load(path / "README.md")
    assert card.text.count(BEGIN) == card.text.count(END) == 1 and (path / "alignguard.svg").is_file()
    step = int(card.text.partition("the last at step ")[2].split()[0])
    shown = {
        r.dataset_config: r.metric_value for r in card.data.eval_results if r.metric_type in ("score", "kl_answer")
    }
    return step, {name: value for name, value in shown.items() if name != "together"}


def on_record(path, step):
    line = next(line for line in lines(path) if line["step"] == step)
    figures = {name.split("/")[1]: value for name, value in line["metrics"].items() if name.endswith("/score")}
    figures = {name: score for name, score in figures.items() if f"alignguard/{name}/drop" in line["metrics"]}
    figures["drift"] = line["metrics"]["alignguard/kl/answer"]
    return step, {name: pytest.approx(value, rel=1e-3) for name, value in figures.items()}


@pytest.fixture
def hub(monkeypatch):
    """Keeps the model cards that would be uploaded."""

    class Hub(list):
        repo_id = "somebody/model"

        def create_repo(self, *args, **kwargs):
            return self

        def upload_folder(self, folder_path, **kwargs):
            self.append(ModelCard.load(f"{folder_path}/README.md").text)
            return self

        def is_done(self):
            return True

        done, result = is_done, is_done

    hub = Hub()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    return hub


def test_what_a_run_saves_carries_the_card(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, [guard()], save_strategy="steps", save_steps=3)
    trainer.train()
    trainer.save_model()
    step, scores = told(tmp_path)
    assert (step, scores) == on_record(tmp_path, 4)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "transformers" and "## Citations" in card.text
    # the record says the same, and says it in the same words
    before = (tmp_path / "README.md").read_bytes(), (tmp_path / "alignguard.svg").read_bytes()
    main(["card", str(tmp_path), "--into", str(tmp_path / "README.md")])
    assert ((tmp_path / "README.md").read_bytes(), (tmp_path / "alignguard.svg").read_bytes()) == before


def test_a_card_written_anew_after_training_carries_it_too(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, [guard()])
    trainer.train()
    assert not (tmp_path / "README.md").exists() and not (tmp_path / "alignguard.svg").exists()  # none is made
    for name in ("first", "second"):
        trainer.create_model_card(model_name=name)
        assert told(tmp_path) == on_record(tmp_path, 4)
        assert f"# Model Card for {name}" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("attach", ["list", "add"])
def test_every_push_carries_the_card_of_its_time(attach, hub, tokenizer, tmp_path):
    trainer = sft(
        tokenizer,
        tmp_path,
        [guard()] if attach == "list" else [],
        push_to_hub=True,
        save_strategy="steps",
        save_steps=2,
    )
    if attach == "add":
        trainer.add_callback(guard(trainer))
    trainer.train()
    trainer.push_to_hub()
    steps = [text.partition("the last at step ")[2].split()[0] for text in hub]
    assert steps == ["2", "4", "4"] and all(text.count(BEGIN) == 1 for text in hub)


def test_transformers_own_trainer(hub, tokenizer, tmp_path):
    tiny_model(tokenizer, seed=1).save_pretrained(tmp_path / "start")
    trainer = PLAIN.build(tokenizer, tmp_path / "start", tmp_path / "run", [guard()])
    trainer.train()
    trainer.push_to_hub()
    trainer.push_to_hub()
    assert told(tmp_path / "run") == on_record(tmp_path / "run", 3) and len(hub) == 2
    assert hub[0] == hub[1]


def test_an_adapters_card_is_written_as_it_is_saved(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, [guard()], peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    trainer.train()
    trainer.save_model()
    assert told(tmp_path) == on_record(tmp_path, 4)
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "peft"


def test_a_readme_that_is_none_of_the_trainers_is_left_alone(tokenizer, tmp_path):
    (tmp_path / "README.md").write_text("# My project\n")
    trainer = sft(tokenizer, tmp_path, [guard()])
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "README.md").read_text() == "# My project\n" and not (tmp_path / "alignguard.svg").exists()


def test_without_it_the_trainer_writes_what_it_wrote(tokenizer, tmp_path):
    cards = []
    for name, callbacks in (("a", []), ("b", [guard(card=False)])):
        folder = tmp_path / name / "run"
        trainer = sft(tokenizer, folder, callbacks, save_strategy="steps", save_steps=2)
        trainer.train()
        assert not {"create_model_card", "save_model"} & {*vars(trainer)}
        cards.append((folder / "README.md").read_text())
    assert cards[0] == cards[1] and not (tmp_path / "b" / "run" / "alignguard.svg").exists()


def test_a_callback_that_goes_to_another_trainer_lets_the_first_one_go(tokenizer, tmp_path):
    ours = guard()
    first = sft(tokenizer, tmp_path / "first", [ours])
    first.train()
    first.create_model_card()
    assert told(tmp_path / "first")[0] == 4
    first.save_model = theirs = lambda *args, **kwargs: None  # somebody else's stays
    second = sft(tokenizer, tmp_path / "second", [ours], max_steps=2)
    assert "create_model_card" not in vars(first) and first.save_model is theirs
    second.train()
    second.create_model_card()
    first.create_model_card()
    assert told(tmp_path / "second")[0] == 2 and BEGIN not in (tmp_path / "first" / "README.md").read_text()


def test_a_second_train_tells_of_itself_once(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, [guard()], save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.args.max_steps = 2
    trainer.train()
    assert told(tmp_path) == on_record(tmp_path, 2)


def test_a_card_that_fails_is_told_once_and_breaks_nothing(tokenizer, tmp_path, monkeypatch, caplog):
    def broken(*args):
        raise OSError("no space left")

    monkeypatch.setattr(model_card, "write_whole", broken)
    trainer = sft(tokenizer, tmp_path, [guard()], save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.create_model_card()
    said = [record.message for record in caplog.records if "trust card" in record.message]
    assert said == ["AlignGuard: the trust card failed and training goes on (OSError: no space left)"]
    assert BEGIN not in (tmp_path / "README.md").read_text() and trainer.state.global_step == 4


def test_weights_that_were_put_back_are_told_of(tokenizer, tmp_path):
    trainer = sft(
        tokenizer, tmp_path, [guard()], eval_dataset=tiny_rows(4), save_strategy="steps", save_steps=2, eval_strategy="steps",
        eval_steps=2, load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=True,
    )  # fmt: skip
    trainer.train()
    best = trainer.state.best_model_checkpoint.rpartition("/")[2]
    text = (tmp_path / "README.md").read_text()
    assert (f"the weights of {best} were put back" in text) == (best != "checkpoint-4")


def test_weights_that_were_put_back_are_on_record(tokenizer, tmp_path, capsys):
    """The command knows it too; and a run that goes on trains on them."""
    callback = planted(audits=3, stop=StopRule(restore=True))
    trainer = slow(tokenizer, tmp_path, [callback], max_steps=6)
    trainer.train()
    trainer.create_model_card()
    note = "After training the weights of checkpoint-2 were put back"
    before = (tmp_path / "README.md").read_bytes()
    assert note in before.decode() and not ModelCard.load(tmp_path / "README.md").data.eval_results
    assert note in (tmp_path / "_alignguard" / "report.html").read_text()
    capsys.readouterr()
    for command in (["card", "--into", str(tmp_path / "README.md")], ["card", "--metadata"], ["report"]):
        assert main([command[0], str(tmp_path), *command[1:]]) == 3
        out, err = capsys.readouterr()
        assert note in (out if command == ["report"] else err)
    assert (tmp_path / "README.md").read_bytes() == before
    assert read_record(str(tmp_path)).about.put_back == "checkpoint-2"
    resumed = slow(tokenizer, tmp_path, [planted(audits=9)], max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert read_record(str(tmp_path)).about.put_back == ""


def test_the_command_prints_and_writes(tokenizer, tmp_path, capsys):
    ours = guard()
    sft(tokenizer, tmp_path / "a|b 'run'\n", [ours]).train()
    run = str(tmp_path / "a|b 'run'\n")
    capsys.readouterr()
    code = main(["card", run])
    printed = capsys.readouterr().out
    assert printed.startswith(BEGIN) and "![" not in printed and code == main(["report", run])
    capsys.readouterr()
    main(["card", run, "--metadata"])
    read = ModelCard(capsys.readouterr().out).data
    assert read.model_name == "a|b 'run'" and len(read.eval_results) > 10
    main(["card", run, "--json"])
    flat = json.loads(capsys.readouterr().out)
    last = lines(run)[-1]
    assert flat["model"] == "a|b 'run'" and flat["step"] == last["step"] == 4 and flat["audits"] == 3
    assert flat["kl/raw"] == last["metrics"]["alignguard/kl/raw"] and flat["probes"] == len(ours.settings.pool)
    target = tmp_path / "card.md"
    main(["card", run, "--output", str(target)])
    assert "](alignguard.svg)" in target.read_text() and (tmp_path / "alignguard.svg").exists()
    (tmp_path / "README.md").write_text("# Mine\n")
    for said in ("", " (unchanged)"):
        capsys.readouterr()
        main(["card", run, "--into", str(tmp_path / "README.md")])
        assert capsys.readouterr().out == f"card  {tmp_path}/README.md{said}\n"
    assert main(["card", run, "--into", str(tmp_path / "NONE.md")]) == 1
    assert capsys.readouterr().err.startswith(f"alignguard: {tmp_path}/NONE.md: no such file; ")
    assert main(["card", run, "--into", str(tmp_path / "README.md"), "--json"]) == 1
    shutil.rmtree(run)
    assert main(["card", run]) == 1
