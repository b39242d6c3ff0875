"""Drift of every probe: KL(reference || policy) on the reference's own answers, *raw* and *answer*.

Learning to think is a change of format. The first token of an answer that used to begin with "I'm sorry" and now begins
with "<think>" carries most of the raw figure; the *answer* figure puts an empty, closed trace before the answer and so
asks what the policy would say once it has thought.

On the reference's answers the sum over tokens is a KL of sequences (chain rule), cut off where the answer is; with the
trace put before it, it is one between answers given that trace. *Reverse* is KL(policy || reference) on the policy's own
answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import torch

from ..drift.kl import kl_tokens, logprob_tokens
from ..drift.reference import Reference
from ..model.chat import Answer, Chat
from ..model.forward import Row, batches
from ..model.head import Head, batch_limit, read_head, rounding, target_hidden
from ..model.observe import observing
from ..probes.probe import Probe
from .asking import Asking
from .manner import Manner
from .prompts import encode_prompt
from .result import ProbeDrift, Result

_ALIKE = 2  # times one in the vocabulary: a token no likelier than that is none that could have been meant
_THINKS_CHEAP = 0.01  # below this probability of the first tag token, the exact pass for a trace is not worth its time


@dataclass(frozen=True)
class Item:
    """
    One answer of the reference, to measure drift on.

    Args:
        id (`str`):
            Of the probe, or of the training prompt.
        context (`Sequence[int]`):
            Token ids of the prompt.
        answer (`Answer`):
            The reference's own.
        inside (`bool`):
            Whether the prompt itself opens a trace.
    """

    id: str
    context: Sequence[int]
    answer: Answer
    inside: bool

    @property
    def row(self) -> Row:
        """The answer as it stands."""
        return Row(self.context, self.answer.tokens)


def items_of(probes: Sequence[Probe], baseline: dict[str, Result], chat: Chat) -> list[Item]:
    """What drift is measured on: every probe's prompt, and the reference's own answer to it."""
    items = []
    for probe in probes:
        answer, (context, inside) = baseline[probe.id].answer, encode_prompt(probe, chat)
        assert answer is not None
        items.append(Item(probe.id, context, answer, inside))
    return items


def remember(model: Any, reference: Reference, items: Sequence[Item], asking: Asking, path: Path) -> None:
    """
    Keep what the start says at every token of its answers, in the reference's cache, while it can still be asked.

    Each process keeps its share in a file of its own; of a sharded model the first one keeps all.

    Args:
        model (`PreTrainedModel`):
            The start.
        reference (`Reference`):
            With a cache, which afterwards reads from disk.
        items (`Sequence[Item]`):
            Its answers.
        asking (`Asking`):
            How probes are asked.
        path (`Path`):
            Where to.
    """
    cache, ranks, pad = reference.cache, asking.ranks, asking.chat.pad_token_id
    assert cache is not None
    keeps = ranks.rank == 0 or not ranks.sharded

    def keep() -> None:
        head, share = read_head(model), ranks.mine(items)
        for batch in batches([item.row.length for item in share], asking.tokens.batch_tokens):
            part = [share[i] for i in batch]
            hidden = target_hidden(model, [item.row for item in part], pad, head)
            if keeps:
                cache.add([item.id for item in part], [len(item.answer.tokens) for item in part], hidden, head)
        if keeps:
            cache.write(path, reference.fingerprint, ranks.rank, 1 if ranks.sharded else ranks.size)

    with observing(model, autocast=asking.autocast):
        ranks.together(keep)
    ranks.together(lambda: cache.open(path, reference.fingerprint))


def measure_drift(policy: Any, reference: Reference, items: Sequence[Item], asking: Asking) -> dict[str, ProbeDrift]:
    """
    Drift on each of the reference's own answers, see [`ProbeDrift`].

    Args:
        policy (`PreTrainedModel`):
            The model being trained.
        reference (`Reference`):
            The frozen start.
        items (`Sequence[Item]`):
            The answers.
        asking (`Asking`):
            How probes are asked.
    """
    chat, by_id = asking.chat, {item.id: item for item in items}
    spans = {item.id: slice(_said_from(item, chat), len(item.answer.tokens)) for item in items}
    found = _sweep(policy, reference, items, {item.id: item.row for item in items}, asking)
    results: dict[str, ProbeDrift] = {}
    unsure: dict[str, Row] = {}
    for id, (kl, first, same, departs) in found.items():
        item, cut = by_id[id], spans[id].start
        # the reference's own trace, and what wraps its answer, stand before that for both
        thinks = 1.0 if item.answer.thinks and item.inside else first
        results[id] = ProbeDrift(kl, kl[cut:], thinks, same, departs)
        if not item.answer.thinks and first >= _THINKS_CHEAP:
            unsure[id] = Row([*item.context, *chat.closed_trace_ids()], item.answer.tokens[cut:])
    if unsure:
        opened = _trace_probability(policy, {id: by_id[id].context for id in unsure}, asking)
        after = {id: row for id, row in unsure.items() if opened[id] >= 0.5}
        closed = _sweep(policy, reference, [by_id[id] for id in after], after, asking, spans) if after else {}
        for id, thinks in opened.items():
            old = results[id]
            kl = closed[id][0] if id in closed else old.answer
            results[id] = ProbeDrift(old.raw, kl, thinks, old.same, old.departs)
    return results


def _said_from(item: Item, chat: Chat) -> int:
    """How many of a reference's tokens stand before what it says: its trace, and what wraps its answer."""
    tokens = item.answer.tokens
    if not item.answer.answer:
        return chat.closing(tokens) if item.answer.thinks else 0
    return chat.answer_start(tokens, item.inside)


def read_as_told(
    policy: Any,
    reference: Reference,
    items: Sequence[Item],
    drifts: Mapping[str, ProbeDrift],
    manner: Manner,
    thinks: Collection[str],
    asking: Asking,
) -> dict[str, ProbeDrift]:
    """
    *Answer* drift where the policy has learnt another form than its start's: read after what it would write before an
    answer, an empty trace in its own form and its own wrapper.

    Args:
        policy (`PreTrainedModel`), reference (`Reference`), items (`Sequence[Item]`), asking (`Asking`):
            As for [`measure_drift`].
        drifts (`Mapping[str, ProbeDrift]`):
            What that found.
        manner ([`Manner`]):
            The policy's.
        thinks (`Collection[str]`):
            Where it opens a trace.

    Returns:
        `dict[str, ProbeDrift]`: of all items.
    """
    chat = asking.chat
    spans: dict[str, slice] = {}
    after: dict[str, Row] = {}
    for item in items:
        tokens, cut = item.answer.tokens, _said_from(item, chat)
        own = chat.decode(tokens[:cut])
        usual = manner.form == chat.form and not manner.wrapper
        if item.answer.thinks or (usual if item.id in thinks else manner.writes(own)):
            continue
        span = slice(cut, manner.end(chat, tokens, own))
        if span.start < span.stop:
            before = manner.before(chat, item.id in thinks, item.inside)
            after[item.id], spans[item.id] = Row([*item.context, *before], tokens[span]), span
    if not after:
        return dict(drifts)
    found = _sweep(policy, reference, [item for item in items if item.id in after], after, asking, spans)
    return {id: replace(old, answer=found[id][0]) if id in found else old for id, old in drifts.items()}


def opens_trace(drift: ProbeDrift, start: Result, chat: Chat) -> bool:
    """Whether the policy opens a trace here: likelier than not, or within what it would say just as its start did."""
    said = start.answer
    as_before = said is not None and said.thinks and chat.answer(said.tokens[: drift.same], False).thinks
    return drift.thinks >= 0.5 or as_before


def _sweep(
    policy: Any,
    reference: Reference,
    items: Sequence[Item],
    policy_rows: dict[str, Row],
    asking: Asking,
    spans: Mapping[str, slice] | None = None,
) -> dict[str, tuple[list[float], float, int, int]]:
    """
    Both models over the same targets, batch by batch, so that nothing of a batch outlives it. With `spans` the targets are
    those parts of the reference's answers.

    Returns:
        `dict`: of each item the KL at every token, the probability that the policy's first token begins a trace, how many
        tokens the policy would say too, and the one with which it departs (-1: it does not).
    """
    chat, open_id = asking.chat, asking.chat.open_ids()[0]
    results = {}
    head, near_by = read_head(policy), rounding(policy)
    limit = batch_limit(asking.tokens.batch_tokens, head)
    for batch in batches([policy_rows[item.id].length for item in items], limit):
        part = [items[i] for i in batch]
        rows = [policy_rows[item.id] for item in part]
        teacher = _teacher(reference, part, asking)
        if spans is not None:
            teacher = _within(teacher, [len(item.answer.tokens) for item in part], [spans[item.id] for item in part])
        hidden = target_hidden(policy, rows, chat.pad_token_id, head)  # (n, d)
        targets = torch.tensor([t for row in rows for t in row.target], device=hidden.device)
        found = kl_tokens(*teacher, hidden, head, targets)
        lengths = torch.tensor([len(row.target) for row in rows])
        starts = (lengths.cumsum(0) - lengths).to(hidden.device)
        opens = logprob_tokens(hidden[starts], head, torch.full_like(starts, open_id)).exp().tolist()
        kl, argmax = found["kl"].cpu(), found["argmax"].cpu()
        # a token within rounding of the top is the top, and which of them generation takes is chance; but where all are alike,
        # as in a broken model, none is
        near = found["behind"] <= near_by * found["top"].abs().clamp(min=1)
        agree = (near & (found["logprob"] > log(_ALIKE / len(head)))).cpu() | (argmax == targets.cpu())
        for k, (item, start, length) in enumerate(zip(part, starts.tolist(), lengths.tolist(), strict=True)):
            stop = start + length
            own = agree[start:stop].clone()
            if item.answer.forced and spans is None:  # a trace was closed for it here, as it would be for the policy
                closed = chat.forced_tokens(item.answer)
                own[closed] = True
                if closed.start < asking.tokens.trace:  # it was not cut off: it ended, and so must the policy
                    own[closed.start] = int(argmax[start + closed.start]) in chat.eos_token_ids
            same = int(own.long().cumprod(0).sum())
            departs = int(argmax[start + same]) if same < length else -1
            results[item.id] = (kl[start:stop].tolist(), opens[k], same, departs)
    return asking.ranks.agree(results)


def _teacher(reference: Reference, items: Sequence[Item], asking: Asking) -> tuple[torch.Tensor, Head]:
    """What the policy is held against: the reference's hidden states and head."""
    if reference.cache is not None and reference.cache.has([item.id for item in items]):
        return reference.cache.teacher([item.id for item in items])
    with reference.loaded() as frozen:
        head = read_head(frozen)
        return target_hidden(frozen, [item.row for item in items], asking.chat.pad_token_id, head), head


def _within(
    teacher: tuple[torch.Tensor, Head], lengths: Sequence[int], spans: Sequence[slice]
) -> tuple[torch.Tensor, Head]:
    """The same, of a part of each answer."""
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    kept = torch.cat([torch.arange(at + s.start, at + s.stop) for at, s in zip(starts, spans, strict=False)])
    hidden, head = teacher
    return hidden[kept.to(hidden.device)], head


def _trace_probability(policy: Any, contexts: dict[str, Sequence[int]], asking: Asking) -> dict[str, float]:
    """Probability of every token that begins a trace, multiplied."""
    chat, ids = asking.chat, list(contexts)
    tag = chat.open_ids()
    head = read_head(policy)
    result: dict[str, float] = {}
    for batch in batches([len(contexts[id]) + len(tag) for id in ids], batch_limit(asking.tokens.batch_tokens, head)):
        rows = [Row(contexts[ids[i]], tag) for i in batch]
        hidden = target_hidden(policy, rows, chat.pad_token_id, head)
        targets = torch.tensor(tag * len(rows), device=hidden.device)
        sums = logprob_tokens(hidden, head, targets).view(len(rows), len(tag)).sum(1).exp().tolist()
        result |= {ids[i]: p for i, p in zip(batch, sums, strict=True)}
    return asking.ranks.agree(result)


def measure_reverse(policy: Any, reference: Reference, items: Sequence[Item], asking: Asking) -> dict[str, float]:
    """
    KL(policy || reference) on the policy's own answers, mean over the tokens after its trace and wrapper, in nats.

    The policy sees its own trace and wrapper; the reference the prompt alone, unless the prompt itself opens a trace.

    Args:
        policy (`PreTrainedModel`):
            The model being trained.
        reference (`Reference`):
            The frozen start; a cache cannot be asked this.
        items (`Sequence[Item]`):
            The *policy's* answers.
        asking (`Asking`):
            How probes are asked.
    """
    chat = asking.chat
    ours: dict[str, Row] = {}
    theirs: dict[str, Row] = {}
    for item in items:
        tokens = item.answer.tokens
        cut = _said_from(item, chat)
        if cut == len(tokens):
            continue
        ours[item.id] = Row([*item.context, *tokens[:cut]], tokens[cut:])
        lead = [] if item.inside else chat.lead_ids()
        theirs[item.id] = ours[item.id] if item.inside else Row([*item.context, *lead], tokens[cut:])
    ids = list(ours)
    results: dict[str, float] = {}
    head = read_head(policy)
    for batch in batches([ours[id].length for id in ids], batch_limit(asking.tokens.batch_tokens, head)):
        part = [ids[i] for i in batch]
        with reference.loaded() as frozen:
            head_r = read_head(frozen)
            hidden_r = target_hidden(frozen, [theirs[id] for id in part], chat.pad_token_id, head_r)
        hidden = target_hidden(policy, [ours[id] for id in part], chat.pad_token_id, head)
        targets = torch.tensor([t for id in part for t in ours[id].target], device=hidden.device)
        kl = kl_tokens(hidden, head, hidden_r, head_r, targets)["kl"]
        means = [chunk.mean().item() for chunk in kl.split([len(ours[id].target) for id in part])]
        results |= dict(zip(part, means, strict=True))
    return results
