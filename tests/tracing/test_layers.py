"""Of models with several towers the layers that are looked at are those that text runs through last."""

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from alignguard.errors import RunError
from alignguard.tracing.layers import looked_at


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
