"""
People post-train vision language models on text and images; their start is given by its folder, and audited on text alone.

Oracle: the model itself, and its own logits.
Before: 'Unrecognized configuration class' for `reference="path"` and `alignguard audit`, since causal models alone were loaded.
After: the same logits.
"""

import json

import pytest
import torch
from tiny import tiny_model, tiny_probes, tiny_tokenizer
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from alignguard import AlignGuardError, Chat, TokenBudget, audit
from alignguard.auditing.asking import Asking
from alignguard.auditing.prompts import encode_prompt
from alignguard.cli import main
from alignguard.model.loading import load_model


@pytest.fixture(scope="module")
def seeing():
    """LLaVA of two small layers, which says something like a model's text."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    eye = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=eye, text_config=text, image_token_index=5))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "vision" not in name:
                weight.mul_(10.0)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def folders(seeing, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    model, tokenizer = seeing
    model.save_pretrained(root / "start"), tokenizer.save_pretrained(root / "start")
    policy = load_model(str(root / "start"), "auto", torch.device("cpu"))
    with torch.no_grad():
        torch.manual_seed(1)
        for weight in policy.get_output_embeddings().parameters():
            weight += 0.3 * weight.std() * torch.randn_like(weight)
    policy.save_pretrained(root / "policy"), tokenizer.save_pretrained(root / "policy")
    return root


def test_it_is_loaded_as_what_it_is(seeing, folders):
    again = load_model(str(folders / "start"), "auto", torch.device("cpu"))
    assert type(again) is LlavaForConditionalGeneration
    ids = torch.arange(6, 16)[None]
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, seeing[0](input_ids=ids).logits)


def test_drift_is_that_of_its_own_logits(seeing, folders):
    start, tokenizer = seeing
    policy = load_model(str(folders / "policy"), "auto", torch.device("cpu"))
    chat = Chat.of(policy, tokenizer)
    asking = Asking(chat, TokenBudget(answer=12, trace=12), lambda texts: [0.1] * len(texts))
    baseline, probes = {}, tiny_probes()
    found = audit(policy, tokenizer, probes, str(folders / "start"), baseline=baseline, asking=asking)
    for probe in probes:
        context, tokens = encode_prompt(probe, chat)[0], list(baseline[probe.id].answer.tokens)
        with torch.no_grad():
            p, q = (
                m(input_ids=torch.tensor([context + tokens])).logits[0, len(context) - 1 : -1].double().log_softmax(-1)
                for m in (start, policy)
            )
        exact = (p.exp() * (p - q)).sum(-1)
        assert torch.tensor(found.results[probe.id].drift.raw).double() == pytest.approx(exact, abs=1e-5)


def test_the_command_line_takes_it(folders, tmp_path, capsys):
    rows = [
        {
            "id": f"s{i}",
            "dimension": "safety",
            "family": f"f{i}",
            "judge": "refusal",
            "expect": "refuse",
            "prompt": f"Door {i}?",
        }
        for i in range(3)
    ]
    path = tmp_path / "probes.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    options = ["--probes", str(path), "--answer-tokens", "8", "--trace-tokens", "8", "--output", str(tmp_path / "out")]
    code = main(["audit", str(folders / "policy"), "--reference", str(folders / "start"), *options])
    out, err = capsys.readouterr()
    assert code == 0 and "3 probes (safety 3)" in err and "report" in out


def test_what_reads_with_an_encoder_is_refused_in_one_line(tmp_path):
    T5ForConditionalGeneration(
        T5Config(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=64)
    ).save_pretrained(tmp_path)
    with pytest.raises(
        AlignGuardError, match="T5ForConditionalGeneration reads with an encoder; a model that goes on from"
    ):
        load_model(str(tmp_path), "auto", torch.device("cpu"))
    assert (
        type(tiny_model(tiny_tokenizer())).__name__ == "LlamaForCausalLM"
    )  # which is loaded as ever, see test_loading.py
