"""
People train adapters on a base that torchao has quantized: its weights are tensors of their own kind, of which no values can be
picked.

Oracle: a model quantized alike that does not train, and both models' own logits.
Before: 'Int8Tensor dispatch: attempting to run unimplemented operator', in the trainer's constructor, for every reference.
After: drift at step 0 below 1e-5, then the true one to 1e-3 of it.

torchao is stood in for by a tensor with its interface; torchao 0.18 itself was tried by hand: drift 0 at step 0, by every reference.
"""

import pytest
import torch
from drifting import asking_of, told, train, truth
from peft import LoraConfig, get_peft_model
from tiny import tiny_model

from alignguard.drift.reference import freeze_start


class Int8Tensor(torch.Tensor):
    """What is looked at of torchao's: rows of integers and their scales, which multiplies, and refuses a view."""

    @staticmethod
    def __new__(cls, values, scales):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=scales.dtype, device=values.device)

    def __init__(self, values, scales):
        self.values, self.scales = values, scales

    def __tensor_flatten__(self):
        return ["values", "scales"], None

    @classmethod
    def __tensor_unflatten__(cls, inner, meta, size, stride):
        return cls(inner["values"], inner["scales"])

    def dequantize(self):
        return self.values * self.scales

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("detach", "clone", "_to_copy"):
            return cls(args[0].values.clone(), args[0].scales.clone())
        if name in ("t", "mm", "addmm", "transpose"):
            plain = [a.dequantize() if isinstance(a, cls) else a for a in args]
            return function(*plain, **(kwargs or {}))
        raise NotImplementedError(f"Int8Tensor dispatch: attempting to run unimplemented operator/function: {name}")


def quantize(linear):
    scales = linear.weight.detach().abs().amax(1, keepdim=True) / 127
    linear.weight = torch.nn.Parameter(Int8Tensor((linear.weight / scales).round().to(torch.int8), scales), False)


def quantized(tokenizer, head=False):
    model = tiny_model(tokenizer, scale=6.0, tie_word_embeddings=False)
    for layer in model.model.layers:
        quantize(layer.mlp.up_proj)
        quantize(layer.self_attn.q_proj)
    if head:
        quantize(model.lm_head)
    return model


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", ["auto", "copy", "offload"])
def test_adapters_on_a_quantized_base(kind, head, tokenizer):
    adapted = [
        get_peft_model(quantized(tokenizer, head), LoraConfig(task_type="CAUSAL_LM", target_modules=["v_proj"]))
        for _ in range(2)
    ]
    model, start = adapted
    start.load_state_dict({name: p for name, p in model.state_dict().items() if "lora" in name}, strict=False)
    reference, asking = freeze_start(model, kind), asking_of(model, tokenizer)
    assert abs(told(model, reference, asking)) < 1e-5
    train(model)
    assert truth(model, start) > 1e-3
    assert told(model, reference, asking) == pytest.approx(truth(model, start), rel=1e-3, abs=1e-6)
