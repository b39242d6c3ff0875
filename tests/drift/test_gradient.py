"""Gradients of the drift against autograd of the plain definition, in float64."""

import pytest
import torch
from peak import PeakMemory

import alignguard.drift.kl as drift
from alignguard.drift.gradient import kl_loss
from alignguard.model.head import Head


def plain(hidden, weight, bias, scale, softcap, p):
    z = hidden @ weight.T + (0 if bias is None else bias)
    z = z * scale
    z = softcap * torch.tanh(z / softcap) if softcap else z
    return (p * (p.log() - z.log_softmax(-1))).sum(-1)


@pytest.mark.parametrize("scratch", [drift.SCRATCH, 2000])
@pytest.mark.parametrize(("bias", "scale", "softcap"), [(False, 1.0, 0.0), (True, 0.5, 0.0), (False, 2.0, 5.0)])
def test_gradients_are_those_of_the_definition(monkeypatch, scratch, bias, scale, softcap):
    monkeypatch.setattr(drift, "SCRATCH", scratch)
    n, d, v = 7, 12, 130
    h, g = torch.randn(n, d), torch.randn(n, d, requires_grad=True)
    w_p, w = torch.randn(v, d) * 0.5, (torch.randn(v, d) * 0.5).requires_grad_()
    b = torch.randn(v).requires_grad_() if bias else None
    weigh = torch.rand(n)
    head_p = Head(w_p, None if b is None else torch.randn(v), scale, softcap)
    loss = kl_loss(g, Head(w, b, scale, softcap), (h, head_p))
    (loss * weigh).sum().backward()

    p = head_p.logits(h).double().softmax(-1)
    exact = [t.detach().double().requires_grad_() for t in (g, w) + ((b,) if bias else ())]
    expected = plain(exact[0], exact[1], exact[2] if bias else None, scale, softcap, p)
    (expected * weigh.double()).sum().backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip((g, w, b), exact, strict=False):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scratch", [drift.SCRATCH, 2000])
@pytest.mark.parametrize(("ours", "theirs"), [(130, 120), (120, 130)])
@pytest.mark.parametrize("last", [-1, 125])
def test_rows_that_one_vocabulary_has_beyond_the_other(monkeypatch, ours, theirs, last, scratch):
    """Those of the policy are pushed down, since its start never says them, unless they are free; those of the start have no part."""
    monkeypatch.setattr(drift, "SCRATCH", scratch)
    h, g = torch.randn(7, 12), torch.randn(7, 12, requires_grad=True)
    w_p, w = torch.randn(theirs, 12) * 0.5, (torch.randn(ours, 12) * 0.5).requires_grad_()
    free = torch.tensor([-1] * 6 + [last if last < ours else -1])
    loss = kl_loss(g, Head(w), (h, Head(w_p)), free)
    loss.sum().backward()
    exact_g, exact_w = (t.detach().double().requires_grad_() for t in (g, w))
    z = exact_g @ exact_w.T
    if free[-1] >= 0:
        z = torch.cat([z[:6], z[6:].index_fill(1, free[-1:], -torch.inf)])
    p = (h @ w_p[:120].T).double().softmax(-1)
    expected = (p * (p.log() - z.log_softmax(-1)[:, :120])).sum(-1)
    expected.sum().backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(g.grad.double(), exact_g.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(w.grad.double(), exact_w.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("words", [110, 125])
def test_padding_of_the_policy_has_no_part(words):
    h, g = torch.randn(7, 12), torch.randn(7, 12, requires_grad=True)
    w_p, w, b = torch.randn(120, 12) * 0.5, (torch.randn(130, 12) * 0.5).requires_grad_(), torch.randn(130)
    loss = kl_loss(g, Head(w, b), (h, Head(w_p)), words=words)
    loss.sum().backward()
    exact_g, exact_w = (t.detach().double().requires_grad_() for t in (g, w))
    log_q = (exact_g @ exact_w.T + b)[:, : max(words, 120)].log_softmax(-1)[:, :120]
    p = (h @ w_p.T).double().softmax(-1)
    expected = (p * (p.log() - log_q)).sum(-1)
    expected.sum().backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(g.grad.double(), exact_g.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(w.grad.double(), exact_w.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scratch", [drift.SCRATCH, 2000])
def test_a_free_token_costs_nothing(monkeypatch, scratch):
    """Both models are conditioned on not saying it: value and gradients by the plain definition, in float64."""
    monkeypatch.setattr(drift, "SCRATCH", scratch)
    n, d, v = 6, 12, 130
    h, g = torch.randn(n, d), torch.randn(n, d, requires_grad=True)
    w_p, w = torch.randn(v, d) * 0.5, (torch.randn(v, d) * 0.5).requires_grad_()
    free = torch.tensor([-1, 0, 129, -1, 64, 7])
    loss = kl_loss(g, Head(w), (h, Head(w_p)), free)
    loss.sum().backward()
    exact_g, exact_w = (t.detach().double().requires_grad_() for t in (g, w))
    z_p, z_q = h.double() @ w_p.double().T, exact_g @ exact_w.T
    keep = torch.ones(n, v, dtype=torch.bool)
    for i, t in enumerate(free.tolist()):
        if t >= 0:
            keep[i, t] = False
    p = z_p.masked_fill(~keep, -torch.inf).softmax(-1)
    log_q = z_q.masked_fill(~keep, -1e30).log_softmax(-1)
    expected = torch.where(keep, p * (p.clamp_min(1e-300).log() - log_q), 0.0).sum(-1)
    expected.sum().backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(g.grad.double(), exact_g.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(w.grad.double(), exact_w.grad, rtol=1e-3, atol=1e-5)


def test_no_drift_has_no_gradient():
    head = Head((torch.randn(130, 12) * 0.5).requires_grad_())
    h = torch.randn(7, 12)
    g = h.clone().requires_grad_()
    kl_loss(g, head, (h, Head(head.weight.detach()))).sum().backward()
    assert g.grad.abs().max() < 1e-6 and head.weight.grad.abs().max() < 1e-6


def test_neither_pass_holds_the_full_logits(monkeypatch):
    monkeypatch.setattr(drift, "SCRATCH", 2**20)
    head, h, g = Head(torch.randn(20_000, 8)), torch.randn(500, 8), torch.randn(500, 8, requires_grad=True)
    with PeakMemory() as peak:
        kl_loss(g, head, (h, head)).sum().backward()
    assert peak.bytes < 1.6 * 2**20
