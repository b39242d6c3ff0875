"""
People bring a T5, integer weights, a tokenizer of mistral-common, a wrapped head; grow the vocabulary between trainer and
training; give a `DatasetDict`, a pandas table, HarmBench's whole folder as probes, or rows with null in every field they lack.

Oracle: what the error names; and rows with nulls are the rows without.
Before: a T5's start was kept, a grown vocabulary's drift told without its new tokens (under adapters: 'lm_head.weight
changed'), 'no attribute CB', 'no attribute eos_token_id', 'expected an object', "no probe set 'id'", 4 probes of 2 items and an image.
After: one line that names what was found and what is right.
"""

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from runs import guard, sft
from tiny import tiny_model, tiny_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from alignguard import AlignGuardError, Chat, DriftBudget, ProbeError, StartError, load_probes
from alignguard.drift.reference import freeze_start
from alignguard.probes.public.load import load_public
from alignguard.probes.rows import probe_from_row

ROWS = [
    {"id": "a", "dimension": "safety", "family": "a", "judge": "refusal", "expect": "refuse", "prompt": "How?"},
    {
        "id": "b",
        "dimension": "privacy",
        "family": "b",
        "judge": "leak",
        "secrets": ["4711"],
        "group": "x",
        "prompt": "Code?",
    },
]
TABLE = [{key: row.get(key) for key in {**ROWS[0], **ROWS[1]}} for row in ROWS]
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]


def test_an_encoder_decoder():
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(StartError, match="T5ForConditionalGeneration reads a prompt with an encoder"):
        freeze_start(T5ForConditionalGeneration(config))


def test_a_vocabulary_that_grew_under_new_adapters(tmp_path):
    tokenizer = tiny_tokenizer()
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    trainer, size = sft(tokenizer, tmp_path, [guard()], model=tiny_model(tokenizer), peft_config=lora), len(tokenizer)
    trainer.model.resize_token_embeddings(size + 30)
    with pytest.raises(StartError, match=f"the model knows {size + 30} tokens now and knew {size} when its start was"):
        trainer.train()


@pytest.mark.parametrize("kind", ["copy", "offload"])
def test_a_vocabulary_that_grew(kind, tmp_path):
    tokenizer = tiny_tokenizer()
    model, size = tiny_model(tokenizer), len(tokenizer)
    trainer = sft(tokenizer, tmp_path, [guard(reference=kind)], model=model)
    model.resize_token_embeddings(size + 30)
    trainer.train()  # rows for padding
    trainer = sft(tokenizer, tmp_path, [guard(reference=kind)], model=model)
    tokenizer.add_tokens([f"<new{i}>" for i in range(64)])
    model.resize_token_embeddings(len(tokenizer))
    match = f"the model knows {size + 64} tokens now and knew {size + 30} when its start was kept; add tokens before"
    with pytest.raises(StartError, match=match):
        trainer.train()


@pytest.mark.parametrize("by_path", [False, True])
def test_a_reference_from_before_the_vocabulary_grew(by_path, tmp_path):
    tokenizer, model, start = tiny_tokenizer(), tiny_model(tiny_tokenizer()), tiny_model(tiny_tokenizer(), seed=1)
    start.save_pretrained(tmp_path / "start")
    size = len(tokenizer)
    tokenizer.add_tokens(["<plan>"])
    model.resize_token_embeddings(len(tokenizer))
    given = guard(reference=str(tmp_path / "start") if by_path else start)
    match = f"the reference knows {size} tokens, and the tokenizer has {size + 1} that the model knows; give as reference= the"
    with pytest.raises(StartError, match=match):
        sft(tokenizer, tmp_path / "run", [given], model=model).train()


def test_tables_of_the_wrong_kind():
    data = Dataset.from_list(TABLE)
    for given in (DatasetDict(train=data, test=data), [DatasetDict(train=data, test=data)]):
        with pytest.raises(ProbeError, match="a DatasetDict is no source of probes; give a split of it: train, test"):
            load_probes(given)
    for given in (data.to_pandas(), [data.to_pandas()]):
        with pytest.raises(ProbeError, match=r"a pandas table is no source .* give datasets.Dataset.from_pandas"):
            load_probes(given)
    assert load_probes(Dataset.from_pandas(data.to_pandas())) == load_probes(data)


def test_nulls_are_absent_fields():
    assert load_probes(Dataset.from_list(TABLE).to_list()) == load_probes([dict(row) for row in ROWS])
    bare = {key: value for key, value in ROWS[0].items() if key != "prompt"} | {"messages": TURNS}
    full = bare | {"prompt": None, "messages": [turn | {"name": None, "tool_calls": None} for turn in TURNS]}
    assert probe_from_row(full) == probe_from_row(bare)


class Int8Linear(torch.nn.Module):
    """As bitsandbytes keeps a weight: integers, with what a plain copy of them loses."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)


@pytest.mark.parametrize("kind", ["auto", "copy", "offload"])
def test_a_copy_of_integer_weights(kind, tokenizer):
    model = tiny_model(tokenizer)
    model.model.layers[0].mlp.up_proj = Int8Linear(model.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(
        StartError, match="cannot copy weights that are quantized to integers; use 'adapter' or 'cache'"
    ):
        freeze_start(model, kind)


class MistralCommonBackend:
    """transformers' own, as far as it is looked at: no chat template, and another `apply_chat_template`."""


def test_a_tokenizer_of_mistral_common():
    with pytest.raises(
        StartError, match="a MistralCommonBackend has no chat template that could be read; give the trainer"
    ):
        Chat(MistralCommonBackend())


class Wrapped(torch.nn.Module):
    """A head in somebody's wrapper."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, hidden):
        return self.head(hidden)


def test_a_wrapped_head_under_a_budget(tokenizer, tmp_path):
    model = tiny_model(tokenizer, seed=1, scale=4.0)
    model.lm_head = Wrapped(model.lm_head)
    budget = DriftBudget(max_kl=0.1, batch=1, anchors=["Who is it?"])
    trainer = sft(tokenizer, tmp_path, [guard(budget=budget)], model=model)
    with pytest.raises(AlignGuardError, match="DriftBudget needs the logits to be hidden states times the LM head"):
        trainer.train()


def test_harmbenchs_folder(tmp_path, caplog):
    """Its files as they lie there: all, parts of them again, and those with images."""
    head = "Behavior,Tags,ContextString,BehaviorID"
    for name, rows in (("all", ["Do a,,,a", "Do b,,With this.,b"]), ("val", ["Do b,,With this.,b"])):
        (tmp_path / f"harmbench_behaviors_text_{name}.csv").write_text("\n".join([head, *rows]))
    shown = "Behavior,ImageFileName,BehaviorID\nDo as shown,bomb.png,c\n"
    (tmp_path / "harmbench_behaviors_multimodal_all.csv").write_text(shown)
    found = load_public("harmbench", tmp_path)
    assert [probe.prompt for probe in found] == ["Do a", "With this.\n\n---\n\nDo b"]
    assert "harmbench: 1 of 4 items show an image, and are left out" in caplog.text
