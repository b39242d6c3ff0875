"""What is called a regression, and what is done about it, in real training runs of a tiny model."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import TOXIC, Turns, planted, slow
from runs import guard, lines
from tiny import tiny_model, tiny_probes, tiny_rows
from transformers import EarlyStoppingCallback, TrainerCallback

from alignguard import AlignGuardError, Schedule, StopRule, compare
from alignguard.auditing.audit import Audit
from alignguard.auditing.result import Result
from alignguard.judging.score import Score, Status
from alignguard.model.checkpoints import latest_checkpoint
from alignguard.report.alarm import regression_text
from alignguard.verdicts.watch import Watch


def results(scores, name="safety"):
    probe = tiny_probes()[0]
    return {
        f"p{i}": Result(replace(probe, id=f"p{i}", family=f"f{i}", dimension=name), Score(s, Status.ANSWERED))
        for i, s in enumerate(scores)
    }


def audit_of(step, scores, **metrics):
    return Audit(step, results(scores), metrics, 0.0)


BASELINE = results([1.0] * 40)


def test_a_run_is_compared_with_its_baseline():
    audits = [audit_of(0, [1.0] * 40), audit_of(5, [1.0] * 38 + [0.0] * 2), audit_of(10, [0.0] * 40)]
    verdict = compare(BASELINE, audits, looks=3)
    safety = verdict.dimensions["safety"]
    assert verdict.since == {"safety": 10} and verdict.last_aligned_step == 5 and verdict.new == ["safety"]
    assert safety.called and safety.evidence.strength > 1 and safety.drop == 1.0 and len(safety.flips) == 40
    assert verdict.metrics()["alignguard/safety/evidence"] == safety.evidence.strength
    assert compare(BASELINE, audits[:2], looks=3).since == {}
    again = compare(BASELINE, [*audits, audit_of(15, [1.0] * 40)], looks=3)  # what was called stays called
    assert again.since == {"safety": 10} and again.new == []


def test_who_compares_several_audits_says_how_many_there_are_going_to_be():
    """After each of ten audits at full alpha, one sound run in eight was called."""
    audits = [audit_of(step, [1.0] * 40) for step in (0, 5, 10)]
    assert compare(BASELINE, audits[:2]).since == compare(BASELINE, audits, StopRule(looks=2)).since == {}
    with pytest.raises(
        AlignGuardError, match="there are 2 audits; give looks=, how many the run is going to have in all"
    ):
        compare(BASELINE, audits)


def watch(rule, *audits):
    watching = Watch(BASELINE, rule, len(audits))
    return [watching.look(a) for a in audits][-1]


def test_patience_asks_for_audits_in_a_row():
    bad, good = [0.0] * 20 + [1.0] * 20, [1.0] * 40
    rule = StopRule(patience=2)
    assert watch(rule, audit_of(1, bad)).since == {}
    assert watch(rule, audit_of(1, bad), audit_of(2, bad)).since == {"safety": 2}
    # called once, and no more: the drop over two audits is below min_drop
    assert watch(rule, audit_of(1, [0.95] * 40), audit_of(2, good), audit_of(3, good)).since == {}


def test_small_drops_are_not_called_however_sure():
    sure = [0.0] * 16 + [1.0] * 24
    verdict = watch(StopRule(min_drop=0.35), audit_of(1, sure))
    assert verdict.dimensions["safety"].evidence.strength > 1 and verdict.since == {}
    assert watch(StopRule(min_drop=0.05), audit_of(1, sure)).since == {"safety": 1}


def test_a_few_scores_that_all_fell_a_little_are_not_called():
    """Consistent, above the minimum drop by their number, and compatible with no drop at all: a real run did this."""
    start = results([0.97] * 8)
    watching = Watch(start, StopRule(alpha=0.5), 2)
    found = results([0.97 - d for d in (0.15, 0.1, 0.05, 0.05, 0.02, 0.01, 0.01, 0.02)])
    safety = watching.look(Audit(1, found, {}, 0.0)).dimensions["safety"]
    assert safety.evidence.drop > 0.03 and safety.evidence.low < 0
    assert not safety.called


def test_only_scored_answers_are_evidence():
    mostly_none = [None] * 24 + [0.0] * 16
    verdict = watch(StopRule(), audit_of(1, mostly_none))
    assert verdict.since == {} and verdict.dimensions["safety"].n == 16
    assert verdict.warnings == ("safety: only 40% of its answers could be judged: no evidence (min_scored=0.5)",)
    assert watch(StopRule(min_scored=0.3), audit_of(1, mostly_none)).since == {"safety": 1}
    assert watch(StopRule(floors={"safety": 0.9}), audit_of(1, mostly_none)).since == {}


def test_answers_that_are_not_scored_now_count_as_unchanged():
    """And the message says how many: what is told is the least that it can be."""
    evidence = watch(StopRule(), audit_of(1, [None] * 16 + [0.0] * 12 + [1.0] * 12)).dimensions["safety"].evidence
    assert evidence.drop == pytest.approx(12 / 40) and (evidence.n, evidence.unscored) == (40, 16)
    verdict = watch(StopRule(), audit_of(1, [None] * 16 + [0.0] * 24))
    assert verdict.since and "(40 pairs, 16 unscored now and counted as unchanged)" in regression_text(
        verdict, "nowhere"
    )
    assert not watch(StopRule(), audit_of(1, [None] * 18 + [1.0] * 22)).since


def test_an_audit_whose_answers_cannot_be_judged_is_not_aligned():
    mute = audit_of(20, [None] * 40)
    verdict = watch(StopRule(), audit_of(10, [1.0] * 40), mute)
    assert verdict.last_aligned_step == 10 and not verdict.since
    # probes of which the start's answers could not be judged either tell nothing of the run
    start = Watch(results([None] * 40), StopRule(), 1)
    assert start.look(audit_of(20, [None] * 40)).last_aligned_step == 20


def test_floors_and_drift():
    verdict = watch(StopRule(floors={"safety": 0.97}), audit_of(1, [1.0] * 38 + [0.0] * 2))
    assert verdict.since == {"safety": 1} and "below its floor of 0.97" in verdict.dimensions["safety"].why
    verdict = watch(StopRule(max_kl=0.1), audit_of(1, [1.0] * 40, **{"alignguard/kl/answer": 0.2}))
    assert verdict.since == {} and "drift is 0.2000 nats/token, above 0.1" in verdict.warnings[0]
    assert watch(StopRule(dimensions=["privacy"]), audit_of(1, [0.0] * 40)).since == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0}, "StopRule: alpha is a probability between 0 and 1, not 0"),
        ({"min_drop": 5}, "min_drop is a share between 0 and 1, not 5"),
        ({"patience": 0}, "patience is 1 or more, not 0"),
        ({"dimensions": ["safty"]}, "no dimension 'safty'; did you mean 'safety'?"),
        ({"floors": {"toxic": 0.5}}, "no dimension 'toxic'"),
        ({"rule": "mcnemar"}, "rule is one of sign-flip, sign-test, not 'mcnemar'"),
        ({"dimensions": []}, "dimensions is empty"),
        ({"min_scored": 2}, "min_scored is a share"),
        ({"looks": 0}, "looks is 1 or more"),
    ],
)
def test_mistakes_are_one_line(change, message):
    with pytest.raises(AlignGuardError, match=re.escape(message)):
        StopRule(**change)


def test_by_default_a_regression_is_told_and_nothing_stopped(tokenizer, tmp_path, capsys, caplog):
    told = []
    callback = planted()
    trainer = slow(tokenizer, tmp_path, [callback], max_steps=4)
    trainer.add_callback(type("Spy", (TrainerCallback,), {"on_train_begin": lambda *a, **k: setattr(
        callback.run.shown, "tracker", type("T", (), {"log": lambda *a: None, "alert": lambda self, *a: told.append(a)})())})())  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 4 and len(lines(tmp_path)) == 5 and not list(tmp_path.glob("checkpoint-*"))
    assert callback.run.verdict.since == {"toxicity": 2} and callback.run.verdict.last_aligned_step == 1
    ((_, title, text, bare),) = told  # once
    assert bare.splitlines()[0] == text.splitlines()[0] and len(bare) < len(text)
    assert title == "AlignGuard: regression of toxicity (called at step 2)"
    said = capsys.readouterr().out
    for part in (
        "toxicity: fell by 0.",
        "Last aligned: step 1, and no checkpoint is that early",
        "Advice: a lower learning rate",
        "t0: 0.90 -> 0.10",
        "    now : ",
    ):
        assert part in text and part in said, part
    assert text.count(" -> ") == 5 and "REGRESSION since step 2" in said
    assert sum("regression of toxicity" in record.message for record in caplog.records) == 1
    figures = [line["metrics"] for line in lines(tmp_path)]
    assert [f["alignguard/toxicity/evidence"] >= 1 for f in figures][:3] == [False, False, True]
    assert [f["alignguard/last_aligned_step"] for f in figures] == [0, 1, 1, 1, 1]
    assert "Regression of toxicity (called at step 2)" in (tmp_path / "_alignguard" / "report.html").read_text()


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_stop_ends_the_run_with_a_checkpoint(tokenizer, tmp_path, checkpoint):
    trainer = slow(tokenizer, tmp_path, [planted(stop=StopRule(checkpoint=checkpoint))], max_steps=6)
    trainer.train()
    assert trainer.state.global_step == 2
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == (["checkpoint-2"] if checkpoint else [])
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2]


class EndAt3(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3


@pytest.mark.parametrize("rule", [StopRule(), StopRule(checkpoint=False), StopRule(checkpoint=False, restore=True)])
def test_a_regression_called_once_training_has_ended_saves_a_checkpoint_too(tokenizer, tmp_path, rule):
    """A callback after ours ended the run, whose last audit is taken then; one that is aligned saves one where that is asked for."""
    for name, kind in (("regressed", 1), ("aligned", 9)):
        callback = planted(audits=kind, stop=rule, schedule=Schedule(at=(), every=0, draw=40))
        trainer = slow(tokenizer, tmp_path / name, [callback, EndAt3()], max_steps=9)
        trainer.train()
        assert callback.run.verdict.since == ({"toxicity": 3} if name == "regressed" else {})
        saved = sorted((tmp_path / name).glob("checkpoint-*"))
        wanted = rule.checkpoint if name == "regressed" else rule.restore
        assert [path.name for path in saved] == (["checkpoint-3"] if wanted else [])
    if rule == StopRule():  # and is one that can be resumed
        again = slow(tokenizer, tmp_path / "regressed", [], max_steps=4)
        again.train(resume_from_checkpoint=True)
        assert again.state.global_step == 4


def test_that_none_could_be_saved_then_is_said(tokenizer, tmp_path, monkeypatch, capsys, caplog):
    callback = planted(audits=1, stop=StopRule(), schedule=Schedule(at=(), every=0, draw=40))
    trainer = slow(tokenizer, tmp_path / "full", [callback, EndAt3()], max_steps=9)

    def full(*args, **kwargs):
        raise OSError("no space\nleft on device")

    monkeypatch.setattr(trainer, "_save_checkpoint", full)
    trainer.train()
    assert "saving a checkpoint failed and training goes on (OSError: no space left on device)" in caplog.text
    callback = planted(audits=1, stop=StopRule(), schedule=Schedule(at=(), every=0, draw=40))
    monkeypatch.setattr("alignguard.trainer.callback.training_loop", dict)  # a loop of somebody's own
    slow(tokenizer, tmp_path / "own", [callback, EndAt3()], max_steps=9).train()
    assert "its checkpoint cannot be saved, since the trainer is not known" in capsys.readouterr().out
    assert callback.run.verdict.since == {"toxicity": 3} and not [*tmp_path.glob("*/checkpoint-*")]


SAVES = {"save_strategy": "steps", "save_steps": 1}


@pytest.mark.parametrize("watched", [False, True])
def test_a_checkpoint_of_an_earlier_run_is_not_taken_for_an_aligned_one(tokenizer, tmp_path, capsys, watched):
    """It lies in the same output_dir, from a time before the record that is kept there now."""
    earlier = [planted(audits=9)] if watched else []
    slow(tokenizer, tmp_path, earlier, max_steps=2, learning_rate=1e-1, **SAVES).train()
    capsys.readouterr()
    callback = planted(audits=3, stop=StopRule(restore=True, checkpoint=False))
    trainer = slow(tokenizer, tmp_path, [callback], max_steps=6)
    kept, bad = {}, tmp_path / "checkpoint-1"
    before = (bad / "model.safetensors").read_bytes()

    class Keep(TrainerCallback):  # its own of steps 1 and 2, which it saves since they are aligned, are taken away
        def on_step_end(self, args, state, control, **kwargs):
            kept[state.global_step] = {k: v.clone() for k, v in kwargs["model"].state_dict().items()}
            control.should_save = False

    trainer.add_callback(Keep())
    trainer.train()
    assert callback.run.verdict.since == {"toxicity": 3} and callback.run.verdict.last_aligned_step == 2
    assert (bad / "model.safetensors").read_bytes() == before and latest_checkpoint(tmp_path, 9) is None
    said = capsys.readouterr().out
    assert "Last aligned: step 2, and no checkpoint is that early" in said
    assert "there is no aligned checkpoint to restore; the weights are left as they are" in said
    assert all(torch.equal(value, kept[3][name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("peft", [False, True])
def test_the_last_aligned_weights_are_restored(tokenizer, tmp_path, peft, capsys):
    """Whatever came after: they are those of a run that ended there."""
    config = None
    if peft:
        from peft import LoraConfig

        config = LoraConfig(target_modules="all-linear", r=4, task_type="CAUSAL_LM")
    callback = planted(audits=3, stop=StopRule(restore=True))
    trainer = slow(tokenizer, tmp_path / "a", [callback], max_steps=6, peft_config=config)
    trainer.train()
    assert trainer.state.global_step == 3 and callback.run.verdict.last_aligned_step == 2
    assert "checkpoint-2 were put back" in capsys.readouterr().out
    plain = slow(tokenizer, tmp_path / "b", [], max_steps=6, peft_config=config, save_strategy="steps", save_steps=2)
    plain.add_callback(type("End", (TrainerCallback,), {"on_step_end": lambda s, a, state, control, **k: setattr(
        control, "should_training_stop", state.global_step == 2)})())  # fmt: skip
    plain.train()
    ours, theirs = trainer.model.state_dict(), plain.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_the_message_names_the_checkpoint_to_resume_from(tmp_path):
    for step in (3, 5, 8, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-old").mkdir()
    verdict = compare(BASELINE, [audit_of(0, [1.0] * 40), audit_of(9, [1.0] * 40), audit_of(12, [0.0] * 40)], looks=2)
    assert latest_checkpoint(tmp_path, verdict.last_aligned_step).name == "checkpoint-8"
    text = regression_text(verdict, tmp_path)
    assert "trainer.train(resume_from_checkpoint='" in text and "checkpoint-8')" in text
    assert "now :" not in regression_text(verdict, tmp_path, quote=False)


def evaluated(**kwargs):
    return {"eval_strategy": "steps", "eval_steps": 1, **kwargs}


def with_eval(tokenizer, tmp_path, callbacks, **kwargs):
    return slow(tokenizer, tmp_path, callbacks, eval_dataset=tiny_rows(2), **evaluated(**kwargs))


def test_early_stopping_reads_our_figures(tokenizer, tmp_path):
    ours = planted(schedule=Schedule(at=(), every=2, draw=40))
    early = EarlyStoppingCallback(early_stopping_patience=1)
    trainer = with_eval(
        tokenizer, tmp_path, [ours, early], max_steps=6, metric_for_best_model="alignguard/toxicity/score",
        greater_is_better=True, load_best_model_at_end=True, save_strategy="steps", save_steps=1,
    )  # fmt: skip
    trainer.train()
    # the score at step 2, which is audited since it is evaluated, is no better: early stopping ends it, not we
    assert trainer.state.global_step == 2
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    seen = [log for log in trainer.state.log_history if "eval_loss" in log]
    assert len(seen) == 2


def test_the_best_checkpoint_is_told_by_our_figures(tokenizer, tmp_path):
    class Rising(Turns):
        def __call__(self, texts):
            self.calls += 1
            return [{1: 0.5, 2: 0.5, 3: 0.4, 4: 0.1}.get(self.calls, 0.6)] * len(texts)

    ours = planted(toxicity=Rising(0))
    trainer = with_eval(
        tokenizer, tmp_path, [ours], max_steps=4, metric_for_best_model="eval_alignguard/toxicity/score",
        greater_is_better=True, save_strategy="best",
    )  # fmt: skip
    trainer.train()
    assert trainer.state.best_metric == pytest.approx(0.9)
    # the names on disk: transformers before 5.4 keeps none in its state where save_strategy="best"
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_a_resumed_run_has_the_same_evidence(tokenizer, tmp_path):
    """Patience, draws and evidence of a run cut in two are those of one that was not."""
    tokens = {"schedule": Schedule(at=(), every=1, draw=24), "train_prompts": 0, "probes": TOXIC}
    rule = StopRule(patience=3, stop=False, checkpoint=False)
    save = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}

    whole = guard(stop=rule, **tokens)
    slow(tokenizer, tmp_path / "whole", [whole], **save).train()
    first = guard(stop=rule, **tokens)
    cut = slow(tokenizer, tmp_path / "cut", [first], **save)
    cut.add_callback(type("End", (TrainerCallback,), {"on_step_end": lambda s, a, state, control, **k: setattr(
        control, "should_training_stop", state.global_step == 3)})())  # fmt: skip
    cut.train()
    second = guard(stop=rule, **tokens)
    resumed = slow(tokenizer, tmp_path / "cut", [second], **save)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    keys = ("alignguard/toxicity/evidence", "alignguard/last_aligned_step", "alignguard/toxicity/drop")
    one, two = (
        [[line["metrics"][k] for k in keys] + sorted(line["scores"]) for line in lines(tmp_path / name)]
        for name in ("whole", "cut")
    )
    assert json.dumps(one) == json.dumps(two) and len(one) == 7
    assert second.run.watch.streaks == whole.run.watch.streaks and second.run.watch.since == whole.run.watch.since


@pytest.mark.parametrize("saved", [None, ["input_layernorm", "post_attention_layernorm", "norm"]])
def test_of_adapters_all_that_trains_is_put_back_or_nothing(tokenizer, tmp_path, saved):
    """Norms that train beside the adapters, in their checkpoint where they are named in `modules_to_save`."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from trl import SFTConfig

    from alignguard import AlignGuardError
    from alignguard.errors import RunError
    from alignguard.model.restore import beside_adapters, restore_weights
    from alignguard.trainer.checks import check_restorable

    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=saved)
    model = get_peft_model(tiny_model(tokenizer), config)
    for name, p in model.named_parameters():
        p.requires_grad_(p.requires_grad or ("norm" in name and not saved))
    model.save_pretrained(tmp_path)
    then = {name: p.clone() for name, p in model.named_parameters()}

    def moved():
        with torch.no_grad():
            for p in model.parameters():
                p.add_(p.requires_grad * 0.1)
        return {name: p.clone() for name, p in model.named_parameters()}

    def is_at(weights):
        return all(torch.equal(p, weights[name]) for name, p in model.named_parameters())

    now, rule, args = moved(), StopRule(restore=True), SFTConfig(str(tmp_path), use_cpu=True, report_to=[])
    if saved:
        check_restorable(rule, args, False, model)
        restore_weights(model, tmp_path)
        assert is_at(then) and beside_adapters(model) == []
        file = tmp_path / "adapter_model.safetensors"
        save_file(dict(list(load_file(file).items())[1:]), file, metadata={"format": "pt"})
        now = moved()
        with pytest.raises(RunError, match="its adapters lack weights of the model that trains, e"):
            restore_weights(model, tmp_path)
    else:
        with pytest.raises(AlignGuardError, match=r"5 other weights train beside them, e\.g\. .*norm.*modules_to_save"):
            check_restorable(rule, args, False, model)
        with pytest.raises(RunError, match="it holds adapters alone, and 5 other weights train"):
            restore_weights(model, tmp_path)
    assert is_at(now)  # all or nothing


@pytest.mark.parametrize(
    ("kind", "restores"), [("PromptTuning", True), ("PrefixTuning", True), ("PromptEncoder", False)]
)
def test_a_prompt_that_trains_is_put_back_where_its_checkpoint_holds_it(tokenizer, tmp_path, kind, restores):
    """What a network makes of another prompt is on file as what it came to, from which neither can be had."""
    import peft

    from alignguard.errors import RunError
    from alignguard.model.restore import beside_adapters, restore_weights

    config = getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(tiny_model(tokenizer, seed=1), config)
    model.save_pretrained(tmp_path)
    then = {name: p.clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(p.requires_grad * 1.0)
    assert bool(beside_adapters(model)) is not restores
    if not restores:
        with pytest.raises(RunError, match="it holds adapters alone"):
            restore_weights(model, tmp_path)
        return
    restore_weights(model, tmp_path)
    assert all(torch.equal(p, then[name]) for name, p in model.named_parameters())


def test_weights_are_put_back_on_all_processes_or_on_none(tokenizer, tmp_path):
    """On nodes that share no folder the first put them back, and the others trained nothing of it."""
    from types import SimpleNamespace

    from alignguard.drift.reference import freeze_start
    from alignguard.errors import RunError
    from alignguard.model.checkpoints import mark
    from alignguard.trainer.restore import restore

    policy, state = tiny_model(tokenizer, seed=2), SimpleNamespace(stateful_callbacks={})
    policy.save_pretrained(tmp_path / "checkpoint-2")
    mark(state, "a run")
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text(json.dumps(vars(state)))

    def put_back(others):
        model = tiny_model(tokenizer, seed=1)
        ranks = SimpleNamespace(together=lambda do: [do(), *others])
        context = SimpleNamespace(
            model=model,
            reference=freeze_start(model),
            console=SimpleNamespace(say=print),
            args=SimpleNamespace(output_dir=str(tmp_path)),
            asking=SimpleNamespace(ranks=ranks),
        )
        try:
            return restore(context, 2, "a run")
        finally:
            moved = not torch.equal(model.lm_head.weight, tiny_model(tokenizer, seed=1).lm_head.weight)
            assert moved == (others == ["checkpoint-2"])

    assert put_back(["checkpoint-2"]) == "checkpoint-2"
    with pytest.raises(RunError, match=r"process 0 sees checkpoint-2, process 1 sees none.*save_on_each_node=True"):
        put_back([""])


def test_restoring_takes_weights_in_several_files(tokenizer, tmp_path):
    from alignguard.errors import RunError
    from alignguard.model.restore import restore_weights

    model, other = tiny_model(tokenizer), tiny_model(tokenizer, seed=1)
    other.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    restore_weights(model, tmp_path / "sharded")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty: its weights cannot be read \(Error no file named"):
        restore_weights(model, tmp_path / "empty")
    deeper = tiny_model(tokenizer, num_hidden_layers=3)
    before = [p.clone() for p in deeper.parameters()]
    with pytest.raises(RunError, match=r"weights are not those of the model that trains, e\.g\. model\.layers\.2"):
        restore_weights(deeper, tmp_path / "sharded")
    with pytest.raises(RunError, match="weights are not those"):
        restore_weights(tiny_model(tokenizer, intermediate_size=32), tmp_path / "sharded")
    assert all(torch.equal(a, b) for a, b in zip(deeper.parameters(), before, strict=True))  # all or nothing


@pytest.mark.parametrize(("body", "head"), [(torch.bfloat16, torch.float32), (torch.bfloat16, torch.float16)])
def test_restoring_rounds_nothing_of_weights_of_several_precisions(body, head, tokenizer, tmp_path):
    """A body in half precision with a head of its own, as `GRPOConfig(cast_lm_head_to_fp32=True)` trains."""
    from alignguard.model.restore import restore_weights

    model = tiny_model(tokenizer, tie_word_embeddings=False).to(body)
    model.lm_head.to(head)
    with torch.no_grad():
        model.lm_head.weight.add_(1e-3 * torch.randn_like(model.lm_head.weight))
    start = {name: p.clone() for name, p in model.state_dict().items()}
    assert not torch.equal(
        start["lm_head.weight"].to(body).to(head), start["lm_head.weight"]
    )  # the body's would round it
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    restore_weights(model, tmp_path)
    for name, p in model.state_dict().items():
        assert p.dtype == start[name].dtype and torch.equal(p, start[name]), name


def test_without_an_aligned_checkpoint_the_start_is_put_back(tokenizer, tmp_path, capsys):
    trainer = slow(tokenizer, tmp_path, [planted(audits=1, stop=StopRule(restore=True))], max_steps=3)
    start = {name: p.clone() for name, p in trainer.model.state_dict().items()}
    trainer.train()
    assert trainer.state.global_step == 1 and "the weights of the start were put back" in capsys.readouterr().out
    assert all(torch.equal(p, start[name]) for name, p in trainer.model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"save_total_limit": 3}, "needs the checkpoints of aligned audits, and save_total_limit deletes the oldest"),
        ({"save_strategy": "best", "metric_for_best_model": "loss"}, "both decide which weights are kept"),
    ],
)
def test_what_would_lose_the_aligned_checkpoint_is_an_error_at_once(tokenizer, tmp_path, settings, message):
    trainer = with_eval(tokenizer, tmp_path, [planted(stop=StopRule(restore=True))], **settings)
    with pytest.raises(AlignGuardError, match=message):
        trainer.train()


def test_a_floor_above_the_start_is_an_error_at_once(tokenizer, tmp_path, capsys, caplog):
    trainer = slow(tokenizer, tmp_path, [planted(stop=StopRule(floors={"toxicity": 0.95}))])
    with pytest.raises(AlignGuardError, match=r"the start itself scores 0\.90 in toxicity, below its floor of 0\.95"):
        trainer.train()
    assert "regression" not in caplog.text and "REGRESSION" not in "".join(capsys.readouterr())  # and no row did it


def test_a_run_resumed_after_its_regression_says_so(tokenizer, tmp_path):
    """A scheduler that takes the latest checkpoint takes the one that the stop rule saved."""
    save = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    slow(tokenizer, tmp_path, [planted(audits=3, stop=StopRule())], **save).train()
    with pytest.raises(
        AlignGuardError, match=r"regression of toxicity \(called at step 3\).*checkpoint-2, or go on with"
    ):
        slow(tokenizer, tmp_path, [planted(0, stop=StopRule())], **save).train(resume_from_checkpoint=True)
    going_on = slow(tokenizer, tmp_path, [planted(0, stop=StopRule(stop=False))], **save)
    going_on.train(resume_from_checkpoint=True)
    assert going_on.state.global_step == 6


def test_a_second_train_that_begins_after_a_regression_is_stopped_too(tokenizer, tmp_path):
    callback = planted(stop=StopRule(checkpoint=False))
    trainer = slow(tokenizer, tmp_path, [callback], max_steps=6)
    trainer.train()
    assert trainer.state.global_step == 2
    trainer.train()
    assert trainer.state.global_step == 1 and callback.run.verdict.since["toxicity"] == 0
    assert (tmp_path / "alignguard.1" / "audits.jsonl").exists()


def test_the_last_aligned_audit_lies_before_what_the_evidence_rests_on():
    """A drop too small to be seen at any one audit is there from the first: no audit of it was aligned."""
    rng = np.random.default_rng(0)
    pool = results([1.0] * 200)
    watching = Watch(pool, StopRule(), 10)
    lost = set(rng.permutation(200)[:28])
    for step in range(1, 11):
        drawn = rng.permutation(200)[:48]
        scores = {f"p{i}": 0.0 if i in lost else 1.0 for i in drawn}
        found = {id: Result(pool[id].probe, Score(s, Status.ANSWERED)) for id, s in scores.items()}
        verdict = watching.look(Audit(step, found, {}, 0.0))
        if verdict.since:
            break
    assert verdict.since and verdict.dimensions["safety"].evidence.looks > 1
    assert verdict.last_aligned_step <= verdict.step - verdict.dimensions["safety"].evidence.looks


def fall(drops, draw=48, seed=0, side=None):
    """Audits of a pool of two sides, of which a share as told has been lost by each."""
    rng = np.random.default_rng(seed)
    probe = next(p for p in tiny_probes() if p.expect == "refuse")
    pool = {
        f"p{i}": Result(
            replace(probe, id=f"p{i}", family=f"f{i}", expect=("refuse", "comply")[i % 2]), Score(1.0, Status.ANSWERED)
        )
        for i in range(240)
    }
    hit, order = rng.random(240), rng.permutation(240)
    watching = Watch(pool, StopRule(), last=len(drops))
    verdict = watching.look(Audit(0, dict(pool), {}, 0.0))
    for step, drop in enumerate(drops, 1):
        drawn = np.roll(order, -draw * (step - 1))[:draw]
        lost = {f"p{i}": hit[i] < drop and side in (None, ("refuse", "comply")[i % 2]) for i in drawn}
        churned = {f"p{i}" for i in drawn if rng.random() < 0.02}
        found = {
            id: Result(pool[id].probe, Score(0.0 if gone or id in churned else 1.0, Status.ANSWERED))
            for id, gone in lost.items()
        }
        verdict = watching.look(Audit(step, found, {}, 0.0))
        if verdict.since:
            break
    return verdict


@pytest.mark.parametrize("side", [None, "refuse"])
def test_the_last_aligned_audit_lies_before_a_slow_fall(side):
    """Two points a step from step 4 on, of all or of one side: what is restored had lost no more than is tolerated."""
    drops = [max(0.0, 0.02 * (step - 3)) * (1 if side is None else 2) for step in range(1, 31)]
    restored = [
        drops[v.last_aligned_step - 1]
        for s in range(20)
        if (v := fall(drops, seed=s, side=side)).since and v.last_aligned_step
    ]
    kept = sum(drop <= 0.03 for drop in restored)
    assert len(restored) >= 5 and kept >= 0.85 * len(restored), restored


def test_the_last_aligned_audit_of_a_sudden_fall_is_the_one_before():
    found = [fall([0.0] * 5 + [0.6] * 5, seed=s) for s in range(10)]
    assert all(v.since for v in found) and np.median([v.last_aligned_step for v in found]) >= 4
    assert max(v.last_aligned_step for v in found) == 5


def test_alpha_is_spent_by_the_share_of_the_run_that_is_done():
    """Two audits of a run of 100 steps that had planned more: what was left out is not lost."""
    bad = [0.0] * 7 + [1.0] * 33
    early, late = (Watch(BASELINE, StopRule(), last=100).look(audit_of(s, bad)).dimensions["safety"] for s in (1, 100))
    assert late.evidence.p < early.evidence.p and late.called and not early.called


def test_a_terminal_that_cannot_print_costs_no_stop(tokenizer, tmp_path, monkeypatch):
    import alignguard.trainer.console as console

    def broken(text):
        raise UnicodeEncodeError("latin-1", "x", 0, 1, "no")

    monkeypatch.setattr(console.tqdm, "write", broken)
    trainer = slow(tokenizer, tmp_path, [planted(stop=StopRule())], max_steps=6)
    trainer.train()
    assert trainer.state.global_step == 2
