"""
People make the callback once and use it for several models: a notebook's cell run twice, a sweep in a loop,
`hyperparameter_search`, which builds a model for every trial.

Oracle: a callback of one's own for each.
Before: the second model's raw drift at step 0 was 0.207 and its baseline the first one's (a cache of the first had no record to
be found); a search's objective, by default the sum of all metrics, read 56.6 for 5.9.
After: 0, a baseline of its own, 5.9.
"""

import json

import pytest
from runs import guard, lines, sft
from tiny import tiny_model
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator
from transformers.trainer_utils import default_compute_objective

from alignguard import Schedule


def metrics(output_dir):
    return [{key: value for key, value in line["metrics"].items() if "/cost/" not in key} for line in lines(output_dir)]


def about(output_dir):
    told = json.loads((output_dir / "alignguard" / "baseline.json").read_text())
    return {key: value for key, value in told.items() if key != "id"}  # which is drawn for each


def model_of(tokenizer, seed):
    return tiny_model(tokenizer, seed=seed, scale=4.0)


@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_each_model_is_held_against_its_own_start(kind, tokenizer, tmp_path):
    shared = guard(reference=kind)
    for seed in (1, 2):
        sft(tokenizer, tmp_path / f"shared{seed}", [shared], model=model_of(tokenizer, seed)).train()
        sft(tokenizer, tmp_path / f"own{seed}", [guard(reference=kind)], model=model_of(tokenizer, seed)).train()
        shared_metrics, own = metrics(tmp_path / f"shared{seed}"), metrics(tmp_path / f"own{seed}")
        assert [m["alignguard/kl/raw"] for m in shared_metrics] == [m["alignguard/kl/raw"] for m in own]
        assert shared_metrics == own and about(tmp_path / f"shared{seed}") == about(tmp_path / f"own{seed}")


def test_a_cell_run_twice_in_one_folder(tokenizer, tmp_path):
    shared = guard()
    for _ in range(2):
        sft(tokenizer, tmp_path, [shared], model=model_of(tokenizer, 1)).train()
    assert metrics(tmp_path) == [
        {k: v for k, v in json.loads(line)["metrics"].items() if "/cost/" not in k}
        for line in (tmp_path / "alignguard.1" / "audits.jsonl").read_text().splitlines()
    ]
    assert abs(metrics(tmp_path)[0]["alignguard/kl/raw"]) < 1e-5


def test_a_new_trainer_of_a_trained_model_begins_where_it_is(tokenizer, tmp_path):
    shared, model = guard(), model_of(tokenizer, 1)
    for name in ("first", "second"):
        sft(tokenizer, tmp_path / name, [shared], model=model).train()
    assert abs(metrics(tmp_path / "second")[0]["alignguard/kl/raw"]) < 1e-5


def test_a_callback_added_to_a_second_trainer(tokenizer, tmp_path):
    first = sft(tokenizer, tmp_path / "first", model=model_of(tokenizer, 1))
    shared = guard(first)
    first.add_callback(shared)
    first.train()
    second = sft(tokenizer, tmp_path / "second", model=model_of(tokenizer, 2))
    second.add_callback(shared)
    second.train()
    assert abs(metrics(tmp_path / "second")[0]["alignguard/kl/raw"]) < 1e-5
    assert [line["step"] for line in lines(tmp_path / "second")] == [0, 2, 4]


class Trials(TrainerCallback):
    """What each trial's step 0 says, before the next one sets its record aside."""

    def __init__(self, output_dir):
        self.output_dir, self.first = output_dir, []

    def on_train_begin(self, args, state, control, **kwargs):
        self.first.append(metrics(self.output_dir)[0])


def test_a_hyperparameter_search(tokenizer, tmp_path):
    """
    Its objective is that of a search without us, and each trial's model begins at no drift. Trials are run as
    `run_hp_search_optuna` of transformers runs them; optuna itself need not be there.
    """

    def search(output_dir, ours):
        made = iter(range(9))
        rows = [{"input_ids": list(range(i, i + 9)), "labels": list(range(i, i + 9))} for i in range(8)]
        settings = {"max_steps": 2, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
        trainer = Trainer(
            model_init=lambda: model_of(tokenizer, next(made)),
            args=TrainingArguments(str(output_dir), **settings),
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=tokenizer,
            data_collator=default_data_collator,
            callbacks=ours,
        )
        objectives = []
        for number in range(2):
            trainer.train(trial={"number": number})
            objectives.append(default_compute_objective(trainer.evaluate()))
        return objectives

    trials = Trials(tmp_path / "watched")
    watched = search(tmp_path / "watched", [guard(schedule=Schedule(at=(), every=0, draw=1)), trials])
    assert watched == search(tmp_path / "alone", [])
    assert len(trials.first) == 2 and all(abs(found["alignguard/kl/raw"]) < 1e-5 for found in trials.first)
