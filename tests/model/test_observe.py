import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from alignguard.model.observe import memory_given_back, observing, trainer_autocast


def draw_all():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


@pytest.mark.parametrize("fails", [False, True])
def test_generators_modes_and_gradients_are_as_before(fails):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model.train()
    model[0].eval()  # frozen on purpose
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw_all()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    try:
        with observing(model):
            assert not model[1].training and not torch.is_grad_enabled()
            draw_all()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert draw_all() == expected
    assert [m.training for m in model.modules()] == [True, False, True]
    assert torch.is_grad_enabled()


def test_tensors_made_inside_can_train_afterwards():
    model = nn.Linear(2, 2)
    with observing(model):
        x = torch.ones(2)
    model(x).sum().backward()  # would fail for a tensor made in inference mode


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bf16": True}, torch.bfloat16),
        ({"fp16": True}, torch.float16),
        ({"bf16": False, "mixed_precision": "bf16"}, torch.bfloat16),
        ({"bf16": False, "mixed_precision": "no"}, None),
        ({}, None),
    ],
)
def test_mixed_precision_is_read_from_the_trainer_or_from_accelerate(settings, expected):
    assert trainer_autocast(SimpleNamespace(**settings)) is expected


def test_autocast_is_the_trainers():
    model = nn.Linear(2, 2)
    with observing(model, autocast=torch.bfloat16):
        assert model(torch.ones(1, 2)).dtype == torch.bfloat16
    assert model(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.parametrize(("after", "given_back"), [(5, []), (9, [True])])
def test_memory_that_an_audit_took_is_given_back(monkeypatch, after, given_back):
    reserved, calls = iter([5, after]), []
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: next(reserved))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(True))
    with pytest.raises(KeyError), memory_given_back(torch.device("cuda")):
        raise KeyError
    assert calls == given_back
