"""One loader for everybody: what one place refuses, all refuse, in one line."""

import json
import logging

import pytest
import torch
from audited import save
from peft import LoraConfig, get_peft_model
from runs import guard, sft
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_probes, tiny_tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification

from alignguard import ProbeError, StartError, TokenBudget, audit, load_scorer
from alignguard.auditing.asking import Asking
from alignguard.cli import main
from alignguard.model.chat import Chat
from alignguard.model.loading import load_model, load_tokenizer

PROBES = [probe for probe in tiny_probes() if probe.judge in ("choice", "refusal")]


def without(folder, weight):
    """The same folder without one of its weights, as a save that was cut off leaves it."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights[weight]
    save_file(weights, path, metadata={"format": "pt"})
    return str(folder)


def quick(model, tokenizer):
    return Asking(Chat.of(model, tokenizer), TokenBudget(answer=8, trace=8))


def by_audit(model, tokenizer, folder, tmp_path):
    audit(model, tokenizer, PROBES, folder, asking=quick(model, tokenizer))


def by_callback(model, tokenizer, folder, tmp_path):
    sft(tokenizer, tmp_path / "run", [guard(reference=folder)], model=model).train()


def by_command(model, tokenizer, folder, tmp_path):
    save(model, tokenizer, tmp_path / "policy")
    arguments = ["audit", str(tmp_path / "policy"), "--reference", folder, "--output", str(tmp_path / "out")]
    if main([*arguments, "--probes", "ethics", "--draw", "2"]) == 1:
        raise StartError("told on stderr")


@pytest.mark.parametrize("way", [by_audit, by_callback, by_command])
def test_a_reference_that_lacks_weights_is_refused_by_every_way_in(tokenizer, tmp_path, way, capsys):
    """They would be drawn at random, and a model would drift from itself."""
    model = tiny_model(tokenizer)
    save(model, tokenizer, tmp_path / "start")
    broken = without(tmp_path / "start", "model.layers.1.mlp.down_proj.weight")
    lacks = "start: lacks weights of the model, e.g. model.layers.1.mlp.down_proj.weight"
    with pytest.raises(StartError) as error:
        way(model, tokenizer, broken, tmp_path)
    assert lacks in str(error.value) + capsys.readouterr().err and "\n" not in str(error.value)


def test_a_model_has_no_drift_from_its_own_folder(tokenizer, tmp_path):
    model = tiny_model(tokenizer)
    save(model, tokenizer, tmp_path / "start")
    found = audit(model, tokenizer, PROBES, str(tmp_path / "start"), asking=quick(model, tokenizer))
    assert abs(found.metrics["alignguard/kl/answer"]) < 1e-6


@pytest.mark.parametrize("way", [by_audit, by_callback])
def test_a_reference_without_a_tokenizer_is_said_in_one_line_and_asked_all_the_same(tokenizer, tmp_path, way, caplog):
    model = tiny_model(tokenizer)
    save(model, None, tmp_path / "start")
    with caplog.at_level(logging.WARNING):
        way(model, tokenizer, str(tmp_path / "start"), tmp_path)
    (said,) = [r.message for r in caplog.records if "no tokenizer" in r.message]
    assert said.endswith("start has no tokenizer that can be loaded: both are asked with that of the model that trains")
    assert "\n" not in said


@pytest.mark.parametrize("way", [by_audit, by_callback, by_command])
def test_a_reference_of_another_tokenizer_is_refused_by_every_way_in(tokenizer, tmp_path, way, capsys):
    model = tiny_model(tokenizer)
    other = tiny_tokenizer(think_tokens=("<think>", "</think>"))
    save(tiny_model(tokenizer), other, tmp_path / "start")
    with pytest.raises(StartError) as error:
        way(model, tokenizer, str(tmp_path / "start"), tmp_path)
    assert "the reference has another tokenizer: token" in str(error.value) + capsys.readouterr().err


def test_a_folder_that_is_no_model_is_told_with_the_checkpoint_in_it(tokenizer, tmp_path):
    model = tiny_model(tokenizer)
    save(model, tokenizer, tmp_path / "run" / "checkpoint-8")
    with pytest.raises(StartError, match=r"holds no model .*; give one of its checkpoints, e\.g\. .*checkpoint-8"):
        audit(model, tokenizer, PROBES, str(tmp_path / "run"))


def test_a_scorer_that_lacks_its_head_is_refused(tokenizer, tmp_path):
    """A classifier drawn at random would give figures all the same."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)
    config.pad_token_id, config.id2label = 0, {0: "safe", 1: "toxic"}
    save(LlamaForSequenceClassification(config), tokenizer, tmp_path / "scorer")
    assert load_scorer(str(tmp_path / "scorer"))(["hello"])
    with pytest.raises(ProbeError, match=r"^the scorer .*scorer: lacks weights of the model, e\.g\. score\.weight$"):
        load_scorer(without(tmp_path / "scorer", "score.weight"))


def test_a_scorer_without_a_tokenizer_is_told_in_one_line(tokenizer, tmp_path):
    save(tiny_model(tokenizer), None, tmp_path / "guard")
    assert load_tokenizer(str(tmp_path / "guard")) is None
    with pytest.raises(ProbeError, match=r"^the scorer .*guard holds no tokenizer; save it beside the model$"):
        load_scorer(str(tmp_path / "guard"))


def adapter(model, tokenizer, folder, base):
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_an_adapter_whose_base_or_self_lacks_weights_is_refused(tokenizer, tmp_path):
    save(tiny_model(tokenizer), tokenizer, tmp_path / "base")
    path = adapter(tiny_model(tokenizer), tokenizer, tmp_path / "adapter", tmp_path / "base")
    assert load_model(path, "auto", torch.device("cpu")).peft_config
    whole = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    half = {name: w for name, w in whole.items() if "layers.0" in name}
    save_file(half, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StartError, match=r"adapter: lacks weights of the adapter, e\.g\. .*layers\.1"):
        load_model(path, "auto", torch.device("cpu"))
    save_file(whole, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    without(tmp_path / "base", "model.layers.1.mlp.down_proj.weight")
    with pytest.raises(StartError, match="base: lacks weights of the model"):
        load_model(path, "auto", torch.device("cpu"))


def hub(root, repo, **revisions):
    """A cache of the hub as a download leaves it; each revision a function that writes into a folder."""
    folder = root / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    for name, write in revisions.items():
        mark = format(len(list(folder.glob("snapshots/*"))) + 1, "x") * 40
        (folder / "refs" / name).write_text(mark)
        write(folder / "snapshots" / mark)
        if not (folder / "snapshots" / mark / "config.json").exists():  # it was asked for, and is not there
            (folder / ".no_exist" / mark).mkdir(parents=True)
            (folder / ".no_exist" / mark / "config.json").touch()


def test_an_adapter_stands_on_the_revision_of_its_base_that_it_was_trained_on(tokenizer, tmp_path, monkeypatch):
    """What has become of the base since is another model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    old, new = (tiny_model(tokenizer, seed=seed) for seed in (0, 1))
    hub(tmp_path / "hub", "org/base", v1=old.save_pretrained, main=new.save_pretrained)
    path = adapter(tiny_model(tokenizer), tokenizer, tmp_path / "adapter", "org/base")
    about = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    for revision, expected in (("v1", old), (None, new)):
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**about, "revision": revision}))
        found = load_model(path, "auto", torch.device("cpu")).get_input_embeddings().weight
        assert torch.equal(found, expected.get_input_embeddings().weight)


def test_an_adapter_of_the_hub_that_brings_tokens_of_its_own_is_loaded(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    save(tiny_model(tokenizer), tokenizer, tmp_path / "base")
    larger, model = tiny_tokenizer(), tiny_model(tokenizer)
    more = len(larger) + 3
    larger.add_tokens([f"<own{i}>" for i in range(more - len(larger))])
    model.resize_token_embeddings(more)
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    )
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")

    def write(folder):
        adapted.save_pretrained(folder)
        larger.save_pretrained(folder)

    hub(tmp_path / "hub", "me/adapter", main=write)
    found = load_model("me/adapter", "auto", torch.device("cpu"))
    assert len(found.get_input_embeddings().weight) == more


def test_an_adapter_beside_its_base_is_found_from_everywhere(tokenizer, tmp_path):
    save(tiny_model(tokenizer, seed=3), tokenizer, tmp_path / "runs" / "base")
    path = adapter(tiny_model(tokenizer), tokenizer, tmp_path / "runs" / "adapter", "../base")
    found = load_model(path, "auto", torch.device("cpu")).get_input_embeddings().weight
    assert torch.equal(found, tiny_model(tokenizer, seed=3).get_input_embeddings().weight)
    path = adapter(tiny_model(tokenizer), tokenizer, tmp_path / "runs" / "other", "../gone")
    with pytest.raises(StartError, match=r"other: the base that adapter_config\.json names: \.\./gone: no such folder"):
        load_model(path, "auto", torch.device("cpu"))


def test_a_tokenizer_that_is_there_and_cannot_be_read_is_an_error_in_one_line(tokenizer, tmp_path):
    """It must not pass for none, whose vocabulary is then not checked."""
    model = tiny_model(tokenizer)
    save(model, tokenizer, tmp_path / "start")
    (tmp_path / "start" / "tokenizer.json").write_text('{"broken": 1}')
    for way in (by_audit, by_callback):
        with pytest.raises(StartError, match="start: cannot be loaded") as error:
            way(model, tokenizer, str(tmp_path / "start"), tmp_path)
        assert "\n" not in str(error.value)


def test_a_reference_may_be_a_path_and_must_be_a_model(tokenizer, tmp_path):
    model = tiny_model(tokenizer)
    save(model, tokenizer, tmp_path / "start")
    found = audit(model, tokenizer, PROBES, tmp_path / "start", asking=quick(model, tokenizer))
    assert abs(found.metrics["alignguard/kl/answer"]) < 1e-6
    sft(tokenizer, tmp_path / "run", [guard(reference=tmp_path / "start")], model=model, max_steps=1).train()
    with pytest.raises(StartError, match="the reference is a int; a model, or the path or hub id of one, is expected"):
        audit(model, tokenizer, PROBES, 3, asking=quick(model, tokenizer))
