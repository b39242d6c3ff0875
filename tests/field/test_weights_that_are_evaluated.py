"""
People train with schedule-free optimizers (`optim="schedule_free_adamw"`), whose training weights are not the model's:
`optimizer.eval()` puts those in that are evaluated and saved, and the Trainer calls it before both.

Oracle: drift of the weights that the trainer saves, against a plain deepcopy of the start; and the run without us.
Before: drift 0.883 for 0.724: an audit looked at the training weights.
After: the same; losses and weights as without us, to the bit.

`schedulefree` is not installed here: the class below has its interface and its arithmetic (AdamWScheduleFree 1.4: y and x in
place of each other by `lerp_`, `train_mode` in the groups, a step in eval mode refused), with plain SGD as its base. Weights
that callbacks average and swap by themselves (EMA) cannot be known.
"""

import copy

import pytest
import torch
from drifting import asking_of, told
from runs import Losses, guard, lines, sft
from tiny import tiny_model, tiny_rows

from alignguard import Schedule
from alignguard.auditing.drifts import items_of
from alignguard.drift.reference import freeze_start


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD: z is stepped, x its running mean, and y between both is trained at."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "train_mode": False})

    @torch.no_grad()
    def eval(self):
        for group in self.param_groups:
            if group["train_mode"]:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(end=self.state[p]["z"], weight=1 - 1 / group["beta"])
                group["train_mode"] = False

    @torch.no_grad()
    def train(self):
        for group in self.param_groups:
            if not group["train_mode"]:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(end=self.state[p]["z"], weight=1 - group["beta"])
                group["train_mode"] = True

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group["train_mode"], "Optimizer was not in train mode when step is called."
            group["k"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    z = self.state[p].setdefault("z", p.clone())
                    p.lerp_(end=z, weight=1 / group["k"])
                    p.add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - 1 / group["k"]) - 1))
                    z.sub_(p.grad, alpha=group["lr"])


EVALUATED = {"eval_strategy": "steps", "eval_steps": 2}


def trainer(tokenizer, output_dir, callbacks, start=None, **settings):
    model = copy.deepcopy(start) if start else tiny_model(tokenizer, seed=1, dropout=0.3, scale=4.0)
    made = sft(tokenizer, output_dir, callbacks, model=model, eval_dataset=tiny_rows(4), **settings)
    made.optimizer = ScheduleFree(model.parameters(), lr=2.0)
    return made


def test_an_audit_is_of_the_weights_that_are_saved(tokenizer, tmp_path):
    start, ours = tiny_model(tokenizer, seed=1, scale=4.0), guard(schedule=Schedule(at=(2,), every=0, draw=2))
    saved = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    made = trainer(tokenizer, tmp_path, [ours], start, **saved, **EVALUATED)
    made.train()
    reference, asking = freeze_start(start), asking_of(start, tokenizer)
    items = items_of(ours.settings.pool, ours.run.baseline, asking.chat)
    found = [line["metrics"]["alignguard/kl/raw"] for line in lines(tmp_path)]
    expected = [0.0]
    for step in (2, 4):
        saved = type(start).from_pretrained(tmp_path / f"checkpoint-{step}")
        drifts = {item.id: told(saved, reference, asking, [item]) for item in items}
        expected.append(sum(drifts.values()) / len(drifts))
    assert expected[-1] > 1e-3
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("evaluated", [{}, EVALUATED])
def test_watching_changes_nothing(evaluated, tokenizer, tmp_path):
    """Weights, optimizer state and losses to the bit: a lerp there and back would round."""
    plain, watched, kept = Losses(), Losses(), {}
    for name, callbacks in (("alone", [plain]), ("watched", [watched, guard()])):
        made = trainer(tokenizer, tmp_path / name, callbacks, **evaluated)
        made.train()
        kept[name] = (dict(made.model.named_parameters()), made.optimizer)
    assert watched.logs == plain.logs
    (alone, first), (ours, second) = kept["alone"], kept["watched"]
    assert all(torch.equal(p, ours[name]) for name, p in alone.items())
    modes = [[group["train_mode"] for group in optimizer.param_groups] for optimizer in (first, second)]
    assert modes[0] == modes[1]
