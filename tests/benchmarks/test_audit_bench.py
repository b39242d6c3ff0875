"""The pieces of the benchmark of an audit's cost, on a tiny model."""

from dataclasses import replace

import pytest
import torch
from audit import Bench, check, growth, others, show, staged, summary
from decoding import Planned, ideal_steps, lines, plan
from plain import differences, is_tie, plain_audit, questions
from rivals import against_lm_eval, against_trl
from tiny import tiny_model, tiny_probes, tiny_tokenizer

import alignguard.auditing.audit as auditing
from alignguard import Chat, TokenBudget
from alignguard.auditing.asking import Asking
from alignguard.model.generation import answer_all


def pushed(by):
    """The start, or a model that has moved a little or much."""
    model = tiny_model(tiny_tokenizer())
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += by * p.std() * torch.randn(p.shape, generator=noise) if p.dim() > 1 else 0
    return model


@pytest.fixture(scope="module")
def bench():
    tokens = TokenBudget(answer=12, trace=16)
    asking = Asking(Chat(tiny_tokenizer()), tokens, toxicity=lambda texts: [0.0] * len(texts))
    return Bench(pushed(0.0), tiny_probes(), asking)


@pytest.mark.parametrize("by", (0.0, 0.02, 0.3))
def test_the_plain_way_gives_what_an_audit_gives(bench, by):
    line, _ = bench.held(pushed(by), None, unmoved=by == 0)
    assert line["answers"] == 7 and line["identical"] + line["ties"] == 7 and line["otherwise"] == 0
    check([line])
    assert line["kl_gap"] < 1e-4 * max(1, line["kl_raw"]) and line["reverse_gap"] < 1e-3
    assert (line["kl_raw"] == 0) == (by == 0) and (line["drafted"] == 1) == (by == 0)
    assert line["seconds"]["plain"] > 0 and line["stages"]["whole"] >= line["stages"]["drift"] > 0
    assert ("first_audit_speedup" in line) == (by == 0)


def test_a_policy_that_thinks_is_asked_after_its_own_form(bench, monkeypatch):
    """Rows after an empty trace are both ways the same, also of answers and options."""
    monkeypatch.setattr("alignguard.auditing.audit.opens_trace", lambda *args: True)
    monkeypatch.setattr("plain.opens_trace", lambda *args: True)
    policy = pushed(0.1)
    found = bench.ask(policy)
    asked = questions(found, bench.probes, bench.baseline, bench.asking)
    choices = [p for p in bench.probes if p.judge == "choice"]
    trace = bench.asking.chat.closed_trace_ids()
    assert all(list(row.context[-len(trace) :]) == trace for p in choices for row in asked.rows[p.id])
    gaps = differences(found, plain_audit(policy, bench.reference.model, asked), asked, policy)
    assert gaps["logprob_gap"] < 1e-3 and gaps["otherwise"] == 0


def test_other_figures_are_told(bench):
    policy = pushed(0.1)
    found = bench.ask(policy)
    asked = questions(found, bench.probes, bench.baseline, bench.asking)
    other = plain_audit(pushed(0.5), bench.reference.model, asked)
    with pytest.raises(SystemExit, match=r"kl_gap is .*answers differ"):
        check([differences(found, other, asked, policy)])


def test_a_tie_is_of_tokens_with_one_logit():
    model, prompt = pushed(0.0), [5, 6, 7]
    with torch.no_grad():
        first, second = model(torch.tensor([prompt])).logits[0, -1].topk(2).indices.tolist()
        chat = Chat(tiny_tokenizer())
        one, other = chat.answer([first], False), chat.answer([second], False)
        assert not is_tie(model, prompt, one, other)
        model.lm_head.weight[second] = model.lm_head.weight[
            first
        ]  # tied to the embeddings, of which the prompt has neither
    assert not {first, second} & set(prompt) and is_tie(model, prompt, one, other)


def test_stages_are_timed_and_functions_put_back(bench):
    then, seconds = auditing.measure_drift, {}
    with staged(seconds):
        assert auditing.measure_drift is not then
        bench.ask(pushed(0.1))
    assert auditing.measure_drift is then and seconds["generation"] > 0
    assert seconds["whole"] == pytest.approx(sum(v for k, v in seconds.items() if k != "whole"))


def test_an_ideal_scheduler_by_hand():
    # ten tokens are held. (prompt, said): the row of 2 + 4 and one of 2 + 2 begin; the latter ends at 2 and the other one
    # of its size follows, till 4; then the row of 3 + 3, till 7
    assert ideal_steps([(2, 4), (2, 2), (2, 2), (3, 3)], 10) == 7
    assert ideal_steps([(2, 4), (2, 2), (2, 2), (3, 3)], 100) == 4
    assert ideal_steps([(2, 4), (2, 2)], 5) == 6  # longer than all room: alone


def test_a_planned_model_says_its_plan():
    chat = Chat(tiny_tokenizer())
    asked = lines(chat, 0.5, rows=12)
    budget = TokenBudget(answer=64, trace=200)
    model = Planned(chat, asked)
    said = answer_all(model, [line.prompt for line in asked], [False] * 12, chat, budget)
    for line, answer in zip(asked, said, strict=True):
        assert answer.thinks == (line.trace > 0) and answer.forced == (line.trace + len(chat.close_ids()) > 200)
        assert len(chat.encode(answer.answer)) <= 64 and answer.finished == (line.answer <= 64)
    assert (
        sum(line.trace > 0 for line in asked) == 6 and any(a.forced for a in said) and not all(a.forced for a in said)
    )


def test_steps_of_rows_that_fit_at_once():
    """In one batch as many steps as the longest answer has tokens, and no scheduler does better."""
    found = plan(Chat(tiny_tokenizer()), 0.0, 10**6, rows=10)
    assert (found["steps"], found["ideal_steps"], found["ratio"], found["calls"]) == (64, 64, 1.0, 1)
    assert plan(Chat(tiny_tokenizer()), 0.5, 2048, rows=10)["ratio"] >= 1


def test_others_agree_and_the_summary_has_every_figure(bench, capsys):
    policy, tokenizer = pushed(0.1), tiny_tokenizer()
    likelihoods = against_lm_eval(policy, tokenizer, bench.probes, bench.asking, 1)
    assert (likelihoods["items"], likelihoods["options"]) == (2, 5) and likelihoods["gap"] < 1e-3
    said = against_trl(policy, tokenizer, bench.probes, replace(bench.asking), 1)
    assert said["identical"] == said["answers"] == 7
    unmoved, last = bench.held(pushed(0.0), None, unmoved=True)
    moved, _ = bench.held(policy, last)
    show({"0": unmoved, "0.1": moved})
    assert "the first audit:" in capsys.readouterr().out
    found = summary({"0": unmoved, "0.1": moved}) | others([], likelihoods, said, [plan(bench.asking.chat, 0, 8192, 4)])
    assert found["worst_speedup"] <= min(found["unchanged_speedup"], found["speedup_by_kl"]["0.1"]["speedup"])
    assert found["identical_answers"]["otherwise"] == 0 and found["decode_plan"]["worst"] == 1.0


def test_growth_is_by_probe(bench):
    grown = growth(bench, pushed(0.0), (1, 2), 1)
    assert [line["times"] for line in grown] == [1, 2] and grown[0]["per_probe"] == 1.0
    assert grown[1]["probes"] == 2 * grown[0]["probes"]
