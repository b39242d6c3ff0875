"""Models whose context is short: answers end before it does, and prompts that leave no room are an error."""

import math

import pytest
import torch
from tiny import CHATML, tiny_model, tiny_probes, tiny_tokenizer
from trainers import SETTINGS, audits, drifts, guard, rows
from transformers import GPT2Config, GPT2LMHeadModel
from trl import SFTConfig, SFTTrainer

from alignguard import ProbeError, TokenBudget
from alignguard.auditing.asking import Asking
from alignguard.auditing.context import check_fits, longest_prompt
from alignguard.auditing.prompts import encode_prompt
from alignguard.judging.score import Status
from alignguard.model.chat import Chat
from alignguard.model.generation import answer_all
from alignguard.model.observe import observing

THINKING = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")  # the prompt opens the trace


def short_model(tokenizer, size):
    """A GPT-2: its positions are a table, and the first one past the end is an error."""
    torch.manual_seed(0)
    ids = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=size, n_embd=32, n_layer=1, n_head=2, **ids)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def thinking():
    return tiny_tokenizer(THINKING)


@pytest.mark.parametrize("force_close", [True, False])
def test_answers_end_before_the_context_does_in_any_batch(force_close, thinking):
    model = short_model(thinking, 120)
    chat = Chat(thinking)
    prompts = [encode_prompt(probe, chat)[0] for probe in tiny_probes()[:3]]
    prompts.append(prompts[0] * 3)  # it is full long before the others are
    said = []
    for batch_tokens in (1, 8192):
        budget = TokenBudget(answer=8, trace=2000, force_close=force_close, batch_tokens=batch_tokens)
        with observing(model):
            said.append(answer_all(model, prompts, [True] * len(prompts), chat, budget))
    assert said[0] == said[1]
    for prompt, answer in zip(prompts, said[0], strict=True):
        trace = 120 - len(prompt) - len(chat.closed_trace_ids()) - len(chat.close_ids()) - 8
        assert len(answer.tokens) == trace + (len(chat.close_ids()) + 8 if force_close else 0)
        assert answer.forced == force_close and not answer.finished


@pytest.mark.parametrize("kind", ["short", "long"])
def test_traces_of_2000_tokens(kind, thinking, tmp_path):
    """A model that never closes its trace, with room for it and without: truncated, and training goes on."""
    if kind == "long":
        model = tiny_model(
            thinking, seed=1, scale=4.0, max_position_embeddings=4096, hidden_size=16, num_hidden_layers=1
        )
    else:
        model = short_model(thinking, 200)
    tokens = TokenBudget(answer=8, trace=2000, force_close=False)
    guarded = guard(probes=tiny_probes()[:1], tokens=tokens, train_prompts=0 if kind == "long" else 2)
    args = SFTConfig(str(tmp_path), **{**SETTINGS, "max_steps": 1, "learning_rate": 0.0 if kind == "long" else 1e-3})
    data = rows("prompt completion", thinking)
    SFTTrainer(model, args, train_dataset=data, processing_class=thinking, callbacks=[guarded]).train()
    (result,) = guarded.audits[-1].results.values()
    assert result.score.status is Status.TRUNCATED
    assert len(result.answer.tokens) == 2000 if kind == "long" else 100 < len(result.answer.tokens) < 200
    first, last = audits(tmp_path)
    assert all(abs(value) < 1e-5 for value in drifts(first).values()) and last["step"] == 1
    assert all(math.isfinite(value) for value in drifts(last).values())


def test_a_probe_that_leaves_no_room_is_named(thinking):
    asking = Asking(Chat(thinking), TokenBudget(answer=8, trace=8))
    check_fits(short_model(thinking, 200), tiny_probes(), asking)
    with pytest.raises(
        ProbeError,
        match=r"probe 's1' is 22 tokens long; with 11 of answer and 16 of thinking tags it does not fit in the 40",
    ):
        check_fits(short_model(thinking, 40), tiny_probes(), asking)


def test_prompts_of_the_training_set_leave_room_too(thinking):
    chat, budget = Chat(thinking), TokenBudget(answer=8, trace=8)
    size = 8 + len(chat.closed_trace_ids()) + len(chat.close_ids()) + 20
    assert longest_prompt(short_model(thinking, size), Asking(chat, budget)) == 20
