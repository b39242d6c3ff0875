"""
People train in bfloat16. Generation reads keys and values from its cache, in batches of its own; where two tokens lie within
rounding of one another it may take the one, and a teacher-forced pass over the same text the other.

Oracle: the answers themselves, and the policy's own logits.
Before: of a model that had not moved 10 of 42 answers departed from their own (SmolLM2-135M-Instruct), were generated and
judged anew, and step 0 had flips.
After: none: every answer is its own, in bfloat16, float16 and float32 (of a tiny model with near ties).
Before, on an H200: 1 of 103 answers of the same model still departed: what decoding rounds is more there than a fixed part of a
logit. After: none.
"""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_model

from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.answers import ask_baseline
from alignguard.auditing.asking import Asking
from alignguard.auditing.drifts import items_of, measure_drift, remember
from alignguard.auditing.prompts import encode_prompt
from alignguard.drift.cache import Cache
from alignguard.drift.reference import freeze_start
from alignguard.model.head import rounding
from alignguard.model.observe import observing

HALF = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture
def near(tokenizer):
    """A model with near ties at every other token: its weights have no structure, and its head is wide."""
    return tiny_model(tokenizer, scale=4.0, hidden_size=64, tie_word_embeddings=False)


def how(model, tokenizer, **budget):
    return Asking(
        Chat.of(model, tokenizer),
        TokenBudget(**{"answer": 40, "trace": 40, **budget}),
        lambda texts: [0.1] * len(texts),
    )


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_model_that_has_not_moved_departs_nowhere(near, tokenizer, probes, dtype):
    model = near.to(dtype)
    baseline = ask_baseline(
        model, probes, how(model, tokenizer, decode_tokens=1)
    )  # one prompt at a time: other batches
    found = audit(model, None, probes, freeze_start(model, "copy"), baseline=baseline, asking=how(model, tokenizer))
    for id, result in found.results.items():
        assert result.drift.departs == -1 and result.drift.same == len(baseline[id].answer.tokens)
        assert result.answer is None or result.answer.tokens == baseline[id].answer.tokens
        assert (result.score.value, result.score.status) == (baseline[id].score.value, baseline[id].score.status)


def test_it_does_have_ties_that_fall_otherwise_when_it_is_read(near, tokenizer, probes):
    """So that the test above can fail."""
    model = near.to(torch.bfloat16)
    baseline = ask_baseline(model, probes, how(model, tokenizer, decode_tokens=1))
    other = 0
    for item in items_of(probes, baseline, Chat.of(model, tokenizer)):
        said = torch.tensor(item.answer.tokens)
        with observing(model):
            logits = model(torch.tensor([[*item.context, *said]])).logits[0, len(item.context) - 1 : -1]
        other += int((logits.argmax(-1) != said).sum())
    assert other


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_nor_where_decoding_is_off_by_more_than_rounding(near, tokenizer, probes, dtype):
    """
    Of a trained model in bfloat16 on an H200 one answer in a hundred had a token that lay further below the top when it was read.
    Here the start's answers have the third likeliest token somewhere.
    """
    model = near.to(dtype)
    asking = how(model, tokenizer)
    baseline = ask_baseline(model, probes, asking)
    for item in items_of(probes, baseline, asking.chat):
        tokens, place = list(item.answer.tokens), len(item.answer.tokens) // 2
        if item.answer.thinks or place == 0:
            continue
        with observing(model):
            logits = model(torch.tensor([[*item.context, *tokens]])).logits[0, len(item.context) - 1 + place].float()
        third = int(logits.topk(3).indices[2])
        if (
            logits.max() - logits[third] < 3 * rounding(model) * logits.max().abs()
            or third in asking.chat.eos_token_ids
        ):
            continue
        tokens = [*tokens[:place], third]
        answer = replace(baseline[item.id].answer, tokens=tuple(tokens), answer=asking.chat.decode(tokens))
        baseline[item.id] = replace(baseline[item.id], answer=answer)
    reference = freeze_start(model, "copy")
    with observing(model):
        still = measure_drift(model, reference, items_of(probes, baseline, asking.chat), asking)
    assert all(drift.departs == -1 for drift in still.values())
    with torch.no_grad():  # and one that has moved by more than that does depart
        torch.manual_seed(1)
        for weight in model.parameters():
            weight += 0.2 * weight.std() * torch.randn_like(weight)
    with observing(model):
        moved = measure_drift(model, reference, items_of(probes, baseline, asking.chat), asking)
    assert sum(drift.departs >= 0 for drift in moved.values()) > len(moved) / 2


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_of_a_model_that_has_moved_every_token_is_its_own_top(near, tokenizer, probes, dtype):
    """Drafted or generated, up to rounding; and where it departs its own logits say so, too."""
    model = near.to(dtype)
    reference, asking = freeze_start(model, "copy"), how(model, tokenizer)
    baseline = ask_baseline(model, probes, asking)
    with torch.no_grad():
        torch.manual_seed(1)
        for weight in model.parameters():
            weight += 0.02 * weight.std() * torch.randn_like(weight)
    found = audit(model, None, probes, reference, baseline=baseline, asking=asking)
    moved = 0
    for probe in probes:
        answer = found.results[probe.id].answer
        if answer is None or answer.forced:
            continue
        prompt, tokens = encode_prompt(probe, asking.chat)[0], list(answer.tokens)
        with observing(model):
            logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
        top = logits.max(-1).values
        behind = top - logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert (behind <= rounding(model) * top.abs().clamp(min=1) + 1e-5).all()
        drift = found.results[probe.id].drift
        if drift.departs >= 0:
            moved += 1
            was = baseline[probe.id].answer.tokens[drift.same]
            assert top[drift.same] - logits[drift.same, was] > 0.9 * rounding(model) * top[drift.same].abs()
            assert tokens[drift.same] == drift.departs
    assert moved >= 2


def test_a_cached_start_departs_nowhere_either(near, tokenizer, probes, tmp_path):
    model = near.to(torch.bfloat16)
    asking, reference = how(model, tokenizer), freeze_start(model, "cache")
    baseline = ask_baseline(model, probes, how(model, tokenizer, decode_tokens=1))
    remember(model, reference, items_of(probes, baseline, asking.chat), asking, tmp_path / "reference.safetensors")
    assert isinstance(reference.cache, Cache)
    found = audit(model, None, probes, reference, baseline=baseline, asking=asking)
    assert all(result.drift.departs == -1 for result in found.results.values())


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_broken_model_for_which_all_tokens_are_alike_is_not_taken_for_its_start(near, tokenizer, probes, dtype):
    model = near.to(dtype)
    reference, asking = freeze_start(model, "copy"), how(model, tokenizer)
    baseline = ask_baseline(model, probes, asking)
    model.model.norm.weight.data.zero_()  # all logits are zero
    found = audit(model, None, probes, reference, baseline=baseline, asking=asking)
    for result in found.results.values():
        assert result.answer is None or set(result.answer.tokens) == {0}
