"""What a model says at rows of tokens: a prompt is read once for all that hangs on it, and no row twice in an audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..drift.kl import logprob_nodes
from ..drift.reference import Reference
from ..model.forward import Row, batches, idle
from ..model.head import Head, batch_limit, node_hidden, read_head
from ..model.trees import padded, why_apart
from .asking import Asking


@dataclass
class Told:
    """
    What one model has told in one audit.

    Args:
        sums (`dict[bytes, float]`, *optional*):
            Log-probability of a row's whole target in nats, by the row's key.
        kls (`dict[tuple[str, bytes], list[float]]`, *optional*):
            KL to the reference at every token, in nats, by the id of whose answer it is and the row's key.
        hidden (`dict[bytes, torch.Tensor]`, *optional*):
            Hidden states at a few rows that will be asked for again, by the row's key.
    """

    sums: dict[bytes, float] = field(default_factory=dict)
    kls: dict[tuple[str, bytes], list[float]] = field(default_factory=dict)
    hidden: dict[bytes, torch.Tensor] = field(default_factory=dict)


def read(
    model: Any,
    head: Head,
    asked: Sequence[tuple[Sequence[Row], Sequence[Row]]],
    asking: Asking,
    told: Told,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """
    Read what hangs on each prompt, batch by batch, so that nothing of a batch outlives it.

    Args:
        model (`PreTrainedModel`):
            The one that is read.
        head ([`Head`]):
            Its own.
        asked (`Sequence[tuple[Sequence[Row], Sequence[Row]]]`):
            Of each prompt the rows whose hidden states are wanted, and those of which only the log-probability is; the row with
            the shortest context first.
        asking (`Asking`):
            How the model is asked.
        told (`Told`):
            Where the log-probabilities go.

    Yields:
        Which prompts are in a batch, and the hidden states that the wanted rows' targets are predicted from, joined, (n, d).
    """
    why_apart(model)  # a trial the first time, and of a sharded model everyone's, also of a process that has no rows
    everything = [[*wanted, *others] for wanted, others in asked]
    plan = list(batches([padded(model, rows) for rows in everything], batch_limit(asking.tokens.batch_tokens, head)))
    # on the plain path each row takes a forward of its own
    forwards = len(plan) if head.weight is not None else sum(map(len, everything))
    idles = asking.ranks.rounds(forwards) - forwards
    for batch in plan:
        rows = [row for i in batch for row in everything[i]]
        hidden, at = node_hidden(model, rows, asking.chat.pad_token_id, head)
        parts = iter(at.split([len(row.target) for row in rows]))
        wanted, beside = [], []
        for i in batch:
            wanted += [next(parts) for _ in asked[i][0]]
            beside += [(row, next(parts)) for row in asked[i][1]]
        if beside:
            told.sums |= _sums(hidden, head, beside)
        yield batch, hidden[torch.cat(wanted).to(hidden.device)] if wanted else hidden[:0]
    for _ in range(idles):
        idle(model, asking.chat.pad_token_id)


def hear(
    reference: Reference, rows: Sequence[Row], asking: Asking, keep: bool = True
) -> Iterator[tuple[slice, dict[bytes, torch.Tensor], Head]]:
    """
    What the start says at some rows: from what is kept, and what is not is asked. A start that waits on the CPU is moved only if
    it must be asked.

    Hidden states are small, and are given all at once. Logits, on the plain path, are thousands of times as large: they are given
    portion by portion, each to be let go before the next.

    Args:
        reference ([`Reference`]):
            The frozen start, with a model.
        rows (`Sequence[Row]`):
            What is read.
        asking (`Asking`):
            How.
        keep (`bool`, *optional*, defaults to `True`):
            Whether these rows are likely to come back.

    Yields:
        Which rows are in a portion; by the row's key its hidden states on the CPU, (tokens, d); and the start's LM head on the
        policy's device.
    """
    portions = _portions(rows, _own_head(reference, rows), asking)
    portions += [slice(0, 0)] * (asking.ranks.rounds(len(portions)) - len(portions))
    for portion in portions:
        yield portion, *_heard(reference, rows[portion], asking, keep)


def _own_head(reference: Reference, rows: Sequence[Row]) -> Head:
    """The start's LM head, where its model is now."""
    if _sleeps(reference) and all(reference.said.get(row) is not None for row in rows):
        return read_head(reference.model)
    with reference.loaded() as frozen:
        return read_head(frozen)


def _sleeps(reference: Reference) -> bool:
    """Whether its model waits on the CPU, and would have to be moved to be asked."""
    return reference.kind == "offload" and reference.device is not None


def _portions(rows: Sequence[Row], head: Head, asking: Asking) -> list[slice]:
    """Neighbours that are heard at once: all, or as many as have the logits of a batch."""
    if head.weight is not None:
        return [slice(0, len(rows))]
    most, starts, tokens = batch_limit(asking.tokens.batch_tokens, head), [0], 0
    for i, row in enumerate(rows):
        tokens += len(row.target)
        if tokens > most and i > starts[-1]:
            starts.append(i)
            tokens = len(row.target)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True)]


def _heard(
    reference: Reference, rows: Sequence[Row], asking: Asking, keep: bool
) -> tuple[dict[bytes, torch.Tensor], Head]:
    said = reference.said
    found = {row.key: kept for row in rows if (kept := said.get(row)) is not None}
    missing = list({row.key: row for row in rows if row.key not in found}.values())
    if _sleeps(reference) and not missing:
        assert reference.device is not None
        return found, read_head(reference.model).to(reference.device)
    with reference.loaded() as frozen:
        head = read_head(frozen)
        for batch, hidden in read(frozen, head, [([row], ()) for row in missing], asking, Told()):
            parts = hidden.split([len(missing[i].target) for i in batch])
            for row, part in zip([missing[i] for i in batch], parts, strict=True):
                found[row.key] = part.to("cpu", copy=True)
                if keep:
                    said.put(row, part)
    return found, head


def _sums(hidden: torch.Tensor, head: Head, rows: Sequence[tuple[Row, torch.Tensor]]) -> dict[bytes, float]:
    """Log-probability of each row's whole target; a hidden state that predicts several is multiplied with the head once."""
    nodes, at = torch.cat([at for _, at in rows]).unique(return_inverse=True)
    targets = torch.tensor([token for row, _ in rows for token in row.target])
    device = hidden.device
    found = logprob_nodes(hidden[nodes.to(device)], head, at.to(device), targets.to(device))
    sums = torch.stack([part.sum() for part in found.split([len(row.target) for row, _ in rows])]).tolist()
    return {row.key: value for (row, _), value in zip(rows, sums, strict=True)}
