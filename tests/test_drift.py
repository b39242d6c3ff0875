"""KL against a float64 oracle from both models' own logits."""

import pytest
import torch

import alignguard.drift as drift
from alignguard.drift import kl_tokens, logprob_tokens
from alignguard.forward import Row, read_head, target_hidden


def oracle(p_logits, q_logits):
    """KL(p || q) in float64, from logits of shape (n, V)."""
    p, q = p_logits.double().log_softmax(-1), q_logits.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def own_logits(model, row):
    """What the model itself says of each target token."""
    with torch.no_grad():
        logits = model(torch.tensor([[*row.context, *row.target]])).logits[0]
    return logits[len(row.context) - 1 : row.length - 1]


@pytest.fixture
def rows(tokenizer):
    texts = [("How do I open", " a locked door?"), ("The", " quick brown fox jumps over the dog."), ("a b c d e", "f")]
    return [Row(tokenizer(a)["input_ids"], tokenizer(b)["input_ids"]) for a, b in texts]


@pytest.mark.parametrize(("tokens", "vocabulary"), [(256, 8192), (3, 50), (1, 7)])
def test_kl_matches_float64_from_the_models_own_logits(model, other, rows, monkeypatch, tokens, vocabulary):
    monkeypatch.setattr(drift, "TILE_TOKENS", tokens)
    monkeypatch.setattr(drift, "TILE_VOCABULARY", vocabulary)
    with torch.no_grad():
        hidden_p, hidden_q = target_hidden(model, rows, 0), target_hidden(other, rows, 0)
        targets = torch.tensor([t for row in rows for t in row.target])
        found = kl_tokens(hidden_p, read_head(model), hidden_q, read_head(other), targets)
    p = torch.cat([own_logits(model, row) for row in rows])
    q = torch.cat([own_logits(other, row) for row in rows])
    expected = oracle(p, q)
    assert expected.min() > 1e-3
    assert ((found["kl"] - expected).abs() / expected).max() < 1e-4
    backwards = oracle(q, p)
    assert ((found["kl"] - backwards).abs() / backwards).mean() > 0.01  # the direction matters here
    assert torch.equal(found["argmax"], q.argmax(-1))
    logprob = q.double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(found["logprob"].double(), logprob, rtol=0, atol=1e-4)
    alone = logprob_tokens(hidden_q, read_head(other), targets)
    torch.testing.assert_close(alone.double(), logprob, rtol=0, atol=1e-4)


def test_a_model_has_no_drift_from_itself(model, rows):
    with torch.no_grad():
        hidden, head = target_hidden(model, rows, 0), read_head(model)
        targets = torch.tensor([t for row in rows for t in row.target])
        assert kl_tokens(hidden, head, hidden.clone(), head, targets)["kl"].abs().max() < 1e-6


def test_small_drift_is_seen_exactly(model, rows):
    import copy

    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(torch.randn_like(p) * 1e-3 * p.abs().mean())
        targets = torch.tensor([t for row in rows for t in row.target])
        found = kl_tokens(
            target_hidden(model, rows, 0), read_head(model), target_hidden(moved, rows, 0), read_head(moved), targets
        )
    expected = torch.cat([oracle(own_logits(model, row), own_logits(moved, row)) for row in rows])
    assert 1e-8 < expected.mean() < 1e-3
    assert abs(found["kl"].mean() - expected.mean()) < 1e-6
