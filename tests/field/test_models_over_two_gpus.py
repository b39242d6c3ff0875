"""
People load models with `device_map="auto"`, as TRL does by itself for a model given by name in one process: layers lie on
several GPUs.

Oracle: torch's own rule of devices.
Before: 'Expected all tensors to be on the same device' at step 0 of the README's first example: targets were put on the first
layer's device, hidden states came from the last one's.
After: hidden states, targets and head meet on the head's device.

Shown with the meta device as the second one, whose tensors have shapes and no values.
"""

import pytest
import torch
from transformers import PretrainedConfig

from alignguard.model.forward import Row
from alignguard.model.head import Head, rounding, target_hidden


class Head50(torch.nn.Module):
    """Moves its inputs within its forward, after hooks have seen them, as accelerate does."""

    def __init__(self, device):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(50, 8, device=device))

    def forward(self, hidden):
        return hidden.to(self.weight.device) @ self.weight.T


class Spread(torch.nn.Module):
    """An embedding on one device, a layer and the head on another."""

    def __init__(self, first, last, head):
        super().__init__()
        self.embed = torch.nn.Parameter(torch.empty(50, 8, device=first))
        self.layer = torch.nn.Parameter(torch.empty(8, 8, device=last))
        self.head = Head50(head)
        self.config = PretrainedConfig(vocab_size=50)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask, use_cache=False):
        return self.head(torch.nn.functional.embedding(input_ids, self.embed).to(self.layer.device) @ self.layer)


def test_hidden_states_targets_and_head_meet_on_one_device():
    with torch.no_grad():
        model = Spread("cpu", "meta", "meta")
        rows = [Row([1, 2, 3], [4, 5]), Row([1, 2], [3])]
        weights = Head(model.head.weight)
        hidden = target_hidden(model, rows, 0, weights)
        assert hidden.device.type == "meta" and hidden.shape == (3, 8)
        assert next(model.parameters()).device.type == "cpu"  # where targets were put


def test_precision_that_was_set_by_the_newer_api_does_not_end_the_audit(model):
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has the older API alone")
    before = torch.backends.cuda.matmul.fp32_precision
    assert rounding(model) == 1e-6
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert rounding(model) == 2 * 2.0**-10
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
