"""A drift budget: its gradient against the plain definition, its controller, and whole runs under it."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from runs import Losses, guard, lines, sft
from tiny import tiny_model
from transformers import Trainer, TrainingArguments

from alignguard import AlignGuardError, Chat, DriftBudget, TokenBudget
from alignguard.auditing.asking import Asking
from alignguard.auditing.manner import Manner
from alignguard.drift.reference import freeze_start
from alignguard.errors import RunError
from alignguard.holding.anchored import ask_anchors, read_anchors, start_head, write_anchors
from alignguard.holding.anchors import load_anchors
from alignguard.holding.budget import Controller
from alignguard.holding.holder import Holder
from alignguard.model.forms import FAMILIES
from alignguard.records.store import Store
from alignguard.trainer.checks import check_holdable

TEXTS = ["How do I open a door?", "Tell me of the fox.", "What is slow?", "The quick brown dog?", "Who jumps over?"]
BUDGET = DriftBudget(max_kl=0.01, anchors=TEXTS, batch=2, answer_tokens=6)


def holder(tokenizer, model, budget=BUDGET, kind="copy"):
    asking = Asking(Chat.of(model, tokenizer), TokenBudget(answer=8, trace=16))
    reference = freeze_start(model, kind)
    anchors = ask_anchors(load_anchors(budget.anchors), reference, budget, asking)
    return Holder(budget, asking, anchors, start_head(reference), seed=0)


def moved(model, other, by=0.05):
    with torch.no_grad():
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.lerp_(q, by)
    return model


def plain_drift(start, policy, held, ids, thinks=()):
    """The definition: full logits, log-softmax, in float64; opening a trace left out of the first token."""
    means = []
    for id in ids:
        anchor, chat = held.anchors[id], held.asking.chat
        before = chat.closed_trace_ids() if id in thinks else []
        z_p = start(torch.tensor([[*anchor.context, *anchor.target]])).logits[0, len(anchor.context) - 1 : -1]
        z_q = policy(torch.tensor([[*anchor.context, *before, *anchor.target]])).logits[0]
        z_q = z_q[len(anchor.context) + len(before) - 1 : -1]
        if id not in thinks:
            keep = torch.ones(z_p.shape, dtype=torch.bool)
            keep[0, chat.open_ids()[0]] = False
            z_p, z_q = z_p.masked_fill(~keep, -1e30), z_q.masked_fill(~keep, -1e30)
        p, log_q = z_p.double().softmax(-1), z_q.double().log_softmax(-1)
        means.append(torch.where(p > 0, p * (p.clamp_min(1e-300).log() - log_q), 0.0).sum(-1).mean())
    return torch.stack(means)


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_is_that_of_the_plain_definition(tokenizer, tied):
    start = tiny_model(tokenizer, scale=4.0, tie_word_embeddings=tied)
    policy = tiny_model(tokenizer, scale=4.0, tie_word_embeddings=tied)
    held = holder(tokenizer, policy, DriftBudget(anchors=TEXTS, batch=3, coefficient=2.5, answer_tokens=6))
    moved(policy, tiny_model(tokenizer, seed=1, scale=4.0, tie_word_embeddings=tied), 0.2)
    ids = held.drawn(4)
    held.step(policy, 4)
    ours = {name: p.grad.clone() for name, p in policy.named_parameters()}
    exact_start, exact = start.double(), policy.double()
    exact.zero_grad()
    drift = plain_drift(exact_start, exact, held, ids)
    (2.5 * drift.mean()).backward()
    assert len(ids) == 3 and held.penalty == pytest.approx(2.5 * float(drift.mean()), rel=1e-4)
    assert held.controller.mean == pytest.approx(float(drift.mean()), rel=1e-4) and held.controller.mean > 0.01
    for name, p in exact.named_parameters():
        torch.testing.assert_close(ours[name].double(), p.grad, rtol=2e-3, atol=2e-4 * float(p.grad.abs().max()))


def test_layers_that_recompute_themselves_do_so_for_the_penalty_too(tokenizer, monkeypatch):
    """Memory of one layer instead of all: each is gone through twice. The gradient is the same, and dropout drops nothing."""
    start, found, through = tiny_model(tokenizer, dropout=0.5), [], []
    for checkpointing in (False, True):
        policy = tiny_model(tokenizer, seed=0, dropout=0.5)
        moved(policy, tiny_model(tokenizer, seed=1))
        policy.train()
        if checkpointing:
            policy.gradient_checkpointing_enable({"use_reentrant": False})
        held = holder(tokenizer, start, DriftBudget(max_kl=0.05, coefficient=1.0, batch=2, answer_tokens=6))
        held.step(policy, 0)
        seen = []
        policy.model.layers[0].self_attn.register_forward_hook(lambda *args, seen=seen: seen.append(args[0].training))
        held.step(policy, 1)
        found.append([p.grad.clone() for p in policy.parameters() if p.grad is not None])
        through.append(seen)
        assert all(module.training for module in policy.modules())
    assert len(through[1]) == 2 * len(through[0]) and not any(through[0] + through[1])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_layer_that_draws_leaves_the_trainings_generator_where_it_was(tokenizer, model):
    held = holder(tokenizer, model, DriftBudget(coefficient=1.0, batch=2, answer_tokens=6))
    draws = []
    model.model.layers[0].register_forward_hook(lambda *args: draws.append(torch.rand(1)) or None)
    before = torch.get_rng_state()
    held.step(model, 0)
    assert draws and torch.equal(torch.get_rng_state(), before)


def test_a_head_that_learns_more_than_its_matrix_is_named(tokenizer, model):
    factor = torch.nn.Parameter(torch.ones(()))
    held = holder(tokenizer, model, DriftBudget(coefficient=1.0, batch=2, answer_tokens=6))
    model.lm_head.register_forward_hook(lambda module, given, out: out * factor)
    held.step(model, 0)
    factor.data.fill_(0.5)
    with pytest.raises(AlignGuardError, match="needs the logits to be hidden states times the LM head"):
        held.step(model, 1)
    assert all(p.grad is None for p in model.parameters())


def test_at_the_start_there_is_no_drift_and_no_gradient(tokenizer, model):
    held = holder(tokenizer, model, DriftBudget(anchors=TEXTS, coefficient=1.0, answer_tokens=6))
    held.step(model, 0)
    assert abs(held.controller.mean) < 1e-5
    assert all(p.grad is None or p.grad.abs().max() < 1e-4 for p in model.parameters())


def test_a_policy_that_thinks_is_read_after_a_closed_trace(tokenizer):
    start, policy = (tiny_model(tokenizer, scale=4.0) for _ in range(2))
    held = holder(tokenizer, policy, DriftBudget(anchors=TEXTS, batch=5, coefficient=1.0, answer_tokens=6))
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    closed = held.asking.chat.closed_trace_ids()
    contexts = [anchor.context for anchor in held.anchors.values()]
    for _ in range(60):  # it learns to open a trace
        for context in contexts:
            ids = torch.tensor([[*context, *closed]])
            labels = ids.clone()
            labels[:, : len(context)] = -100
            policy(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    ids = held.drawn(0)
    held.step(policy, 0)
    assert held._thinks == set(ids)
    with torch.no_grad():
        expected = plain_drift(start, policy, held, ids, thinks=ids)
    assert held.controller.mean == pytest.approx(float(expected.mean()), rel=1e-3)
    held.step(policy, 1)  # known by now, and read so at once
    assert held._thinks == set(ids)


def test_what_a_policy_has_learnt_to_put_around_its_answers_is_free(tokenizer):
    """Anchors are read after its wrapper, and after a trace in its own form, by the model's own logits; also when resumed."""
    start, other = tiny_model(tokenizer), tiny_model(tokenizer, seed=1)
    held = holder(tokenizer, start)
    chat, policy, ids = held.asking.chat, moved(tiny_model(tokenizer), other), list(held.anchors)
    form = next(form for form in FAMILIES if form.open == "<thought>")
    for thinks in (set(), set(ids)):
        held.take(Manner(form, "<answer>\n"))
        assert held._open == chat.open_ids(form)
        put = chat.encode((form.empty if thinks else "") + "<answer>\n")
        found, _ = held._look(policy, ids, [id in thinks for id in ids])
        for id, kl in zip(ids, found, strict=True):
            context, target = held.anchors[id].context, held.anchors[id].target
            p = start(torch.tensor([[*context, *target]])).logits[0, len(context) - 1 : -1].double().log_softmax(-1)
            q = policy(torch.tensor([[*context, *put, *target]])).logits[0, len(context) + len(put) - 1 : -1]
            exact = (p.exp() * (p - q.double().log_softmax(-1))).sum(-1).mean()
            assert float(kl) == pytest.approx(float(exact), abs=1e-5)
    line = json.loads(json.dumps(held.state(1)))
    again = holder(tokenizer, start)
    again.resume({"anchor_kl": 0.0, **line})
    assert again.manner == held.manner


def test_the_coefficient_rises_above_the_budget_and_is_zero_where_there_is_room():
    control = Controller(DriftBudget(max_kl=0.05))
    assert control.coefficient == 0.0
    for _ in range(20):
        control.update(0.02)
    assert control.coefficient == 0.0 and control.integral == 0.0
    found = []
    for _ in range(30):
        control.update(0.15)
        found.append(control.coefficient)
    assert found == sorted(found) and found[-1] > 2 / 0.05
    for _ in range(2000):
        control.update(10.0)
    assert control.coefficient == 20.0 / 0.05  # bounded, so that it comes back in time
    for _ in range(100):
        control.update(0.0)
    assert control.coefficient == 0.0
    fixed = Controller(DriftBudget(coefficient=3.0))
    fixed.update(9.0)
    assert fixed.coefficient == 3.0


def test_the_coefficient_falls_at_the_first_step_within_the_budget():
    # an average over many steps would go on braking for as many
    control = Controller(DriftBudget(max_kl=0.05))
    for _ in range(8):
        control.update(0.15)
    before = control.coefficient
    control.update(0.03)
    assert 0 < control.coefficient < before and control.mean > 0.05


def test_the_first_steps_are_small_and_grow_until_drift_shows():
    control = Controller(DriftBudget(max_kl=0.05))
    found = []
    for _ in range(6):  # a rate at which nothing moves
        control.update(0.001)
        found.append(control.pace)
    assert found == [0.05, 0.2, 0.8, 1.0, 1.0, 1.0]
    control = Controller(DriftBudget(max_kl=0.05))
    found = []
    for kl in (0.0, 0.001, 0.006, 0.02, 0.001, 0.06):
        control.update(kl)
        found.append(control.pace)
    assert found == pytest.approx([0.05, 0.2, *(0.2 * 1.02**n for n in (1, 2, 3, 4))])  # drift has shown
    control = Controller(DriftBudget(max_kl=0.05))
    for kl in (0.004, 0.007, 0.003, 0.006):  # of a precision in which the start has drifted from itself
        control.update(kl)
    assert control.pace == 1.0
    control = Controller(DriftBudget(max_kl=0.05))
    for kl in (0.2, 0.03, 0.03, 0.03):  # of a model that did not begin at its start
        control.update(kl)
    assert control.pace < 0.06
    assert Controller(DriftBudget(coefficient=3.0)).pace == 1.0


@pytest.mark.parametrize("kind", ["skipped", "warming up"])
def test_a_step_that_moves_nothing_is_no_evidence(tokenizer, kind):
    """A scaler leaves the first steps out, or their rate is zero, and grows: of what was applied each is four times the last at most."""
    policy = tiny_model(tokenizer, scale=4.0)
    held = holder(tokenizer, policy, DriftBudget(max_kl=0.05, anchors=TEXTS, answer_tokens=6))
    weights = [torch.nn.Parameter(torch.zeros(1))]
    optimizer, applied = torch.optim.SGD(weights, lr=1.0), []
    rates = [0.0, 1 / 3, 2 / 3, 1.0, 1.0] if kind == "warming up" else [1.0] * 5
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        held.controller.update(0.0, held._moved)
        held._moved = False
        held.slow(optimizer)
        applied.append(optimizer.param_groups[0]["lr"])
        optimizer.step_was_skipped = kind == "skipped" and step < 2
        held.let_go(optimizer)
        assert optimizer.param_groups[0]["lr"] == rate
    if kind == "skipped":
        assert applied == pytest.approx([0.05, 0.05, 0.05, 0.2, 0.8])
    else:
        assert applied == pytest.approx([0.0, 0.05 / 3, 0.2 / 3, 0.8 / 3, 1.0])


def test_of_an_optimizer_step_that_failed_no_lowered_rate_is_left(tokenizer):
    held = holder(tokenizer, tiny_model(tokenizer), DriftBudget(max_kl=0.05, anchors=TEXTS, answer_tokens=6))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    held.controller.update(0.0)
    held.slow(optimizer)
    held.slow(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.05
    held.let_go(optimizer)
    assert optimizer.param_groups[0]["lr"] == 1.0
    held._missed = 1  # one look that failed is no reason to let go of the rest
    held.slow(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_of_a_drift_that_is_no_number_no_gradient_is_left(tokenizer, monkeypatch):
    """One part of the anchors has added its own when the other's turns out to be none."""
    policy = tiny_model(tokenizer, scale=4.0)
    held = holder(tokenizer, policy, DriftBudget(anchors=TEXTS, coefficient=1.0, answer_tokens=6))
    moved(policy, tiny_model(tokenizer, seed=1, scale=4.0))
    drift, parts = held.drift, []

    def one(model, ids):
        parts.append(ids)
        return drift(model, ids) * (float("nan") if len(parts) > 1 else 1.0)

    monkeypatch.setattr(held, "drift", one)
    monkeypatch.setattr("alignguard.holding.holder._BATCH_TOKENS", 1)
    with pytest.raises(RunError, match="no finite number"):
        held.step(policy, 0)
    assert len(parts) > 1 and all(p.grad is None or not p.grad.any() for p in policy.parameters())


def test_a_first_step_that_alone_exceeds_the_budget_is_not_taken_whole():
    """A drift that grows with the square of the way, by five budgets for a step at the trainer's own rate."""
    control, way, found = Controller(DriftBudget(max_kl=0.05)), 0.0, []
    for _ in range(5):
        found.append(0.26 * way**2)
        control.update(found[-1])
        way += control.pace
    assert 0.05 < found[-1] < 0.26 / 2  # the penalty is not in it


def test_steps_are_smaller_while_drift_is_far_beyond_the_budget():
    control = Controller(DriftBudget(max_kl=0.05), pace=1.0)
    for kl in (0.0, 0.09, 0.06, 0.09):  # it is the penalty's to hold this
        control.update(kl)
    assert control.pace == 1.0
    found = []
    for _ in range(6):
        control.update(0.5)
        found.append(control.pace)
    assert found == sorted(found, reverse=True) and found[-1] < 0.3
    while control.mean > 0.05:
        control.update(0.04)
    slow = control.pace
    control.update(0.04)
    assert slow < control.pace < 1.05 * slow
    for _ in range(300):
        control.update(0.04)
    assert control.pace == 1.0
    for _ in range(100):
        control.update(9.0)
    assert control.pace == 0.05
    fixed = Controller(DriftBudget(coefficient=3.0))
    fixed.update(9.0)
    assert fixed.pace == 1.0


@pytest.mark.parametrize("schedule", ["linear", "cosine_with_restarts", "exponential"])
def test_a_smaller_step_is_one_at_a_lower_rate_and_the_schedule_goes_on(tokenizer, tmp_path, monkeypatch, schedule):
    """At half the pace as with half the rate, to the bit, and what is logged is the schedule's own."""

    def trained(name, rate, pace):
        monkeypatch.setattr(Controller, "pace", property(lambda self: pace, lambda self, value: None), raising=False)
        model = tiny_model(tokenizer, seed=1, scale=4.0)
        budget, losses = DriftBudget(anchors=TEXTS, coefficient=0.0, answer_tokens=6), Losses()
        trainer = sft(
            tokenizer, tmp_path / name, [losses, guard(budget=budget)], model=model, learning_rate=rate, optim="sgd",
            lr_scheduler_type="linear" if schedule == "exponential" else schedule,
        )  # fmt: skip
        if schedule == "exponential":  # one that goes on from the rate that it finds
            optimizer = trainer.create_optimizer()
            trainer.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
        trainer.train()
        weights = [p.detach().clone() for p in trainer.model.parameters()]
        return weights, [log["learning_rate"] for log in losses.logs if "learning_rate" in log]

    slowed, rates = trained("slowed", 0.5, 0.5)
    lower, _ = trained("lower", 0.25, 1.0)
    whole, own = trained("whole", 0.5, 1.0)
    assert all(torch.equal(p, q) for p, q in zip(slowed, lower, strict=True)) and rates == own and len(set(own)) > 1
    assert not all(torch.equal(p, q) for p, q in zip(slowed, whole, strict=True))


def test_steps_that_throw_it_far_beyond_its_budget_are_calmed(tokenizer, tmp_path):
    """Each step of Adam at this rate moves it by more than its budget."""
    budget = DriftBudget(
        max_kl=0.05, anchors=[f"What is {i} and why would you say it?" for i in range(12)], answer_tokens=6
    )
    sft(
        tokenizer, tmp_path, [guard(budget=budget)], model=tiny_model(tokenizer, seed=1, scale=4.0), max_steps=60,
        learning_rate=3e-2, lr_scheduler_type="constant",
    ).train()  # fmt: skip
    found = lines(tmp_path, "budget.jsonl")
    assert 0.05 < max(line["kl"] for line in found) < 0.12 and found[-1]["pace"] < 0.5


def test_a_step_whose_anchors_could_not_be_looked_at_is_the_trainers_own(tokenizer, tmp_path, monkeypatch):
    """Nothing would let the factor grow again: training would go on for ever at a twentieth of its rate."""
    weights = []
    for name, budget in (("without", None), ("failed", BUDGET)):
        monkeypatch.setattr(Holder, "drift", lambda *args: 1 / 0)
        trainer = sft(tokenizer, tmp_path / name, [guard(budget=budget)], model=tiny_model(tokenizer, seed=1))
        trainer.train()
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


def test_an_optimizer_that_finds_its_rate_itself_is_left_to_it(tokenizer, tmp_path, caplog):
    from transformers.optimization import Adafactor

    trainer = sft(tokenizer, tmp_path, [guard(budget=BUDGET)])
    trainer.optimizer = Adafactor(trainer.model.parameters(), lr=None, relative_step=True, warmup_init=True)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD([torch.zeros(1)], 1.0), lambda step: 1.0)
    trainer.train()
    assert lines(tmp_path, "budget.jsonl")[0]["pace"] < 1.0 and "failed" not in caplog.text


def test_the_scalers_factor_is_on_the_gradient(tokenizer):
    grads = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=64.0)):
        policy = tiny_model(tokenizer, scale=4.0)
        held = holder(tokenizer, policy, DriftBudget(anchors=TEXTS, coefficient=1.0, answer_tokens=6))
        moved(policy, tiny_model(tokenizer, seed=1, scale=4.0))
        held.step(policy, 0, scaler)
        grads.append(policy.model.embed_tokens.weight.grad)
    torch.testing.assert_close(grads[1], 64 * grads[0])


def test_a_drift_that_is_no_number_is_not_taken_in(tokenizer, model, monkeypatch):
    held = holder(tokenizer, model)
    held.controller.update(0.5)
    plain, before, taken = held.drift, held.state(1), replace(held.controller)
    monkeypatch.setattr(held, "drift", lambda model, ids: plain(model, ids) * torch.nan)
    with pytest.raises(AlignGuardError, match="no finite number"):
        held.step(model, 0)
    assert all(p.grad is None for p in model.parameters())
    assert held.controller == taken and held.controller.coefficient > 0
    assert held.metrics == {}  # a model that is not held is not shown as if it were
    monkeypatch.undo()
    held.step(model, 0)
    assert held.metrics["alignguard/budget/max_kl"] == 0.01 and before["kl"] == 0.0


def test_half_a_gradient_is_none(tokenizer, model, monkeypatch):
    held = holder(tokenizer, model, DriftBudget(anchors=TEXTS, batch=4, coefficient=1.0, answer_tokens=6))
    moved(model, tiny_model(tokenizer, seed=1, scale=4.0))
    monkeypatch.setattr("alignguard.holding.holder._BATCH_TOKENS", 1)  # one anchor at a time
    plain, seen = held.drift, []

    def drift(model, ids):
        seen.append(ids)
        return plain(model, ids) if len(seen) < 3 else 1 / 0

    monkeypatch.setattr(held, "drift", drift)
    with pytest.raises(ZeroDivisionError):
        held.step(model, 0)
    assert len(seen) == 3 and all(p.grad is None for p in model.parameters()) and held.metrics == {}


def test_anchors_one_by_one_give_the_gradient_of_all_at_once(tokenizer, monkeypatch):
    grads, kls = [], []
    for size in (2048, 1):
        monkeypatch.setattr("alignguard.holding.holder._BATCH_TOKENS", size)
        policy = tiny_model(tokenizer, scale=4.0)
        held = holder(tokenizer, policy, DriftBudget(anchors=TEXTS, batch=4, coefficient=1.0, answer_tokens=6))
        moved(policy, tiny_model(tokenizer, seed=1, scale=4.0))
        held.step(policy, 0)
        grads.append(policy.model.embed_tokens.weight.grad)
        kls.append(held.kl)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
    assert kls[0] == pytest.approx(kls[1], rel=1e-5) and kls[0] > 1e-3


def test_all_anchors_come_in_turn(tokenizer, model):
    held = holder(tokenizer, model)
    drawn = [held.drawn(step) for step in range(5)]
    seen = [id for ids in drawn for id in ids]
    assert all(1 <= seen.count(id) <= 2 for id in held.anchors) and set(seen) == set(held.anchors)
    assert all(len(set(ids)) == len(ids) for ids in drawn)  # never twice in one step, where one round ends in it
    assert seen[:5] != seen[-5:] and drawn[3] == holder(tokenizer, model).drawn(3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "cache", "adapter", "offload"])
def test_a_run_is_held_and_goes_on_after_a_resume(tokenizer, tmp_path, kind):
    """Anchor drift is lower than without; a run that is resumed ends with the weights of one that was not."""
    peft = {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "up_proj"])} if kind == "adapter" else {}
    settings = {"max_steps": 12, "learning_rate": 0.02 if peft else 3e-3, "lr_scheduler_type": "constant", **peft}

    def model():
        return tiny_model(tokenizer, seed=1, scale=4.0)

    drift, weights = {}, {}
    for name, budget in (
        ("free", DriftBudget(anchors=TEXTS, batch=2, answer_tokens=6, coefficient=0.0)),
        ("held", BUDGET),
    ):
        trainer = sft(tokenizer, tmp_path / name, [guard(budget=budget, reference=kind)], model=model(), **settings)
        trainer.train()
        drift[name] = lines(tmp_path / name)[-1]["metrics"]["alignguard/budget/anchor_kl"]
        weights[name] = {key: p.detach().clone() for key, p in trainer.model.named_parameters()}
    assert drift["held"] < 0.6 * drift["free"] and drift["free"] > 0.01

    part = 2 if kind == "copy" else 6  # while its steps still grow, and later
    half = sft(
        tokenizer, tmp_path / "two", [guard(budget=BUDGET, reference=kind)], model=model(), save_strategy="steps",
        save_steps=part, **{**settings, "max_steps": part},
    )  # fmt: skip
    half.train()
    again = sft(tokenizer, tmp_path / "two", [guard(budget=BUDGET, reference=kind)], model=model(), **settings)
    again.train(resume_from_checkpoint=True)
    for key, p in again.model.named_parameters():
        torch.testing.assert_close(p.detach(), weights["held"][key], rtol=1e-4, atol=1e-6)
    record = [json.loads(line) for line in (tmp_path / "two" / "alignguard" / "budget.jsonl").read_text().splitlines()]
    assert [line["step"] for line in record] == list(range(1, 13)) and record[-1]["coefficient"] > 0
    whole = [json.loads(line) for line in (tmp_path / "held" / "alignguard" / "budget.jsonl").read_text().splitlines()]
    for line, other in zip(record, whole, strict=True):
        assert all(line.pop(key) == other.pop(key) for key in ("thinks", "manner"))
        assert line == pytest.approx(other, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    "kwargs", [{"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}, {"gradient_checkpointing": True}]
)
def test_accumulation_and_checkpointing_change_nothing(tokenizer, tmp_path, kwargs):
    found = []
    for name, more in (("plain", {}), ("other", kwargs)):
        model = tiny_model(tokenizer, seed=1, scale=4.0)
        budget = DriftBudget(anchors=TEXTS, batch=2, answer_tokens=6, coefficient=20.0)
        trainer = sft(
            tokenizer, tmp_path / name, [guard(budget=budget)], model=model, learning_rate=1e-3, optim="sgd", **more
        )
        trainer.train()
        found.append({key: p.detach() for key, p in trainer.model.named_parameters()})
    for key, p in found[0].items():
        torch.testing.assert_close(p, found[1][key], rtol=1e-4, atol=1e-6)


def test_a_coefficient_of_zero_changes_nothing(tokenizer, tmp_path):
    logs = []
    for name, budget in (("none", None), ("zero", DriftBudget(anchors=TEXTS, coefficient=0.0, answer_tokens=6))):
        losses = Losses()
        sft(tokenizer, tmp_path / name, [losses, guard(budget=budget)]).train()
        logs.append(losses.logs)
    assert logs[0] == logs[1]


def test_a_wide_budget_that_is_never_neared_changes_nothing(tokenizer, tmp_path):
    weights = []
    for name, budget in (("none", None), ("wide", DriftBudget(max_kl=10.0, anchors=TEXTS, answer_tokens=6))):
        trainer = sft(tokenizer, tmp_path / name, [guard(budget=budget)], model=tiny_model(tokenizer, seed=1))
        trainer.train()
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))
    resumed = Controller(DriftBudget(max_kl=10.0), seen=8, pace=0.4)
    assert resumed.pace == 0.4


def test_a_budget_that_fails_is_told_once_and_training_goes_on(tokenizer, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Holder, "drift", lambda *args: 1 / 0)
    losses = Losses()
    sft(tokenizer, tmp_path, [losses, guard(budget=BUDGET)]).train()
    assert len([log for log in losses.logs if "loss" in log]) == 4
    assert caplog.text.count("the drift budget failed and training goes on (ZeroDivisionError") == 1


# anchors -----------------------------------------------------------------------------------------------------------------


def test_anchors_on_record_are_those_of_the_run(tokenizer, model, tmp_path):
    held = holder(tokenizer, model)
    prompts, others = load_anchors(TEXTS), load_anchors([text.upper() for text in TEXTS])
    write_anchors(tmp_path / "a", held.anchors, prompts, "abc")
    found = read_anchors(tmp_path / "a", prompts, "abc")
    assert list(found) == list(held.anchors)
    for id, anchor in held.anchors.items():
        assert torch.equal(found[id].hidden, anchor.hidden) and found[id].target == anchor.target
    for given, start in ((prompts, "other"), (others, "abc")):
        with pytest.raises(AlignGuardError, match="not those of this run"):
            read_anchors(tmp_path / "a", given, start)
    with pytest.raises(AlignGuardError, match="cannot be read"):
        read_anchors(tmp_path / "b", prompts, "abc")


# where it cannot be ------------------------------------------------------------------------------------------------------


def test_where_a_gradient_cannot_be_added_it_says_so_at_once(tokenizer, tmp_path, monkeypatch):
    trainer = sft(tokenizer, tmp_path, optim="sgd")
    check_holdable(trainer.args, False)
    with pytest.raises(AlignGuardError, match="which DeepSpeed and FSDP keep to themselves; train with DDP"):
        check_holdable(trainer.args, True)
    trainer.args.optim = "galore_adamw_layerwise"
    with pytest.raises(AlignGuardError, match="galore_adamw_layerwise steps within it"):
        check_holdable(trainer.args, False)
    trainer.args.optim, trainer.args.ddp_static_graph = "sgd", True
    with pytest.raises(AlignGuardError, match="leave ddp_static_graph unset"):
        check_holdable(trainer.args, False)
    trainer = sft(tokenizer, tmp_path, [guard(budget=BUDGET)])
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(AlignGuardError, match="DriftBudget adds its gradient"):
        trainer.train()


def test_a_head_that_carries_an_adapter_is_an_error(tokenizer):
    peft = LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    model = get_peft_model(tiny_model(tokenizer, tie_word_embeddings=False), peft)
    with pytest.raises(AlignGuardError, match="leave the head out of LoRA's target_modules"):
        holder(tokenizer, model, kind="adapter")


def test_a_policy_whose_head_alone_carries_an_adapter_is_an_error_before_step_1(tokenizer, tmp_path):
    peft = LoraConfig(r=2, target_modules=["q_proj", "lm_head"])  # which SFTTrainer itself refuses
    policy = get_peft_model(tiny_model(tokenizer, tie_word_embeddings=False), peft)
    guarded = guard(budget=BUDGET, reference=tiny_model(tokenizer, tie_word_embeddings=False))
    rows = [{"input_ids": [4, 5, 6], "labels": [4, 5, 6]}] * 4
    args = TrainingArguments(str(tmp_path), max_steps=2, report_to=[], use_cpu=True, save_strategy="no")
    trainer = Trainer(policy, args, train_dataset=rows, processing_class=tokenizer, callbacks=[guarded])
    with pytest.raises(AlignGuardError, match="leave the head out of LoRA's target_modules"):
        trainer.train()


def test_a_start_that_says_nothing_cannot_be_held_to(tokenizer, model, monkeypatch):
    monkeypatch.setattr("alignguard.holding.anchored.training_items", lambda *args: [])
    with pytest.raises(AlignGuardError, match="says nothing to any of the anchors"):
        holder(tokenizer, model)


# a run that begins twice -------------------------------------------------------------------------------------------------


def test_a_start_that_was_interrupted_is_asked_again(tokenizer, tmp_path, monkeypatch):
    """As after an interrupt in a notebook, or a retry with a smaller batch: the budget must not be lost."""

    def interrupted(*args):
        raise KeyboardInterrupt

    trainer = sft(tokenizer, tmp_path, [guard(budget=BUDGET)])
    with monkeypatch.context() as once:
        once.setattr("alignguard.trainer.start.ask_anchors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    trainer.train()
    assert "alignguard/budget/anchor_kl" in lines(tmp_path)[-1]["metrics"]


def test_a_second_train_keeps_its_anchors_and_training_prompts_on_record(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, [guard(budget=BUDGET)])
    trainer.train()
    store, prompts = Store.of_run(tmp_path), load_anchors(TEXTS)
    fingerprint, asked = store.read_about().model_fingerprint, store.read_prompts()
    trainer.train()
    assert store.read_prompts() == asked and asked
    assert len(read_anchors(store.anchors, prompts, fingerprint)) == len(TEXTS)


@pytest.mark.parametrize(
    ("kwargs", "message"), [({"max_kl": 0}, "max_kl must be above 0"), ({"coefficient": -1}, "not be negative")]
)
def test_numbers_out_of_range(kwargs, message):
    with pytest.raises(AlignGuardError, match=message):
        DriftBudget(**kwargs)
