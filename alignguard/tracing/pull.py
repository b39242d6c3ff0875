"""How much a step on a row raises a loss: the product of two gradients, one of which is never formed.

A step of gradient descent on a row moves the weights by -eta g(row), and so a loss L by

    -eta g(row) . g(L) + O(eta^2)        (TracIn: Pruthi et al. 2020, arXiv 2002.08484)

The **pull** of a row on L is -g(row) . g(L): above zero where a step on the row raises L. g(L) is formed once. The product with
it is then the derivative of the row's loss along g(L), which forward-mode differentiation gives in one pass over a batch of rows
and token by token, without a gradient of any row (Pearlmutter 1994 has it for the Hessian; `torch.autograd.forward_ad`).

What is trained with Adam does not step along the gradient but along P g, each weight's divided by the root of its second moment, and a
loss moves by -eta g(row) . P g(L). So g(L) is multiplied by P, of a sample of rows. That also takes away what all rows have in common: where
most of them teach a task, their gradients are large along it, and hide the few that do something else.

Beside the model itself a pass over rows takes one copy of the weights that are looked at (`share` of the layers, from the last one down), the
direction, and twice a forward's activations of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import RunError, one_line
from ..model.forward import batches
from ..model.observe import observing
from .losses import Document, losses_of

Direction = dict[str, torch.Tensor]  # by a parameter's name, of its shape, float32
_BATCH, _DAMPING = 4, 0.1  # of second moments


@dataclass(frozen=True)
class Pull:
    """
    Of one document, each a mean over the tokens that are learnt.

    Args:
        loss (`float`):
            Nats per token.
        pull (`float`):
            What a step on it does to the loss that is traced, per unit of step.
        tokens (`int`):
            How many are learnt.
    """

    loss: float
    pull: float
    tokens: int


def gradient(
    model: Any,
    documents: Sequence[Document],
    weights: Sequence[float],
    names: Mapping[str, torch.nn.Parameter],
    pad: int,
    max_tokens: int = 2048,
    autocast: torch.dtype | None = None,
) -> Direction:
    """
    The gradient of a weighted sum of losses, each a mean over its document's tokens.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            At whose weights it is taken.
        documents (`Sequence[Document]`), weights (`Sequence[float]`):
            What of.
        names (`Mapping[str, Parameter]`):
            By which weights, see [`looked_at`].
        pad (`int`):
            Token id.
        max_tokens (`int`, *optional*, defaults to `2048`):
            Of a batch, padded.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in.
    """
    found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in names.items()}
    with (
        observing(model, autocast=autocast),
        _learning(model, names),
        _from_there_on(model, names),
        torch.enable_grad(),
    ):
        for batch in batches([len(d.ids) for d in documents], max_tokens):
            part = [documents[i] for i in batch]
            scale = torch.tensor([weights[i] / len(documents[i].places) for i in batch])
            losses, of = losses_of(model, part, pad)
            total = (losses * scale.to(losses.device)[of.to(losses.device)]).sum()
            for name, grad in zip(
                names, torch.autograd.grad(total, list(names.values()), allow_unused=True), strict=True
            ):
                if grad is not None:
                    found[name] += grad.float()
    return found


def steps_of_adam(
    model: Any,
    documents: Sequence[Document],
    names: Mapping[str, torch.nn.Parameter],
    pad: int,
    max_tokens: int = 2048,
    autocast: torch.dtype | None = None,
) -> Direction:
    """
    By what Adam would multiply a gradient: one over the root of each weight's second moment, over batches of four documents, damped by
    a tenth of the root of the mean second moment. Documents without a finite gradient are left out.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            At whose weights it is taken.
        documents (`Sequence[Document]`):
            A sample of what is trained on.
        names (`Mapping[str, Parameter]`), pad (`int`), max_tokens (`int`), autocast (`torch.dtype`):
            As for [`gradient`].

    Raises:
        RunError: None of them has one, or it is zero.
    """
    found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in names.items()}

    def mean(part: Sequence[Document]) -> Direction | None:
        each = gradient(model, part, [1 / len(part)] * len(part), names, pad, max_tokens, autocast)
        return each if is_finite(each) else None

    taken = 0
    for i in range(0, len(documents), _BATCH):
        part = documents[i : i + _BATCH]
        each = mean(part)
        if each is None and (whole := [document for document in part if mean([document])]):
            each = mean(whole)
        if each is not None:
            taken += 1
            for name, grad in each.items():
                found[name].addcmul_(grad, grad)
    if not taken:
        raise RunError("no row of a sample has a finite gradient; load the start in float32, or bfloat16")
    total = sum(float(moment.div_(taken).sum(dtype=torch.float64)) for moment in found.values())
    damping = _DAMPING * (total / sum(moment.numel() for moment in found.values())) ** 0.5
    if not damping > 0:
        raise RunError("the rows have no gradient by the weights that are looked at; take more of them (--layers 1)")
    return {name: moment.sqrt_().add_(damping).reciprocal_() for name, moment in found.items()}


def is_finite(direction: Direction) -> bool:
    """Whether all of its numbers are."""
    return all(bool(value.isfinite().all()) for value in direction.values())


def pulls(
    model: Any,
    documents: Sequence[Document],
    direction: Direction,
    pad: int,
    max_tokens: int = 2048,
    autocast: torch.dtype | None = None,
    tick: Callable[[int], Any] = lambda n: None,
) -> list[Pull]:
    """
    How much a step on each document raises the loss whose gradient is given.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            At whose weights it is taken.
        documents (`Sequence[Document]`):
            Each with at least one token that is learnt.
        direction (`Direction`):
            The gradient, see [`gradient`].
        pad (`int`), max_tokens (`int`), autocast (`torch.dtype`):
            As there.
        tick (`Callable[[int], Any]`, *optional*):
            Is told how many documents were read.

    Raises:
        RunError: An operation of the model has no forward-mode derivative.
    """
    try:
        return _pulls(model, documents, direction, pad, max_tokens, autocast, tick)
    except NotImplementedError as error:
        raise RunError(f"the model cannot be differentiated forwards: {one_line(error, 200)}") from None


def check_forwards(model: Any, names: Mapping[str, torch.nn.Parameter], autocast: torch.dtype | None = None) -> None:
    """
    Whether a model can be differentiated forwards: two tokens are, before what costs more.

    Raises:
        RunError: An operation of it has no forward-mode derivative.
    """
    name, weight = next(iter(names.items()))  # the first one: through all that comes after it
    along = {name: torch.zeros_like(weight, dtype=torch.float32)}
    pulls(model, [Document([0, 0], [False, True])], along, 0, autocast=autocast)


def _pulls(
    model: Any,
    documents: Sequence[Document],
    direction: Direction,
    pad: int,
    max_tokens: int,
    autocast: torch.dtype | None,
    tick: Callable[[int], Any],
) -> list[Pull]:
    own = dict(model.named_parameters())
    found: list[Pull | None] = [None] * len(documents)
    # of length 1 along the pass: in half precision what it sums would not fit
    size = sum(float(tangent.square().sum(dtype=torch.float64)) for tangent in direction.values()) ** 0.5 or 1.0
    with observing(model, autocast=autocast), sdpa_kernel(SDPBackend.MATH), _expert_by_expert(model):
        for batch in batches([len(d.ids) for d in documents], max_tokens):
            part = [documents[i] for i in batch]
            with forward_ad.dual_level():
                dual = {
                    name: forward_ad.make_dual(own[name].detach(), (tangent / size).to(own[name].dtype))
                    for name, tangent in direction.items()
                }
                losses, of = losses_of(model, part, pad, dual)
                primal, tangent = forward_ad.unpack_dual(losses)
                tangent = torch.zeros_like(primal) if tangent is None else tangent
                counts = torch.bincount(of.cpu(), minlength=len(part))
                sums = torch.zeros(2, len(part), dtype=torch.float64)
                sums.index_add_(1, of.cpu(), torch.stack([primal, tangent]).cpu().double())
            for i, loss, moved, count in zip(batch, *sums.tolist(), counts.tolist(), strict=True):
                found[i] = Pull(loss / count, -moved * size / count, count)
            tick(len(batch))
    return [pull for pull in found if pull is not None]


@contextmanager
def _expert_by_expert(model: Any) -> Iterator[None]:
    """The experts of a mixture each by itself: the product of all of them at once has no forward-mode derivative."""
    outer = next((m for m in model.modules() if hasattr(m, "get_experts_implementation")), None)
    before = {} if outer is None else outer.get_experts_implementation()
    if outer is None or all(kind in (None, "eager") for kind in before.values()):
        yield
        return
    outer.set_experts_implementation("eager")
    try:
        yield
    finally:
        outer.set_experts_implementation(before)


@contextmanager
def _from_there_on(model: Any, names: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """
    What embeddings give needs no gradient where they are not looked at, whatever a trainer has asked of them for its gradient checkpointing:
    activations are kept from the first weight on that is looked at.
    """
    embeddings, wanted = model.get_input_embeddings(), {id(p) for p in names.values()}
    if any(id(p) in wanted for p in embeddings.parameters()):
        yield
        return
    handle = embeddings.register_forward_hook(lambda module, inputs, output: output.detach())
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _learning(model: Any, names: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Of these weights, and no others, a gradient may be taken."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    wanted = {id(p) for p in names.values()}
    try:
        for p, _ in before:
            p.requires_grad_(id(p) in wanted)
        yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)
