"""Start and policy are asked and judged in one way: where nothing has moved, nothing differs."""

import math
from dataclasses import replace

import pytest
import torch
from runs import guard, lines, sft
from tiny import tiny_model, tiny_probes

from alignguard import Chat, Schedule, TokenBudget, audit, compare
from alignguard.auditing.asking import Asking
from alignguard.auditing.drifts import opens_trace
from alignguard.auditing.result import ProbeDrift, Result
from alignguard.drift.reference import frozen_copy
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Answer
from alignguard.model.observe import undisturbed


class TorchScorer:
    """A scorer made of torch, as classifiers are: under autocast its product would be rounded."""

    def __init__(self):
        self.weight = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
        self.seen = []

    def __call__(self, texts):
        counts = torch.zeros(len(texts), 256)
        for i, text in enumerate(texts):
            for byte in text.encode():
                counts[i, byte] += 1.0
        self.seen.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return (counts @ self.weight).mean(1).sigmoid().tolist()


@pytest.mark.parametrize("reference", ["copy", "cache", "offload"])
def test_a_torch_scorer_sees_no_drop_at_step_0_of_a_run_in_bfloat16(tokenizer, tmp_path, reference):
    """Judged under autocast, the start's texts would score otherwise than the same texts of the unmoved policy."""
    scorer, probes = TorchScorer(), [p for p in tiny_probes() if p.judge == "toxicity"]
    schedule = Schedule(at=(), every=0, draw=2)
    callback = guard(probes=probes, toxicity=scorer, schedule=schedule, reference=reference)
    model = tiny_model(tokenizer, seed=1, scale=4.0)
    sft(tokenizer, tmp_path, [callback], model=model, bf16=True, max_steps=1).train()
    first = lines(tmp_path)[0]["metrics"]
    assert first["alignguard/toxicity/n"] == 1.0
    assert (first["alignguard/toxicity/drop"], first["alignguard/toxicity/evidence"]) == (0.0, 0.0)
    assert set(scorer.seen) == {(False, False)}
    oracle = 1.0 - scorer([callback.run.baseline[p.id].answer.answer for p in probes])[0]
    assert callback.run.baseline["t1"].score.value == pytest.approx(oracle, abs=1e-7)


def test_scorers_are_called_outside_autocast_that_the_caller_set(model, other, tokenizer):
    scorer, probes = TorchScorer(), [p for p in tiny_probes() if p.judge == "toxicity"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        audit(model, tokenizer, probes, other, asking=Asking(Chat.of(model, tokenizer), toxicity=scorer))
        assert torch.is_autocast_enabled("cpu")
    assert len(scorer.seen) == 2 and set(scorer.seen) == {(False, False)}


def test_what_a_scorer_draws_is_put_back():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    with undisturbed(torch.device("cpu")):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("thinks", "same", "opens"),
    [(0.4, 4, True), (0.4, 0, False), (0.6, 0, True)],
    ids=["likeliest, as the start's", "another opening", "likelier than not"],
)
def test_a_policy_that_has_not_moved_opens_a_trace_where_its_start_does(tokenizer, thinks, same, opens):
    """The start thinks where the tag is its likeliest opening, which may be less likely than all others together."""
    tokens = tuple(tokenizer("<think>\nStart with 12.", add_special_tokens=False)["input_ids"])
    start = Result(tiny_probes()[0], Score(None, Status.TRUNCATED), Answer(tokens, "Start", "", True, False, False))
    drift = ProbeDrift([0.0], [0.0], thinks, len(tokens) if same else 0, -1)
    assert opens_trace(drift, start, Chat(tokenizer)) is opens


def test_the_step_0_of_a_run_is_the_baseline_to_the_last_digit(tokenizer, tmp_path):
    callback = guard(schedule=Schedule(at=(), every=0, draw=9))
    sft(tokenizer, tmp_path, [callback], max_steps=1).train()
    first = lines(tmp_path)[0]
    then = {id: result.score.value for id, result in callback.run.baseline.items() if id in first["scores"]}
    assert first["scores"] == then and not any(
        math.isfinite(v) and v != 0.0 for k, v in first["metrics"].items() if k.endswith(("/drop", "/evidence"))
    )


class Wavering:
    """A scorer whose figures depend on what was judged before, as padding makes those of a classifier."""

    def __init__(self):
        self.calls = 0

    def __call__(self, texts):
        self.calls += 1
        return [0.5 + 1e-6 * self.calls + len(text) % 7 / 100 for text in texts]


def test_the_rounding_of_a_scorer_is_no_evidence(model, tokenizer):
    """It has a sign, too, and evidence has no scale: forty scores that are higher by 1e-6 would be proof."""
    (one,) = [p for p in tiny_probes() if p.judge == "toxicity"]
    probes = [replace(one, id=f"t{i}", family=f"t{i}", messages=turns(i)) for i in range(40)]
    baseline, asking = {}, Asking(Chat.of(model, tokenizer), TokenBudget(8, 8), Wavering())
    audits = [
        audit(model, tokenizer, probes, frozen_copy(model), baseline=baseline, asking=asking, step=s) for s in (0, 5)
    ]
    assert audits[1].metrics["alignguard/toxicity/drop"] == pytest.approx(2e-6, rel=1e-3)
    verdict = compare(baseline, audits, looks=2)
    assert verdict.dimensions["toxicity"].n > 30 and verdict.dimensions["toxicity"].evidence.strength == 0.0


def turns(i):
    return ({"role": "user", "content": f"The quick brown fox {'jumps ' * i}"},)
