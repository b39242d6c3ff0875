"""Of models with several towers the layers that are looked at are those that text runs through last; of weights those that train."""

from functools import partial

import pytest
import torch
from tiny import tiny_model
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from alignguard.errors import RunError
from alignguard.tracing.layers import looked_at, trained_names


def seeing(text=4, images=8):
    """A small model with a tower for images, which comes first and has more layers."""
    size = {"hidden_size": 16, "intermediate_size": 16}
    rope = {"type": "mrope", "mrope_section": [1, 1, 2]}
    words = {"vocab_size": 211, "num_hidden_layers": text, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2_5_VLConfig(
        text_config={**size, **words, "rope_scaling": rope},
        vision_config={**size, "depth": images, "out_hidden_size": 16, "num_heads": 2},
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def layers_of(weights):
    return {".".join(name.split(".")[:4]) for name in weights}


@pytest.mark.parametrize(("text", "images"), [(4, 8), (8, 4)])
def test_the_last_layers_are_those_of_text_whatever_other_towers_have(text, images):
    model = seeing(text, images)
    last = {f"model.language_model.layers.{i}" for i in range(text - text // 4, text)}
    assert layers_of(looked_at(model, 0.25)) == last
    assert len(looked_at(model, 1.0)) == len(list(model.parameters()))


def test_where_only_what_images_run_through_trains_that_is_told():
    model = seeing()
    model.requires_grad_(False)
    model.model.visual.blocks.requires_grad_(True)
    with pytest.raises(RunError, match="in a numbered layer of text"):
        looked_at(model, 0.25)


def test_the_look_leaves_no_hook():
    model, state = seeing().train(), torch.get_rng_state()
    looked_at(model, 0.25)
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.fixture
def one_process():
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


def sharded(model, original):
    policy = partial(transformer_auto_wrap_policy, transformer_layer_cls={LlamaDecoderLayer})
    return FullyShardedDataParallel(
        model, use_orig_params=original, auto_wrap_policy=policy, device_id=torch.device("cpu")
    )


def each_layer(wrap):
    """With layers that are wrapped one by one."""

    def wrapped(model):
        model.model.layers = torch.nn.ModuleList(wrap(layer) for layer in model.model.layers)
        return model

    return wrapped


def frozen(model):
    for name, p in model.named_parameters():
        p.requires_grad_("layers.0." in name)
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        partial(sharded, original=True),
        torch.compile,
        each_layer(torch.compile),
        each_layer(checkpoint_wrapper),
        lambda model: sharded(each_layer(checkpoint_wrapper)(model), True),
    ],
    ids=["plain", "fsdp1", "compiled", "compiled-layers", "checkpointed", "fsdp1-checkpointed"],
)
def test_weights_that_train_are_known_by_the_names_of_the_start(tokenizer, one_process, wrap):
    """Oracle: their names before anything was wrapped."""
    model = frozen(tiny_model(tokenizer))
    right = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained_names(wrap(model)) == right and len(right) == 9
    assert list(looked_at(tiny_model(tokenizer), 0.25, right)) == right


def test_of_flat_weights_it_is_not_known_which_train(tokenizer, one_process):
    assert trained_names(sharded(frozen(tiny_model(tokenizer)), False)) == []
    assert trained_names(sharded(tiny_model(tokenizer), False)) is None
