"""Drift of every probe: KL(reference || policy) on the reference's own answers, *raw* and *answer*.

Learning to think is a change of format. The first token of an answer that used to begin with "I'm sorry" and now begins
with "<think>" carries most of the raw figure; the *answer* figure puts an empty, closed trace before the answer and so
asks what the policy would say once it has thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .ask import Asking, ProbeDrift, Result, turns
from .chat import Chat
from .drift import kl_tokens, logprob_tokens
from .forward import Row, batches, read_head, target_hidden
from .probes import Probe
from .reference import Reference

_THINKS_CHEAP = 0.01  # below this probability of the first tag token, the exact pass for a trace is not worth its time


def measure_drift(
    policy: Any, reference: Reference, probes: Sequence[Probe], baseline: dict[str, Result], asking: Asking
) -> dict[str, ProbeDrift]:
    """
    Drift of every probe on the reference's own answer, see [`ProbeDrift`].

    Args:
        policy (`PreTrainedModel`):
            The model being trained.
        reference (`Reference`):
            The frozen start.
        probes (`Sequence[Probe]`):
            What is asked; each must be in `baseline`.
        baseline (`dict[str, Result]`):
            The reference's answers.
        asking (`Asking`):
            How probes are asked.
    """
    chat = asking.chat
    raw = {p.id: Row(chat.prompt_ids(turns(p)), _answer_tokens(baseline[p.id])) for p in probes}
    drifts = _sweep(policy, reference, raw, raw, chat, asking)
    inside = {p.id for p in probes if chat.opens_trace(turns(p))}
    results: dict[str, ProbeDrift] = {}
    unsure = {}
    for id, found in drifts.items():
        answer = baseline[id].answer
        first = found["first_open"]
        if answer is not None and answer.thinks:  # the reference's own trace stands before its answer for both
            cut = _answer_start(answer.tokens, chat)
            thinks = 1.0 if id in inside else first
            results[id] = ProbeDrift(found["kl"], found["kl"][cut:], thinks, found["same"], found["departs"])
            continue
        results[id] = ProbeDrift(found["kl"], found["kl"], first, found["same"], found["departs"])
        if first >= _THINKS_CHEAP:
            unsure[id] = Row([*raw[id].context, *chat.closed_trace_ids()], raw[id].target)
    if unsure:
        opened = _trace_probability(policy, {id: raw[id].context for id in unsure}, asking)
        after = {id: row for id, row in unsure.items() if opened[id] >= 0.5}
        closed = _sweep(policy, reference, after, {id: raw[id] for id in after}, chat, asking) if after else {}
        for id, thinks in opened.items():
            old = results[id]
            kl = closed[id]["kl"] if id in closed else old.answer
            results[id] = ProbeDrift(old.raw, kl, thinks, old.same, old.departs)
    asking.tick(len(probes))
    return results


def _answer_tokens(result: Result) -> list[int]:
    assert result.answer is not None
    return list(result.answer.tokens)


def _answer_start(tokens: Sequence[int], chat: Chat) -> int:
    """Index of the first token after the trace; the length where the trace never closed."""
    for i in range(len(tokens)):
        if chat.tags[1] in chat.decode(tokens[: i + 1]):
            return i + 1
    return len(tokens)


def _sweep(
    policy: Any,
    reference: Reference,
    policy_rows: dict[str, Row],
    reference_rows: dict[str, Row],
    chat: Chat,
    asking: Asking,
) -> dict[str, dict[str, Any]]:
    """Both models over the same targets, batch by batch, so that nothing of a batch outlives it."""
    ids = list(policy_rows)
    device = next(policy.parameters()).device
    open_id = chat.open_ids()[0]
    results: dict[str, dict[str, Any]] = {}
    for batch in batches([policy_rows[id].length for id in ids], asking.budget.batch_tokens):
        part = [ids[i] for i in batch]
        targets = torch.tensor([t for id in part for t in policy_rows[id].target], device=device)
        with reference.loaded() as frozen:
            head_p = read_head(frozen)
            hidden_p = target_hidden(frozen, [reference_rows[id] for id in part], chat.pad_token_id)
        head_q = read_head(policy)
        hidden_q = target_hidden(policy, [policy_rows[id] for id in part], chat.pad_token_id)  # (n, d)
        found = kl_tokens(hidden_p, head_p, hidden_q, head_q, targets)
        lengths = [len(policy_rows[id].target) for id in part]
        starts = torch.tensor([sum(lengths[:k]) for k in range(len(lengths))], device=device)
        opens = logprob_tokens(hidden_q[starts], head_q, torch.full_like(starts, open_id)).exp().tolist()
        kl, argmax = found["kl"].cpu(), found["argmax"].cpu()
        agree = argmax == targets.cpu()
        for k, (id, start) in enumerate(zip(part, starts.tolist(), strict=True)):
            stop = start + lengths[k]
            same = int(agree[start:stop].long().cumprod(0).sum())
            results[id] = {
                "kl": kl[start:stop].tolist(),
                "first_open": opens[k],
                "same": same,
                "departs": int(argmax[start + same]) if same < lengths[k] else -1,
            }
    return results


def _trace_probability(policy: Any, contexts: dict[str, Sequence[int]], asking: Asking) -> dict[str, float]:
    """Probability of every token that begins a trace, multiplied."""
    chat, ids = asking.chat, list(contexts)
    tag = chat.open_ids()
    head, device = read_head(policy), next(policy.parameters()).device
    result: dict[str, float] = {}
    for batch in batches([len(contexts[id]) + len(tag) for id in ids], asking.budget.batch_tokens):
        rows = [Row(contexts[ids[i]], tag) for i in batch]
        hidden = target_hidden(policy, rows, chat.pad_token_id)
        targets = torch.tensor(tag * len(rows), device=device)
        sums = logprob_tokens(hidden, head, targets).view(len(rows), len(tag)).sum(1).exp().tolist()
        result |= {ids[i]: p for i, p in zip(batch, sums, strict=True)}
    return result
