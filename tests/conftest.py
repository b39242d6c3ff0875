"""Tiny models and tokenizers, made in memory."""

import gc

import environment  # noqa: F401  (before anything reads it)
import pytest
import torch
from tiny import tiny_model, tiny_probes, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model(tokenizer):
    return tiny_model(tokenizer)


@pytest.fixture
def other(tokenizer):
    """Another model of the same shape: a policy that has moved far."""
    return tiny_model(tokenizer, seed=1)


@pytest.fixture(scope="session")
def probes():
    return tiny_probes()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _frozen(request):
    """
    What lives already is not gone through again at each collection, of which trainers ask for many. A file that is THAWED counts
    what is frozen, and the number falls as objects die.
    """
    gc.collect()
    (gc.unfreeze if getattr(request.module, "THAWED", False) else gc.freeze)()
