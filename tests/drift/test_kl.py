"""KL against a float64 oracle from both models' own logits."""

import pytest
import torch
from oracles import oracle, own_logits
from peak import PeakMemory

import alignguard.drift.kl as drift
from alignguard.drift.kl import kl_tokens, logprob_tokens
from alignguard.model.forward import Row
from alignguard.model.head import Head, read_head, target_hidden


@pytest.fixture
def rows(tokenizer):
    texts = [("How do I open", " a locked door?"), ("The", " quick brown fox jumps over the dog."), ("a b c d e", "f")]
    return [Row(tokenizer(a)["input_ids"], tokenizer(b)["input_ids"]) for a, b in texts]


@pytest.mark.parametrize(("tokens", "scratch"), [(2048, drift.SCRATCH), (3, 3 * 16 * 50), (1, 16 * 7), (5, 1)])
def test_kl_matches_float64_from_the_models_own_logits(model, other, rows, monkeypatch, tokens, scratch):
    monkeypatch.setattr(drift, "TILE_TOKENS", tokens)
    monkeypatch.setattr(drift, "SCRATCH", scratch)
    with torch.no_grad():
        hidden_p, hidden_q = (
            target_hidden(model, rows, 0, read_head(model)),
            target_hidden(other, rows, 0, read_head(other)),
        )
        targets = torch.tensor([t for row in rows for t in row.target])
        found = kl_tokens(hidden_p, read_head(model), hidden_q, read_head(other), targets)
        both = kl_tokens(hidden_p, read_head(model), hidden_q, read_head(other), targets, everything=True)
    p = torch.cat([own_logits(model, row) for row in rows])
    q = torch.cat([own_logits(other, row) for row in rows])
    expected = oracle(p, q)
    assert expected.min() > 1e-3
    assert ((found["kl"] - expected).abs() / expected).max() < 1e-4
    backwards = oracle(q, p)
    assert ((found["kl"] - backwards).abs() / backwards).mean() > 0.01  # the direction matters here
    assert torch.equal(found["argmax"], q.argmax(-1)) and torch.equal(both["argmax"], q.argmax(-1))
    torch.testing.assert_close(both["kl"].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(both["reverse"].double(), backwards, rtol=1e-4, atol=1e-6)
    for name, logits in (("entropy_p", p), ("entropy_q", q)):
        exact = logits.double().log_softmax(-1)
        torch.testing.assert_close(both[name].double(), -(exact.exp() * exact).sum(-1), rtol=1e-4, atol=1e-4)
    logprob = q.double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(found["logprob"].double(), logprob, rtol=0, atol=1e-4)
    alone = logprob_tokens(hidden_q, read_head(other), targets)
    torch.testing.assert_close(alone.double(), logprob, rtol=0, atol=1e-4)


def test_a_model_has_no_drift_from_itself(model, rows):
    with torch.no_grad():
        hidden, head = target_hidden(model, rows, 0, read_head(model)), read_head(model)
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
            target_hidden(model, rows, 0, read_head(model)),
            read_head(model),
            target_hidden(moved, rows, 0, read_head(moved)),
            read_head(moved),
            targets,
        )
    expected = torch.cat([oracle(own_logits(model, row), own_logits(moved, row)) for row in rows])
    assert 1e-8 < expected.mean() < 1e-3
    assert abs(found["kl"].mean() - expected.mean()) < 1e-6


def head_of(d, v, **kwargs):
    return Head(torch.randn(v, d) * 0.3, **kwargs)


@pytest.mark.parametrize("kwargs", [{"scale": 0.25}, {"softcap": 3.0}, {"scale": 2.0, "softcap": 5.0}])
def test_scaled_and_capped_heads(kwargs):
    p, q = head_of(8, 99, **kwargs), head_of(8, 99, **kwargs)
    h, g = torch.randn(5, 8), torch.randn(5, 8)

    def own(hidden, head):
        z = kwargs.get("scale", 1.0) * (hidden.double() @ head.weight.double().T)
        cap = kwargs.get("softcap")
        return cap * torch.tanh(z / cap) if cap else z

    found = kl_tokens(h, p, g, q, torch.zeros(5, dtype=torch.long))["kl"]
    torch.testing.assert_close(found.double(), oracle(own(h, p), own(g, q)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scratch", [drift.SCRATCH, 2000])
def test_rows_that_the_policy_has_beyond_its_start_have_their_part_in_what_it_says(monkeypatch, scratch):
    """A token that came after the start was kept: the start never says it, and what the policy gives it the others lose."""
    monkeypatch.setattr(drift, "SCRATCH", scratch)
    p, q = head_of(8, 290), head_of(8, 300)
    h, g, targets = torch.randn(5, 8), torch.randn(5, 8), torch.tensor([3, 289, 295, 40, 7])
    q.weight[295] = 20 * g[0]  # by which it is sure of an answer where it is like the first
    z_p, z_q = h.double() @ p.weight.double().T, g.double() @ q.weight.double().T
    log_p, log_q = z_p.log_softmax(-1), z_q.log_softmax(-1)
    expected = (log_p.exp() * (log_p - log_q[:, :290])).sum(-1)
    assert expected[0] > 30
    for everything in (False, True):
        found = kl_tokens(h, p, g, q, targets, everything)
        torch.testing.assert_close(found["kl"].double(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["lse_q"], z_q.logsumexp(-1), rtol=0, atol=1e-4)
        assert torch.equal(found["argmax"], z_q.argmax(-1)) and found["argmax"][0] == 295
        torch.testing.assert_close(found["top"].double(), z_q.amax(-1), rtol=0, atol=1e-4)
        logprob = log_q.gather(1, targets[:, None])[:, 0]
        torch.testing.assert_close(found["logprob"].double(), logprob, rtol=0, atol=1e-4)
        assert found["behind_p"][2] == torch.inf and found["behind_p"][[0, 1, 3, 4]].isfinite().all()
    both = z_q[:, :290].log_softmax(-1)
    torch.testing.assert_close(found["reverse"].double(), (both.exp() * (both - log_p)).sum(-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["entropy_q"].double(), -(log_q.exp() * log_q).sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scratch", [drift.SCRATCH, 2000])
@pytest.mark.parametrize("words", [280, 293])
def test_padding_of_the_policy_is_no_drift_and_is_seen_where_it_would_be_said(monkeypatch, words, scratch):
    monkeypatch.setattr(drift, "SCRATCH", scratch)
    p, q = head_of(8, 290), head_of(8, 300)
    h, g, targets = torch.randn(5, 8), torch.randn(5, 8), torch.tensor([3, 289, 40, 7, 8])
    q.weight[295] = 20 * g[0]
    z_p, z_q = h.double() @ p.weight.double().T, g.double() @ q.weight.double().T
    log_p, log_q = z_p.log_softmax(-1), z_q[:, : max(290, words)].log_softmax(-1)
    found = kl_tokens(h, p, g, q, targets, words=words)
    torch.testing.assert_close(
        found["kl"].double(), (log_p.exp() * (log_p - log_q[:, :290])).sum(-1), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(found["argmax"], z_q.argmax(-1)) and found["argmax"][0] == 295
    logprob = z_q.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found["logprob"].double(), logprob, rtol=0, atol=1e-4)


def test_rows_that_the_start_has_beyond_the_policy_are_left_out():
    """Padding that was cut off is no drift; what nobody can say has no likelihood."""
    q = head_of(8, 90)
    p = Head(torch.cat([q.weight, torch.randn(10, 8)]))
    h, targets = torch.randn(5, 8), torch.tensor([0, 95, 3, 4, 5])
    found = kl_tokens(h, p, h, q, targets)
    assert found["kl"].abs().max() < 1e-5
    assert found["logprob"][1] == -torch.inf and found["behind"][1] == torch.inf
    assert drift.sweep_tokens(h, q, targets)["logprob"][1] == -torch.inf


def test_autocast_does_not_round_the_logits():
    p, q, targets = head_of(16, 300), head_of(16, 300), torch.zeros(9, dtype=torch.long)
    h, g = torch.randn(9, 16), torch.randn(9, 16)
    exact = kl_tokens(h, p, g, q, targets)["kl"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(kl_tokens(h, p, g, q, targets)["kl"], exact)


def test_half_precision_weights_are_multiplied_in_float32():
    p, q = head_of(16, 300), head_of(16, 300)
    h, g = torch.randn(9, 16).bfloat16(), torch.randn(9, 16).bfloat16()
    p, q = Head(p.weight.bfloat16()), Head(q.weight.bfloat16())
    found = kl_tokens(h, p, g, q, torch.zeros(9, dtype=torch.long))["kl"]
    expected = oracle(h.double() @ p.weight.double().T, g.double() @ q.weight.double().T)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_sweep_keeps_to_its_scratch(monkeypatch):
    """Live bytes, counted at every operation, while neither model's (tokens, vocabulary) logits exist."""
    monkeypatch.setattr(drift, "SCRATCH", 2**20)
    p, q = head_of(8, 20_000), head_of(8, 20_000)
    h, g, targets = torch.randn(500, 8), torch.randn(500, 8), torch.randint(0, 20_000, (500,))
    for run in (
        lambda: kl_tokens(h, p, g, q, targets),
        lambda: kl_tokens(h, p, g, q, targets, everything=True),
        lambda: logprob_tokens(h, p, targets),
    ):
        with PeakMemory() as peak:
            run()
        assert peak.bytes < 1.6 * 2**20 < 500 * 20_000 * 4
