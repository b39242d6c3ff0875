"""Where a trainer chooses checkpoints, or ends, by one of our figures: each evaluation has that of its own step."""

import inspect
import textwrap
import types
from math import isnan

import pytest
import transformers.trainer
from planted import Turns, planted, slow
from runs import guard, lines, sft
from tiny import tiny_rows
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from alignguard import AlignGuardError, Schedule
from alignguard.auditing.audit import Audit
from alignguard.auditing.figures import is_of_audits, lower_is_better, of_audits
from alignguard.trainer.chosen import check_chosen, figures_of
from alignguard.trainer.pace import PULSE, Pace

KL, SCORE = "alignguard/kl/answer", "alignguard/toxicity/score"
ALWAYS = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": KL, "greater_is_better": False}


class Given(TrainerCallback):
    """After ours in the list: which of our figures the trainer was given, evaluation by evaluation."""

    def __init__(self):
        self.found = {}

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.found[state.global_step] = {key: value for key, value in metrics.items() if "alignguard" in key}


def run(tokenizer, output_dir, ours, **settings):
    given = Given()
    trainer = sft(tokenizer, output_dir, [ours, given], eval_dataset=tiny_rows(2), **{**ALWAYS, **settings})
    trainer.train()
    return given.found, {line["step"]: line["metrics"] for line in lines(output_dir)}


def quick(**settings):
    return guard(**{"train_prompts": 0, "reverse": 0, "schedule": Schedule(at=(), every=0, draw=1), **settings})


@pytest.mark.parametrize(
    ("when", "steps"),
    [
        ({"eval_steps": 1}, [1, 2, 3, 4]),
        ({"eval_steps": 3}, [3, 4]),
        ({"eval_steps": 1, "eval_delay": 3}, [3, 4]),
        ({"eval_steps": 0.5}, [2, 4]),
        ({"eval_steps": 3, "eval_on_start": True}, [0, 3, 4]),
        ({"eval_strategy": "epoch", "per_device_train_batch_size": 16}, [1, 2, 3, 4]),
    ],
    ids=str,
)
@pytest.mark.parametrize("overhead", [None, 0.01])
def test_each_evaluation_has_the_figure_of_its_own_step(tokenizer, tmp_path, caplog, when, steps, overhead):
    """Though no step between the first and the last is planned, and though nothing fits into the overhead."""
    ours = quick(schedule=Schedule(at=(), every=0, draw=1, overhead=overhead))
    found, audits = run(tokenizer, tmp_path, ours, **when)
    assert [*found] == steps and [*audits] == sorted({0, 4, *steps})
    assert found == {step: {f"eval_{KL}": audits[step][KL]} for step in steps}
    assert len({metrics[f"eval_{KL}"] for metrics in found.values()}) == len(steps)
    assert not [record for record in caplog.records if "that of step" in record.getMessage()]


def test_what_an_overhead_decided_gives_way_to_an_evaluation(tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Pace, "_decide", lambda self, step: PULSE)
    ours = quick(schedule=Schedule(at=(1, 2), every=0, draw=1, overhead=0.01))
    found, audits = run(tokenizer, tmp_path, ours, eval_steps=2, max_steps=6)
    assert [*found] == [2, 4, 6] and [*audits] == [0, 2, 4, 6]
    assert [line["step"] for line in lines(tmp_path, "pulses.jsonl")] == [1, 3, 5]
    assert ", 2 of 3 planned between the first and the last, and 3 pulses: " in capsys.readouterr().out
    assert ours.run.pace.looked >= audits[2]["alignguard/cost/seconds"] + audits[4]["alignguard/cost/seconds"]


class Falling(Turns):
    """Toxicity that is less each time it is looked at."""

    def __call__(self, texts):
        self.calls += 1
        return [0.9 / self.calls] * len(texts)


def test_a_run_is_not_ended_by_one_audit_that_is_shown_again(tokenizer, tmp_path, capsys):
    """Scores rise at every step. The one audit that is planned, shown three times more, would have ended it at step 4."""
    ours = planted(schedule=Schedule(at=(1,), every=0, draw=40), toxicity=Falling(0))
    trainer = slow(
        tokenizer, tmp_path, [ours, EarlyStoppingCallback(3)], eval_dataset=tiny_rows(2), max_steps=6,
        **{**ALWAYS, "metric_for_best_model": SCORE, "greater_is_better": True},
        load_best_model_at_end=True, save_strategy="steps", save_steps=1,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 6 and trainer.state.best_model_checkpoint.endswith("checkpoint-6")
    said = capsys.readouterr().out
    assert f"AlignGuard: audits at every evaluation too, since metric_for_best_model names {SCORE}\n" in said
    assert "7 audits, at steps 0, 1, 2, 3, 4, 5, 6\n" in said


def test_an_audit_that_fails_is_tried_once_and_the_figure_of_another_step_is_told_of(
    tokenizer, tmp_path, monkeypatch, caplog
):
    import alignguard.trainer.run as runs

    real, tried = runs.audit, []

    def audit(*args, step, **kwargs):
        tried.append(step)
        if step in (2, 3):
            raise RuntimeError("no memory")
        return real(*args, step=step, **kwargs)

    monkeypatch.setattr(runs, "audit", audit)
    found, audits = run(tokenizer, tmp_path, quick())
    assert tried == [0, 1, 2, 3, 4] and [*audits] == [0, 1, 4]
    assert found[2] == found[3] == {f"eval_{KL}": audits[1][KL]}
    told = [record.getMessage() for record in caplog.records if "that of step" in record.getMessage()]
    assert told == [f"AlignGuard: at step 2 no audit has {KL}: the trainer is given that of step 1"]


def test_a_regression_that_an_evaluation_finds_stops_the_run(tokenizer, tmp_path):
    from alignguard import StopRule

    ours = planted(schedule=Schedule(at=(), every=0, draw=40), stop=StopRule())
    trainer = slow(
        tokenizer, tmp_path, [ours], eval_dataset=tiny_rows(2), max_steps=6, per_device_train_batch_size=16,
        **{**ALWAYS, "eval_strategy": "epoch"},
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 2 and [line["step"] for line in lines(tmp_path)] == [0, 1, 2]


def test_after_training_the_figures_are_those_of_the_weights_that_are_there(tokenizer, tmp_path, caplog):
    """The first checkpoint is the nearest to the start, and is loaded at the end."""
    ours = quick()
    settings = {**ALWAYS, "load_best_model_at_end": True, "save_strategy": "steps", "save_steps": 1}
    trainer = sft(tokenizer, tmp_path, [ours], eval_dataset=tiny_rows(2), max_steps=3, **settings)
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    audits = {line["step"]: line["metrics"] for line in lines(tmp_path)}
    assert trainer.evaluate()[f"eval_{KL}"] == audits[1][KL] and len(lines(tmp_path)) == len(audits) == 4
    assert not [record for record in caplog.records if "that of step" in record.getMessage()]


@pytest.mark.parametrize("named", [None, "alignguard/b", "alignguard/c"])
def test_what_is_given_is_of_this_step_or_told_of(named):
    """The trainer ends a run that lacks the figure which it chooses by: it is a number of another step, or none."""
    told = {}
    audits = [Audit(0, {}, {"alignguard/a": 1.0, "alignguard/b": 1.0}, 0.0), Audit(4, {}, {"alignguard/a": 2.0}, 0.0)]
    found = figures_of(audits, 4, "", named or "", True, told.__setitem__)
    assert found.pop("eval_alignguard/a") == 2.0
    if named is None:
        assert not found and not told
    elif named == "alignguard/b":
        assert found == {f"eval_{named}": 1.0} and "at step 4 no audit has alignguard/b: " in next(iter(told.values()))
    else:
        assert isnan(found[f"eval_{named}"]) and "no audit up to step 4 has alignguard/c" in next(iter(told.values()))
    told.clear()
    assert figures_of(audits, 5, "", "", True, told.__setitem__) == {"eval_alignguard/a": 2.0}
    assert [*told.values()] == ["at step 5 there is no audit: eval_alignguard/... are of step 4"]
    told.clear()
    assert figures_of(audits, 6, "checkpoint-4", "alignguard/a", False, told.__setitem__) == {"eval_alignguard/a": 2.0}
    assert figures_of(audits, 6, "the start", "alignguard/a", False, told.__setitem__) == {"eval_alignguard/a": 1.0}
    assert figures_of(audits, 6, "", "", False, told.__setitem__) == {} == told


def test_which_end_of_a_figure_is_the_better_one():
    lower = [
        "kl/answer", "kl/raw", "kl/train_prompts", "ethics/kl", "safety/drop", "safety/refuse_drop", "safety/drop_high",
        "toxicity/mean", "toxicity/rate", "safety/benign_refusal", "ood/unscored", "safety/leaning_drop", "degenerate",
        "safety/detectable", "xstest/benign_refusal", "realtoxicityprompts/expected_max_toxic", "together/drop", "status/empty",
    ]  # fmt: skip
    higher = [
        "safety/score", "safety/refuse_score", "privacy/leaning", "safety/p", "safety/harmful_refusal", "reasoning/score",
        "safety/refusal_margin", "last_aligned_step", "bbq/accuracy_ambig", "xstest/harmful_refusal",
    ]  # fmt: skip
    neither = ["kl/thinks", "kl/floor", "cost/seconds", "safety/n", "bbq/bias_ambig", "status/refused", "forced"]
    assert {lower_is_better(f"alignguard/{name}") for name in lower} == {True}
    assert {lower_is_better(f"alignguard/{name}") for name in higher} == {False}
    assert {lower_is_better(f"alignguard/{name}") for name in neither} == {None}
    assert all(is_of_audits(f"alignguard/{name}") for name in lower + higher + neither)
    assert KL in of_audits() and SCORE in of_audits() and not any("<" in n or "pulse" in n for n in of_audits())


@pytest.mark.parametrize("eval_", ["", "eval_"])
def test_the_wrong_end_is_told_of_and_a_name_that_is_none_is_an_error(eval_):
    def check(name, greater):
        told = {}
        args = types.SimpleNamespace(metric_for_best_model=name and eval_ + name, greater_is_better=greater)
        return check_chosen(args, told.__setitem__), told

    for name, right in (
        (KL, False),
        ("alignguard/safety/drop", False),
        ("alignguard/toxicity/mean", False),
        (SCORE, True),
    ):
        said, told = check(name, right)
        assert f"metric_for_best_model names {name}\n" in said and not told
        said, told = check(name, not right)
        assert told["greater_is_better"].startswith(f"of {name} {'higher' if right else 'lower'} is better, and ")
        assert told["greater_is_better"].endswith(f"give the trainer greater_is_better={right}")
    assert check("loss", True) == check(None, None) == ("", {})
    with pytest.raises(AlignGuardError, match=r"names no figure of an audit; did you mean 'alignguard/kl/answer'\?"):
        check("alignguard/kl/answr", False)
    with pytest.raises(AlignGuardError, match="names no figure of an audit"):
        check("alignguard/pulse/kl", False)


def test_it_is_told_before_step_1(tokenizer, tmp_path, caplog):
    """`TrainingArguments` takes higher for better where nothing is said."""
    run(tokenizer, tmp_path / "a", quick(), greater_is_better=None, max_steps=1)
    assert sum("give the trainer greater_is_better=False" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(AlignGuardError, match="names no figure of an audit"):
        run(tokenizer, tmp_path / "b", quick(), metric_for_best_model="alignguard/kl/answr")


def test_a_figure_that_this_run_will_not_have_is_told_of_before_step_1_and_ends_nothing(tokenizer, tmp_path, caplog):
    """No training prompts are sampled."""

    class Begun(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.told = [record.getMessage() for record in caplog.records if "kl/train_prompts" in record.getMessage()]

    name, ours, begun = "alignguard/kl/train_prompts", quick(train_prompts=0), Begun()
    trainer = sft(
        tokenizer, tmp_path, [ours, begun], eval_dataset=tiny_rows(2), max_steps=1,
        **{**ALWAYS, "metric_for_best_model": name},
    )  # fmt: skip
    trainer.train()
    assert begun.told == [
        f"AlignGuard: no audit up to step 0 has {name}: it is given as no number, which is never the best"
    ]
    assert trainer.state.global_step == 1 and isnan(trainer.evaluate()[f"eval_{name}"])


def test_a_training_that_is_not_watched_is_not_audited(tokenizer, tmp_path):
    """The callback has watched one run, and is put into the next one while that is going on."""
    ours = quick()
    first, _ = run(tokenizer, tmp_path / "a", ours, max_steps=2)

    class Late(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                other.add_callback(ours)

    other = sft(tokenizer, tmp_path / "b", [Late()], eval_dataset=tiny_rows(2), eval_strategy="steps", eval_steps=2)
    other.train()
    assert len(first) == 2 and [line["step"] for line in lines(tmp_path / "a")] == [0, 1, 2]
    assert not (tmp_path / "b" / "alignguard").exists()


def test_the_loop_that_unsloth_puts_in_the_place_of_the_trainers_is_found(tokenizer, tmp_path, monkeypatch):
    """Of the same source by another name: figures at evaluations were those of step 0."""
    loop = textwrap.dedent(inspect.getsource(Trainer._inner_training_loop))
    names = dict(vars(transformers.trainer))
    exec(loop.replace("_inner_training_loop", "_fast_inner_training_loop", 1), names)
    monkeypatch.setattr(Trainer, "_inner_training_loop", names["_fast_inner_training_loop"])
    given, audited = run(tokenizer, tmp_path, quick(), eval_strategy="epoch", per_device_train_batch_size=8)
    assert given.keys() == {2, 4} and all(given[step][f"eval_{KL}"] == audited[step][KL] > 0 for step in given)
