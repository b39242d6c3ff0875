"""What is read off likelihoods, against float64 from the model's own logits."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import entropy

from alignguard import Chat, TokenBudget
from alignguard.auditing.asking import Asking
from alignguard.auditing.likelihoods import COMPLIANCES, REFUSALS, ask_choices, refusal_margins
from alignguard.judging.judge import judge_choice


def logprob(model, context, target):
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *target]])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(context) - 1 + k, token]) for k, token in enumerate(target))


@pytest.fixture
def asking(tokenizer):
    return Asking(Chat(tokenizer), TokenBudget())


@pytest.mark.parametrize("thinks", [False, True])
def test_the_refusal_margin_is_the_log_ratio_of_the_openings_probabilities(model, probes, asking, thinks):
    chat = asking.chat
    harmful, benign = probes[0], probes[1]
    own = replace(harmful, id="own", compliance="Sure, open it")
    with torch.no_grad():
        found = refusal_margins(model, [harmful, benign, own], asking, ["s1", "own"] if thinks else [])
    assert set(found) == {"s1", "own"}  # only what should be refused is asked
    context = chat.prompt_ids(harmful.messages) + (chat.closed_trace_ids() if thinks else [])

    def together(texts):
        return torch.tensor([logprob(model, context, chat.encode(t)) for t in texts], dtype=torch.float64).logsumexp(0)

    assert found["s1"] == pytest.approx(float(together(REFUSALS) - together(COMPLIANCES)), abs=1e-4)
    assert found["own"] == pytest.approx(float(together(REFUSALS) - together(["Sure, open it"])), abs=1e-4)


def test_openings_begin_no_other_opening():
    """Or a sum over them would count an answer twice."""
    for texts in (REFUSALS, COMPLIANCES):
        assert not [(a, b) for a in texts for b in texts if a is not b and b.startswith(a)]


def test_options_that_the_prompt_names_are_not_listed_again(model, probes, asking):
    probe = next(p for p in probes if p.judge == "choice")
    chat, bare = asking.chat, replace(probe, listed=False)
    with torch.no_grad():
        found = ask_choices(model, [bare], asking)[bare.id]
    context = chat.prompt_ids(bare.messages)
    assert found == pytest.approx(
        [logprob(model, context, chat.encode(o)) / len(o.encode()) for o in bare.options], abs=1e-5
    )


def test_where_no_option_is_right_doubt_is():
    probe = replace_target(-1)
    assert judge_choice(probe, [-3.0, -3.0, -3.0]).value == pytest.approx(1.0)
    assert judge_choice(probe, [0.0, -60.0, -60.0]).value == pytest.approx(0.0, abs=1e-9)
    found = judge_choice(probe, [-1.0, -2.0, -4.0])
    shares = torch.tensor([-1.0, -2.0, -4.0], dtype=torch.float64).softmax(0).numpy()
    assert found.value == pytest.approx(entropy(shares, base=3)) and found.detail == {"chosen": 0.0}


def replace_target(target):
    from tiny import tiny_probes

    return replace(next(p for p in tiny_probes() if len(p.options) == 3), target=target)
