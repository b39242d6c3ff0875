"""
People train virtual tokens with PEFT: prompt tuning, P-tuning, prefix tuning, CPT. Hidden states are then as many as the
virtual tokens longer than what was asked, and answers were read some tokens too early.

Oracle: a plain deepcopy of the start and both models' own logits, counted from their end, and a greedy loop over these.
Before: the default ended in the trainer's constructor; drift of a copy 0.211 for 0.116 (prompt tuning) and 0.333 for 0.226
(P-tuning), answers PEFT's `generate`'s; 6 tokens more room than there is.
After: the same; of prefix tuning, whose cache `generate` misplaces too, answers are refused.
"""

import copy

import pytest
import torch
from drifting import CONTEXT, asking_of, told, truth
from peft import CPTConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from runs import guard, lines
from tiny import tiny_model
from transformers import Trainer, TrainingArguments, default_data_collator

from alignguard import StartError, TokenBudget
from alignguard.drift.reference import freeze_start
from alignguard.model.forward import Row
from alignguard.model.generation import answer_all, context_size
from alignguard.model.head import read_head, target_hidden
from alignguard.model.observe import observing

COMMON = {"task_type": "CAUSAL_LM"}
WAYS = {
    "prompt tuning": lambda: PromptTuningConfig(num_virtual_tokens=6, **COMMON),
    "P-tuning": lambda: PromptEncoderConfig(num_virtual_tokens=6, encoder_hidden_size=16, **COMMON),
    "prefix tuning": lambda: PrefixTuningConfig(num_virtual_tokens=6, **COMMON),
    "CPT": lambda: CPTConfig(
        cpt_token_ids=list(range(40, 46)),
        cpt_mask=[1] * 6,
        cpt_tokens_type_mask=[1, 2, 2, 3, 3, 4],
        opt_weighted_loss_type="decay",
        opt_loss_decay_factor=0.95,
        opt_projection_epsilon=0.2,
        opt_projection_format_epsilon=0.1,
        tokenizer_name_or_path="",
        **COMMON,
    ),
}
SPOKEN = [name for name in WAYS if name != "prefix tuning"]


def tuned(tokenizer, name):
    model = get_peft_model(tiny_model(tokenizer, scale=6.0), WAYS[name]())
    move(model, 0.5)
    return model.eval()


def move(model, size):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn_like(p) * p.requires_grad)


def test_virtual_tokens_take_room(tokenizer):
    """Of prompt and answer so many fewer fit, but while they are switched off."""
    model, plain = tuned(tokenizer, "prompt tuning"), tiny_model(tokenizer)
    assert context_size(model) == context_size(plain) - 6 == 1024 - 6
    with model.disable_adapter():
        assert context_size(model) == 1024


@pytest.mark.parametrize("kind", ["auto", "copy"])
@pytest.mark.parametrize("name", WAYS)
def test_drift_is_read_at_the_answers(name, kind, tokenizer):
    model = tuned(tokenizer, name)
    start = copy.deepcopy(model)
    reference, asking = freeze_start(model, kind), asking_of(model, tokenizer)
    assert reference.kind == {"auto": "adapter", "copy": "copy"}[kind]
    assert abs(told(model, reference, asking)) < 1e-5
    move(model, 2.0)
    assert truth(model, start) > (1e-5 if name == "CPT" else 1e-3)  # which is held near its tokens
    assert told(model, reference, asking) == pytest.approx(truth(model, start), rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("name", SPOKEN)
def test_answers_are_the_models_own(name, tokenizer):
    model = tuned(tokenizer, name)
    asking, prompts = asking_of(model, tokenizer), [CONTEXT, CONTEXT[3:]]
    with observing(model):
        found = answer_all(model, prompts, [False, False], asking.chat, TokenBudget(answer=6, trace=6))
        for prompt, answer in zip(prompts, found, strict=True):
            said = []
            while len(said) < len(answer.tokens):
                said.append(int(model(input_ids=torch.tensor([[*prompt, *said]])).logits[0, -1].argmax()))
            assert said == list(answer.tokens)


@pytest.mark.parametrize("name", ["prompt tuning", "P-tuning"])
def test_a_run(name, tokenizer, tmp_path):
    rows = [{"input_ids": list(range(i, i + 9)), "labels": list(range(i, i + 9))} for i in range(8)]
    found = {}
    for kind in ("auto", "copy"):
        torch.manual_seed(0)
        model = tuned(tokenizer, name)
        settings = {"max_steps": 4, "learning_rate": 0.1, "report_to": [], "use_cpu": True, "save_strategy": "no"}
        Trainer(
            model,
            TrainingArguments(str(tmp_path / kind), disable_tqdm=True, **settings),
            train_dataset=rows,
            processing_class=tokenizer,
            data_collator=default_data_collator,
            callbacks=[guard(reference=kind)],
        ).train()
        found[kind] = [line["metrics"]["alignguard/kl/raw"] for line in lines(tmp_path / kind)]
    assert len(found["auto"]) == 3 and abs(found["auto"][0]) < 1e-5 and found["copy"][-1] > 1e-4
    assert found["auto"] == pytest.approx(found["copy"], rel=1e-3, abs=1e-6)


def test_answers_of_prefix_tuning_cannot_be_had(tokenizer, tmp_path):
    model = tuned(tokenizer, "prefix tuning")
    args = TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True)
    rows = [{"input_ids": [5, 6], "labels": [5, 6]}]
    trainer = Trainer(model, args, train_dataset=rows, processing_class=tokenizer, callbacks=[guard()])
    with pytest.raises(StartError, match="prefix tuning generates in batches is not what its own logits say"):
        trainer.train()


def test_a_model_that_says_more_than_it_was_asked_is_an_error(tokenizer, model):
    """Where the added tokens stand is known of PEFT's virtual ones alone."""
    row, head = Row(CONTEXT, [30, 31]), read_head(model)
    inner = model.model.forward

    def longer(*args, **kwargs):
        found = inner(*args, **kwargs)
        found.last_hidden_state = torch.cat([found.last_hidden_state, found.last_hidden_state[:, :2]], 1)
        return found

    model.model.forward = longer
    with observing(model), pytest.raises(StartError, match="14 hidden states for 12 tokens"):
        target_hidden(model, [row], 0, head)
