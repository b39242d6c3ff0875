"""
People evaluate while they train, in notebooks and in `hyperparameter_search`, where every metric of an evaluation is a column
of the progress table and a summand of the default objective.

Oracle: the run without us.
Before: a table of 6 columns had 87.
After: 6, and the figure that `metric_for_best_model` names, or all of them, if asked for.
"""

import sys
import types

import pytest
from runs import guard, sft
from tiny import tiny_rows
from transformers import ProgressCallback

SCORE = "alignguard/ethics/score"


@pytest.fixture
def columns(monkeypatch):
    """What a notebook's progress table shows; IPython itself need not be there."""
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = str, lambda *args, **kwargs: types.SimpleNamespace(update=lambda *a, **k: None)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    sys.modules["IPython"].display = display
    monkeypatch.delitem(sys.modules, "transformers.utils.notebook", raising=False)
    from transformers.utils.notebook import NotebookProgressCallback

    def shown(trainer):
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(NotebookProgressCallback)
        table = next(c for c in trainer.callback_handler.callbacks if isinstance(c, NotebookProgressCallback))
        ends, found = table.on_train_end, []
        table.on_train_end = lambda *args, **kwargs: (
            found.extend(table.training_tracker.inner_table[0]),
            ends(*args, **kwargs),
        )
        trainer.train()
        return found

    return shown


def trainer(tokenizer, output_dir, ours, **kwargs):
    return sft(tokenizer, output_dir, ours, eval_dataset=tiny_rows(2), eval_strategy="steps", eval_steps=2, **kwargs)


def test_a_notebooks_table_is_as_it_is_without_us(columns, tokenizer, tmp_path):
    alone = columns(trainer(tokenizer, tmp_path / "alone", []))
    assert columns(trainer(tokenizer, tmp_path / "watched", [guard()])) == alone
    named = columns(trainer(tokenizer, tmp_path / "named", [guard()], metric_for_best_model=SCORE))
    assert len(named) == len(alone) + 1 and named[-1] == "Alignguard/ethics/score"
    assert len(columns(trainer(tokenizer, tmp_path / "all", [guard(metrics=True)]))) > len(alone) + 50


@pytest.mark.parametrize("name", [SCORE, f"eval_{SCORE}"])
def test_the_metric_that_is_named_is_there_and_no_other(name, tokenizer, tmp_path):
    watched = trainer(tokenizer, tmp_path, [guard()], metric_for_best_model=name, greater_is_better=True)
    watched.train()
    assert {key for key in watched.evaluate() if "alignguard" in key} == {f"eval_{SCORE}"}


def test_all_figures_of_a_step_that_was_not_audited_are_told_of(tokenizer, tmp_path, caplog):
    """With `metrics=True` and nothing to choose by no audit is taken for an evaluation."""
    ours = guard(metrics=True)
    watched = trainer(tokenizer, tmp_path, [ours], max_steps=6)
    watched.train()
    assert [audit.step for audit in ours.audits] == [0, 2, 6]
    told = [record.getMessage() for record in caplog.records if "there is no audit" in record.getMessage()]
    assert told == ["AlignGuard: at step 4 there is no audit: eval_alignguard/... are of step 2"]
    assert watched.evaluate()["eval_alignguard/kl/answer"] == ours.audits[-1].figure("kl/answer")
