"""
Settings that people combine with the callback: each run logs and ends as without it, and its audits are sound.

Not tried here, since a CPU cannot: `activation_offloading=True` (TRL's own code asks for an accelerator), and
`use_liger_kernel=True` (Triton). `padding_free=True` runs without the flash attention kernels that it is meant for.
"""

import math
from functools import partial

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import tiny_probes, tiny_tokenizer
from trainers import CASES, SETTINGS, audits, draw_all, drifts, guard, rows, same, save_start, trained
from transformers import AutoTokenizer, LlamaForCausalLM, TrainerCallback, set_seed
from trl import BEMACallback, SFTConfig, SFTTrainer

import alignguard
from alignguard.auditing.asking import Asking

LORA = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.2)
EVALUATED = {"eval_strategy": "steps", "eval_steps": 1}
COMBINED = {
    "reentrant checkpointing": {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
    "packing": {"packing": True, "max_length": 64},
    "packing wrapped": {"packing": True, "max_length": 64, "packing_strategy": "wrapped"},
    "padding-free": {"padding_free": True, "max_length": None},
    "compiled": {"torch_compile": True, "torch_compile_backend": "eager"},
    "compiled ahead of time": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    "evaluation": {**EVALUATED, "eval_on_start": True},
    "a learning rate that follows evaluation": {**EVALUATED, "lr_scheduler_type": "reduce_lr_on_plateau"},
    "epochs": {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 6},
    "noise on embeddings": {"neftune_noise_alpha": 5.0},
    "loader processes": {"dataloader_num_workers": 1},
    "automatic batch size": {"auto_find_batch_size": True},
    # policy and start run under the same autocast, with the same kernels: at step 0 even rounding is the same
    "bf16": {"bf16": True},
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_start(tiny_tokenizer(), tmp_path_factory.mktemp("start"))


def sft(model, tokenizer, output_dir, callbacks=(), columns="prompt completion", stream=False, peft=None, **settings):
    data = rows(columns, tokenizer or tiny_tokenizer())
    return SFTTrainer(
        model,
        SFTConfig(str(output_dir), **{**SETTINGS, **settings}),
        train_dataset=data.to_iterable_dataset() if stream else data,
        eval_dataset=data if "eval_strategy" in settings else None,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        peft_config=peft,
    )


def assert_unchanged(build, output_dir, ours=None, **resume):
    """`build` is called with an output directory and callbacks: the run is the same with ours, and its audits sound."""
    alone = trained(partial(build, output_dir / "alone"), "alone", **resume)
    watched = trained(partial(build, output_dir / "watched"), ours or "list", **resume)
    assert same(alone, watched)
    found = audits(output_dir / "watched")
    assert found[0]["step"] == 0 and all(abs(value) < 1e-5 for value in drifts(found[0]).values())
    assert all(math.isfinite(value) for audit in found for value in drifts(audit).values())
    assert drifts(found[-1])["raw"] > 1e-3
    return found


@pytest.mark.parametrize("name", COMBINED)
def test_watching_changes_nothing(name, tokenizer, start, tmp_path):
    def build(output_dir, callbacks):
        return sft(LlamaForCausalLM.from_pretrained(start), tokenizer, output_dir, callbacks, **COMBINED[name])

    assert [audit["step"] for audit in assert_unchanged(build, tmp_path)] == [0, 1, 3]


def test_weights_in_bf16(tokenizer, start, tmp_path):
    def build(output_dir, callbacks):
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.bfloat16)
        return sft(model, tokenizer, output_dir, callbacks, bf16=True)

    assert_unchanged(build, tmp_path)


@pytest.mark.parametrize("continued", [False, True])
def test_adapters(continued, tokenizer, start, tmp_path):
    """New ones with dropout, and one that was trained before: its start is kept, and it is not the base model."""
    adapter = tmp_path / "adapter"
    torch.manual_seed(0)
    made = get_peft_model(LlamaForCausalLM.from_pretrained(start), LORA)
    for name, p in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.2)
    made.save_pretrained(adapter)

    def build(output_dir, callbacks):
        model = LlamaForCausalLM.from_pretrained(start)
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True) if continued else model
        peft = None if continued else LORA
        return sft(model, tokenizer, output_dir, callbacks, peft=peft, learning_rate=1e-1)

    assert_unchanged(build, tmp_path)


@pytest.mark.parametrize("pad", ["left", "right", "none"])
def test_tokenizers_keep_their_padding(pad, start, tmp_path):
    left_as = {}

    def build(output_dir, callbacks):
        tokenizer = AutoTokenizer.from_pretrained(start)
        tokenizer.padding_side = "left" if pad == "left" else "right"
        if pad == "none":
            tokenizer.pad_token = None
        left_as[output_dir.name] = tokenizer
        return sft(LlamaForCausalLM.from_pretrained(start), tokenizer, output_dir, callbacks)

    assert_unchanged(build, tmp_path)
    alone, watched = left_as["alone"], left_as["watched"]
    assert (alone.padding_side, alone.pad_token) == (watched.padding_side, watched.pad_token)


def test_a_model_by_its_path_with_the_tokenizer_found_there(start, tmp_path):
    assert_unchanged(lambda output_dir, callbacks: sft(str(start), None, output_dir, callbacks), tmp_path)


def test_a_stream_of_rows(tokenizer, start, tmp_path):
    def build(output_dir, callbacks):
        return sft(LlamaForCausalLM.from_pretrained(start), tokenizer, output_dir, callbacks, stream=True)

    found = assert_unchanged(build, tmp_path)
    assert all("train_prompts" not in drifts(audit) for audit in found)  # a stream is left alone


def test_completions_that_are_used_twice(tokenizer, start, tmp_path):
    """GRPO with two passes over what it generated."""
    twice = {"num_iterations": 2, "gradient_accumulation_steps": 2}
    assert_unchanged(
        lambda output_dir, callbacks: CASES[1].build(tokenizer, start, output_dir, callbacks, **twice), tmp_path
    )


class Meddler(TrainerCallback):
    """Asks for everything a callback can ask for, and ends the run at step 2."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = control.should_save = control.should_evaluate = True
        control.should_training_stop = state.global_step == 2


@pytest.mark.parametrize("ours", ["first", "last"])
def test_other_callbacks_before_and_after(ours, tokenizer, start, tmp_path):
    def build(output_dir, callbacks):
        others = [BEMACallback(update_freq=1), Meddler()]
        ordered = [*callbacks, *others] if ours == "first" else [*others, *callbacks]
        model = LlamaForCausalLM.from_pretrained(start)
        return sft(model, tokenizer, output_dir, ordered, **EVALUATED, logging_steps=10)

    found = assert_unchanged(build, tmp_path)
    assert [audit["step"] for audit in found] == [0, 1, 2]
    for step in (1, 2):
        assert (tmp_path / "watched" / f"checkpoint-{step}").exists()


def test_a_resumed_run(tokenizer, start, tmp_path):
    def build(output_dir, callbacks, last=4):
        saved = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
        return sft(LlamaForCausalLM.from_pretrained(start), tokenizer, output_dir, callbacks, max_steps=last, **saved)

    build(tmp_path / "alone", [], last=2).train()
    build(tmp_path / "watched", [guard()], last=2).train()
    found = assert_unchanged(build, tmp_path, resume_from_checkpoint=True)
    assert [audit["step"] for audit in found] == [0, 1, 2, 4]


def test_audits_use_up_no_recompilation_of_the_training(tokenizer, start, tmp_path):
    """A model that was compiled in place; audits ask at many lengths."""
    compiled = []

    def build(output_dir, callbacks):
        def backend(graph, inputs):
            compiled.append(output_dir.name)
            return graph.forward

        torch._dynamo.reset()
        model = LlamaForCausalLM.from_pretrained(start)
        model.compile(backend=backend)
        return sft(model, tokenizer, output_dir, callbacks)

    assert_unchanged(build, tmp_path)
    assert compiled.count("alone") == compiled.count("watched") > 0


def test_a_model_that_was_given_compiled(tokenizer, start, tmp_path):
    def build(output_dir, callbacks):
        model = torch.compile(LlamaForCausalLM.from_pretrained(start), backend="eager")
        return sft(model, tokenizer, output_dir, callbacks)

    assert_unchanged(build, tmp_path)


def test_an_audit_without_a_trainer_draws_from_no_generator(tokenizer, model, other):
    set_seed(1)
    expected = draw_all()
    set_seed(1)
    asking = Asking(alignguard.Chat.of(model, tokenizer), toxicity=lambda t: [draw_all()[0]] * len(t))
    alignguard.audit(model, tokenizer, tiny_probes()[:3], other, asking=asking)
    assert draw_all() == expected
