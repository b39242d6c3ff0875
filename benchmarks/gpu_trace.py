"""A check of `gpu.py`: pulls of rows by forward-mode differentiation, against gradients of each row, and what they cost."""

from __future__ import annotations

import numpy as np
import torch
from gpu_machine import GIB, Figure, Machine, random_model, vocabulary

from alignguard.tracing.layers import looked_at
from alignguard.tracing.losses import Document
from alignguard.tracing.pull import gradient, pulls
from alignguard.tracing.trace import SHARE


def traced(machine: Machine) -> dict[str, Figure]:
    """Pulls at 1.5B: right, in a bounded memory, and in how many forward passes."""
    rows, tokens = (6, 24) if machine.tiny else (16, 1024)
    exact = _against_gradients(machine, torch.float32)
    rounded = _against_gradients(machine, torch.bfloat16)
    model = random_model(machine, "1.5B")
    documents, weights = _documents(machine, rows, tokens), looked_at(model, SHARE)
    direction = gradient(model, documents[:4], [1.0, 1.0, -1.0, -1.0], weights, 0)
    ids = torch.tensor([document.ids for document in documents], device=machine.device)  # (rows, tokens)

    @torch.no_grad()
    def forward() -> None:
        for part in ids.split(2):
            model.model(input_ids=part)

    forward()
    plain = machine.seconds(forward)
    pulls(model, documents[:2], direction, 0)
    machine.clear()
    before = machine.allocated()
    seconds = machine.seconds(lambda: pulls(model, documents, direction, 0))
    peak = machine.peak()
    scratch = None if peak is None else peak - before / GIB
    numbers = sum(p.numel() for p in weights.values())
    bound = 4 * numbers / GIB + 4  # a copy of the weights that are looked at, and activations of one batch
    return {
        "relative_error": Figure(exact, "< 1e-3, of gradients'", exact < 1e-3),
        "bf16_correlation": Figure(rounded, "> 0.95, with float32's", rounded > 0.95),
        "forwards": machine.cost(seconds / plain, "< 4, of the layers alone", lambda n: n < 4),
        "scratch_gib": machine.cost(scratch, f"< {bound:.1f} GiB", lambda g: g < bound),
    }


def _documents(machine: Machine, rows: int, tokens: int) -> list[Document]:
    """Random rows, half of each learnt."""
    drawn = np.random.default_rng(0).integers(0, vocabulary(machine), (rows, tokens))
    return [Document(ids.tolist(), [i >= tokens // 2 for i in range(tokens)]) for ids in drawn]


def _against_gradients(machine: Machine, dtype: torch.dtype) -> float:
    """Of a small model the largest error of its pulls, relative to the largest pull; in bfloat16 their correlation with float32's."""
    model = random_model(Machine(tiny=True), "tiny", torch.float32)
    documents = _documents(Machine(tiny=True), 8, 24)
    weights = looked_at(model, 0.5)
    names = list(weights)

    def gradients(document: Document) -> list[torch.Tensor]:
        ids = torch.tensor([document.ids], device=machine.device)
        with torch.enable_grad():
            logits = model(input_ids=ids).logits[0, :-1].float()
            places = torch.tensor([i - 1 for i in document.places], device=machine.device)
            loss = torch.nn.functional.cross_entropy(logits[places], ids[0, places + 1])
            return list(torch.autograd.grad(loss, [weights[name] for name in names]))

    each = [gradients(document) for document in documents]
    along = [a - b for a, b in zip(each[0], each[1], strict=True)]
    right = np.array([-sum((g * a).sum().item() for g, a in zip(own, along, strict=True)) for own in each])
    model.to(dtype)
    direction = gradient(model, documents[:2], [1.0, -1.0], looked_at(model, 0.5), 0)
    found = np.array([pull.pull for pull in pulls(model, documents, direction, 0)])
    if dtype is torch.float32:
        return float(np.abs(found - right).max() / np.abs(right).max())
    return float(np.corrcoef(found, right)[0, 1])
