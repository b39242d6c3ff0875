"""Drift of every probe: KL(reference || policy) on the reference's own answers, *raw* and *answer*.

Learning to think is a change of format. The first token of an answer that used to begin with "I'm sorry" and now begins
with "<think>" carries most of the raw figure; the *answer* figure puts an empty, closed trace before the answer and so
asks what the policy would say once it has thought.

On the reference's answers the sum over tokens is a KL of sequences (chain rule), cut off where the answer is; with the
trace put before it, it is one between answers given that trace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import exp, log
from pathlib import Path
from typing import Any

import torch

from ..drift.kl import kl_tokens
from ..drift.reference import Reference
from ..model.chat import Answer, Chat
from ..model.forward import Row
from ..model.head import Head, read_head
from ..model.observe import observing
from ..model.rounding import rounding
from ..probes.probe import Probe
from .asking import Asking
from .manner import Manner
from .prompts import encode_prompt
from .reading import Told, hear, read
from .result import ProbeDrift, Result

_Heard = tuple[Sequence[torch.Tensor], Head]  # what the reference says at its own answers to some items, and its head
_ALIKE = 2  # times one in the vocabulary: a token no likelier than that is none that could have been meant


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


@dataclass(frozen=True)
class Ahead:
    """
    What will be asked if the policy answers as it did last, so that each prompt is read once.

    Args:
        manner ([`Manner`]):
            How it thought and wrapped its answers.
        thinks (`Collection[str]`):
            Ids at which it would open a trace.
        rows (`Mapping[str, Sequence[Row]]`):
            By id what its log-probabilities are wanted of.
        kept (`Collection[str]`, *optional*):
            Ids of answers whose hidden states are kept: if the policy says the same, reverse drift is measured on them too.
    """

    manner: Manner
    thinks: Collection[str]
    rows: Mapping[str, Sequence[Row]]
    kept: Collection[str] = ()


@dataclass(frozen=True)
class _Asked:
    """
    What is read of one item: its answer as it stands (`raw`), the same after what the policy would write before it, with the
    part of it that that is, and what stands beside them.
    """

    item: Item
    after: tuple[Row, slice] | None = None
    beside: Sequence[Row] = ()
    raw: bool = True
    kept: bool = False

    @property
    def wanted(self) -> list[tuple[Row, slice]]:
        """Rows that drift is measured on, and which part of the reference's answer each is."""
        whole = [(self.item.row, slice(0, len(self.item.answer.tokens)))] if self.raw else []
        return whole + ([self.after] if self.after is not None else [])


def remember(model: Any, reference: Reference, items: Sequence[Item], asking: Asking, path: Path) -> None:
    """
    Keep what the start says at every token of its answers, in the reference's cache, while it can still be asked.

    Each process keeps its share in a file of its own.

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
    cache, ranks = reference.cache, asking.ranks
    assert cache is not None
    share = ranks.mine(items)

    def keep() -> None:
        for portion, found, head in hear(reference, [item.row for item in share], asking):
            for item in share[portion]:
                cache.add([item.id], [len(item.answer.tokens)], found[item.row.key], head)
        cache.write(path, reference.fingerprint, ranks.rank, ranks.size)

    with observing(model, autocast=asking.autocast):
        ranks.together(keep)
    ranks.together(lambda: cache.open(path, reference.fingerprint))
    reference.said.clear()


def measure_drift(
    policy: Any,
    reference: Reference,
    items: Sequence[Item],
    asking: Asking,
    told: Told | None = None,
    ahead: Ahead | None = None,
) -> dict[str, ProbeDrift]:
    """
    Drift on each of the reference's own answers, as they stand, see [`ProbeDrift`].

    Args:
        policy (`PreTrainedModel`):
            The model being trained.
        reference (`Reference`):
            The frozen start.
        items (`Sequence[Item]`):
            The answers.
        asking (`Asking`):
            How probes are asked.
        told (`Told`, *optional*):
            What the policy has told in this audit.
        ahead (`Ahead`, *optional*):
            What else will be asked of it if it answers as it did last, read along.
    """
    chat, told, tag = asking.chat, told or Told(), asking.chat.open_ids()
    opens = {item.id: Row(item.context, tag) for item in items}
    asked = []
    for item in items:
        after = _as_told(item, ahead.manner, item.id in ahead.thinks, chat) if ahead else None
        beside = [opens[item.id], *(ahead.rows.get(item.id, ()) if ahead else ())]
        asked.append(_Asked(item, after, beside, kept=ahead is not None and item.id in ahead.kept))
    results: dict[str, ProbeDrift] = {}
    for item, (kl, same, departs) in zip(items, _sweep(policy, reference, asked, asking, told), strict=True):
        # the reference's own trace, and what wraps its answer, stand before that for both
        thinks = 1.0 if item.answer.thinks and item.inside else exp(told.sums[opens[item.id].key])
        results[item.id] = ProbeDrift(kl, kl[said_from(item, chat) :], thinks, same, departs)
    return results


def said_from(item: Item, chat: Chat) -> int:
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
    told: Told | None = None,
) -> dict[str, ProbeDrift]:
    """
    *Answer* drift where the policy thinks, or has another form than its start's: read after what it would write before an
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
        told (`Told`, *optional*):
            What the policy has told in this audit.

    Returns:
        `dict[str, ProbeDrift]`: of all items.
    """
    told = told or Told()
    if manner == Manner(asking.chat.form):  # of its family's own form the probability at each prompt is known
        thinks = {id for id, drift in drifts.items() if drift.thinks >= 0.5}
    after = {item.id: _as_told(item, manner, item.id in thinks, asking.chat) for item in items}
    rows = {id: found[0] for id, found in after.items() if found is not None}
    missing = [_Asked(item, after[item.id]) for item in items if item.id in rows]
    missing = [asked for asked in missing if (asked.item.id, rows[asked.item.id].key) not in told.kls]
    if asking.ranks.rounds(len(missing)):
        _sweep(policy, reference, [replace(asked, raw=False) for asked in missing], asking, told)
    kls = {id: told.kls[id, row.key] for id, row in rows.items()}
    return {id: replace(old, answer=kls[id]) if id in kls else old for id, old in drifts.items()}


def _as_told(item: Item, manner: Manner, thinks: bool, chat: Chat) -> tuple[Row, slice] | None:
    """An answer after what the policy would write before it, and which part of it that is; nothing where it stands so."""
    tokens, cut = item.answer.tokens, said_from(item, chat)
    own = chat.decode(tokens[:cut])
    if item.answer.thinks or (not thinks and manner.writes(own)):
        return None
    span = slice(cut, manner.end(chat, tokens, own))
    if span.start >= span.stop:
        return None
    return Row([*item.context, *manner.before(chat, thinks, item.inside)], tokens[span]), span


def opens_trace(drift: ProbeDrift, start: Result, chat: Chat) -> bool:
    """Whether the policy opens a trace here: likelier than not, or within what it would say just as its start did."""
    said = start.answer
    as_before = said is not None and said.thinks and chat.answer(said.tokens[: drift.same], False).thinks
    return drift.thinks >= 0.5 or as_before


def _sweep(
    policy: Any, reference: Reference, asked: Sequence[_Asked], asking: Asking, told: Told
) -> list[tuple[list[float], int, int]]:
    """
    Both models over the same targets, batch by batch.

    Returns:
        `list`: of each answer as it stands the KL at every token, how many tokens the policy would say too, and the one with
        which it departs (-1: it does not). What is read beside it goes into `told`.
    """
    results: list[tuple[list[float], int, int]] = []
    for portion, teacher in _teachers(reference, [each.item for each in asked], asking):
        results += _held_against(policy, teacher, asked[portion], asking, told)
    return results


def _held_against(
    policy: Any, teacher: Callable[[Sequence[Item]], _Heard], asked: Sequence[_Asked], asking: Asking, told: Told
) -> list[tuple[list[float], int, int]]:
    """The policy over the targets of a portion, see [`_sweep`]."""
    results: dict[int, tuple[list[float], int, int]] = {}
    head = read_head(policy)
    rows = [([row for row, _ in each.wanted], each.beside) for each in asked]
    for batch, hidden in read(policy, head, rows, asking, told):
        part = [asked[i] for i in batch]
        kept, head_p = teacher([each.item for each in part])
        spans = [whole[span] for whole, each in zip(kept, part, strict=True) for _, span in each.wanted]
        targets = [token for each in part for row, _ in each.wanted for token in row.target]
        targets_q = torch.tensor(targets, device=hidden.device)
        words = len(asking.chat.tokenizer)
        found = kl_tokens(torch.cat(spans).to(hidden.device), head_p, hidden, head, targets_q, words=words)
        agree = _agree(found, targets, head, rounding(policy))
        kl, argmax = found["kl"].tolist(), found["argmax"].tolist()
        start = 0
        for i, each in zip(batch, part, strict=True):
            for k, (row, _) in enumerate(each.wanted):
                stop = start + len(row.target)
                told.kls[each.item.id, row.key] = kl[start:stop]
                if each.raw and k == 0:
                    if each.kept and head.weight is not None:  # not logits
                        told.hidden[row.key] = hidden[start:stop].clone()
                    results[i] = (kl[start:stop], *_same(each.item, agree[start:stop], argmax[start:stop], asking))
                start = stop
    return [results[i] for i in sorted(results)]


def _agree(found: Mapping[str, torch.Tensor], targets: Sequence[int], head: Head, near_by: float) -> list[bool]:
    """
    Whether the policy would say each token too: one within rounding of the top is the top, and which of them generation takes
    is chance; but where all are alike, as in a broken model, none is.

    What decoding rounds grows with a model's depth. The start did say each token: by as much as it lies below the start's own
    top, read as the policy is, decoding there was off.
    """
    near = found["behind"] - found["behind_p"] <= near_by * found["top"].abs().clamp(min=1)
    near &= found["logprob"] > log(_ALIKE / len(head))
    return (near.cpu() | (found["argmax"].cpu() == torch.tensor(targets))).tolist()


def _same(item: Item, agree: list[bool], argmax: Sequence[int], asking: Asking) -> tuple[int, int]:
    """How many tokens of an answer the policy would say too, and the one with which it departs."""
    if item.answer.forced:  # a trace was closed for it here, as it would be for the policy
        closed = asking.chat.forced_tokens(item.answer)
        agree[closed] = [True] * len(agree[closed])
        if closed.start < asking.tokens.trace:  # it was not cut off: it ended, and so must the policy
            agree[closed.start] = argmax[closed.start] in asking.chat.eos_token_ids
    same = agree.index(False) if False in agree else len(agree)
    return same, argmax[same] if same < len(agree) else -1


def _teachers(
    reference: Reference, items: Sequence[Item], asking: Asking
) -> Iterator[tuple[slice, Callable[[Sequence[Item]], _Heard]]]:
    """What the policy is held against, and for which portion of the items; see [`hear`]."""
    cache = reference.cache
    if cache is not None and cache.has([item.id for item in items]):  # streamed from disk

        def stream(part: Sequence[Item]) -> _Heard:
            hidden, head = cache.teacher([item.id for item in part])
            return hidden.split([len(item.answer.tokens) for item in part]), head

        yield slice(0, len(items)), stream
        return

    def kept(found: Mapping[bytes, torch.Tensor], head: Head, part: Sequence[Item]) -> _Heard:
        return [found[item.row.key] for item in part], head

    for portion, found, head in hear(reference, [item.row for item in items], asking):
        yield portion, partial(kept, found, head)
