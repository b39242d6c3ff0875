"""
People shard a model by FSDP1, whose weights lie flat between forwards, and let FSDP keep them on the CPU (`cpu_offload`).

Oracle: one process with the whole model (tests/test_fsdp.py); of offloaded weights, the device of their mesh.
Before: "'weight' must be 2-D" in the first audit; what is asked was put on the CPU.
After: figures and answers of one process, to 1e-4; asked where it is computed.
"""

from types import SimpleNamespace

import pytest
import torch

from alignguard import StartError
from alignguard.distributed import compute_device, gathered, whole_weight


class Waits:
    """A weight that FSDP2 shards over GPUs and keeps on the CPU, as far as it is looked at."""

    device, device_mesh = torch.device("cpu"), SimpleNamespace(device_type="cuda")

    def __init__(self):
        self.gathered_on = None

    def to(self, device):
        self.device = device
        return self

    def full_tensor(self):
        self.gathered_on = self.device
        return torch.zeros(2, 2)


class FullyShardedDataParallel(torch.nn.Module):
    """FSDP1's, as far as it is looked at."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4))

    def get_output_embeddings(self):
        return self


def test_an_offloaded_model_computes_where_its_mesh_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    weight = Waits()
    assert compute_device(SimpleNamespace(parameters=lambda: iter([weight]))) == torch.device("cuda", 1)
    whole_weight(weight)
    assert weight.gathered_on == torch.device("cuda", 1)  # NCCL gathers nothing on a CPU
    assert compute_device(torch.nn.Linear(2, 2)) == torch.device("cpu")


def test_fsdp1_knows_where_it_computes(monkeypatch):
    monkeypatch.setattr(FullyShardedDataParallel, "compute_device", torch.device("cuda", 3), raising=False)
    assert compute_device(FullyShardedDataParallel()) == torch.device("cuda", 3)


def test_a_head_that_is_a_unit_of_fsdp1s_is_refused():
    match = "fsdp_config version 2, or its auto_wrap_policy TRANSFORMER_BASED_WRAP"
    with pytest.raises(StartError, match=match), gathered(FullyShardedDataParallel()):
        pass
