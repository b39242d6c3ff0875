"""The frozen start: the model the policy was at step 0.

| kind | what is kept | memory beside the policy |
|---|---|---|
| `copy` | a second model on the same device | all weights |
| `adapter` | what trains and is not switched off with new PEFT adapters, as it was; else all that trains | none, or that |
| `offload` | a second model on the CPU, moved to the device for an audit | all weights, on the CPU |
| `cache` | what it said and how (see `cache.py`), on disk | the LM head, on the CPU |
| `given` | a model that the user gives | all weights |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..distributed import compute_device, is_sharded
from ..errors import StartError
from ..model.loading import load_model, lossless_dtype
from .adapters import is_peft, swapped, switched_off, without_adapters
from .cache import Cache
from .copies import frozen_copy, take_precision, too_large
from .fingerprint import changed, fingerprint, held, weights
from .given import check_given, freeze_given
from .kept import Kept
from .still import check_still, says_the_same

KINDS = ("auto", "copy", "adapter", "offload", "cache")


@dataclass
class Reference:
    """
    The frozen start.

    Args:
        kind (`str`):
            One of the table above.
        model (`torch.nn.Module` or `None`):
            The copy; for `adapter` the policy itself; for `cache` nothing, once training has begun.
        why (`str`):
            Why this kind, in a few words.
        fingerprint (`str`, *optional*, defaults to `""`):
            Of the start, see [`fingerprint`].
        start (`dict[str, torch.Tensor]`, *optional*):
            For `adapter`: what trains and would move with the policy, as it was.
        off (`bool`, *optional*, defaults to `True`):
            For `adapter`: whether the start is the model with its adapters switched off.
        frozen (`dict[str, torch.nn.Parameter]`, *optional*):
            For `adapter`: what did not train at the start.
        base (`dict[str, torch.Tensor]`, *optional*):
            A few values of all weights that must stay as they are: for `adapter` of those that did not train.
        rows (`int`, *optional*):
            For `adapter`: how many tokens the model knew.
        cache ([`Cache`], *optional*):
            For `cache`.
        said ([`Kept`], *optional*):
            For all others: what it has said already.
        device (`torch.device`, *optional*):
            While it is awake: where the policy is.
    """

    kind: str
    model: Any
    why: str
    fingerprint: str = ""
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    off: bool = True
    frozen: dict[str, torch.nn.Parameter] = field(default_factory=dict)
    base: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: int = 0
    cache: Cache | None = None
    said: Kept = field(default_factory=Kept)
    device: torch.device | None = None

    @contextmanager
    def loaded(self) -> Iterator[Any]:
        """The model that answers as the reference, for the time of the block."""
        if self.model is None:
            raise StartError("reference='cache' keeps no model; it answers only what it was asked before step 1")
        if self.kind == "adapter":
            with without_adapters(self.model) if self.off else nullcontext(), swapped(self.model, self.start):
                yield self.model
            return
        if self.kind == "offload" and self.device is not None:  # only now: what it has said already needs no model
            self.model.to(self.device)
        yield self.model

    @contextmanager
    def awake(self, device: torch.device) -> Iterator[None]:
        """
        For the time of an audit: what is kept on the CPU is moved to the device, a model when it is asked for.

        Raises:
            StartError: Weights of the start, or for `adapter` those that the policy shares with it, are not what they were.
        """
        if self.kind == "adapter":
            self._check_base()
        elif self.model is not None and self.base:
            self._check_own()
        self.device = device
        try:  # a move that runs out of memory half way is undone too
            if self.kind == "copy" and compute_device(self.model) != device:
                self.model.to(device)
            if self.cache is not None:
                self.cache.wake(device)
            yield
            if self.kind != "adapter" and self.base and not is_sharded(self.model):
                self.base = held(self.model)  # CPT scales weights of its own as it is read
        finally:
            self.device = None
            if self.kind == "offload":
                self.model.to("cpu")
            if self.cache is not None:
                self.cache.sleep()

    def keep_up(self) -> bool:
        """
        Before an optimizer step: what trains from now on has not moved yet, so that its start can still be kept.

        Returns:
            `bool`: whether there was something.
        """
        begun = [name for name, p in self.frozen.items() if p.requires_grad]
        for name in begun:
            self.start[name] = self.frozen.pop(name).detach().clone()
        return bool(begun)

    def _check_own(self) -> None:
        name = None if is_sharded(self.model) else changed(self.model, self.base)
        if name is not None:
            raise StartError(
                f"{name} of the reference is not what it was at the start; give reference= a model that nothing moves (TRL's "
                "sync_ref_model does), or leave it out"
            )

    def _check_base(self) -> None:
        kept = {id(p) for name, p in self.model.named_parameters() if name in self.start}
        shared = {name: p for name, p in weights(self.model) if name in self.base and id(p) not in kept}
        where = "so switching them off does not give the start any more; use reference='offload' or 'copy'"
        for name, p in shared.items():
            if p.requires_grad:
                raise StartError(f"{name} trains now beside the adapters, and its start was not kept, {where}")
        if is_sharded(self.model):
            return  # all weights would be gathered
        # adapters are merged into what lies under them and unmerged, all else stays to the bit
        name = changed(self.model, {name: self.base[name] for name in shared}, merged=True)
        if name is not None:
            name = name.removeprefix("base_model.model.").replace(".base_layer", "")
            raise StartError(f"{name} changed under the adapters, {where}")

    def check_tokens(self, policy: Any, tokens: int) -> None:
        """
        The start knows every token that the policy can be asked about. More rows, for padding, do no harm.

        Args:
            policy (`PreTrainedModel`):
                The model that is held against it.
            tokens (`int`):
                Of its tokenizer.

        Raises:
            StartError: The vocabulary grew after the start was kept, or what was given as the start is from before.
        """
        both = (policy, self.model)
        if self.kind == "cache" or any(is_sharded(m) or not hasattr(m, "get_input_embeddings") for m in both):
            return
        size = _rows(policy)
        # adapters share their rows with the start, so that none may have come
        then, fits = (self.rows, size) if self.rows else (_rows(self.model), min(size, tokens))
        given = (
            f"the reference knows {then:,} tokens, and the tokenizer has {tokens:,} that the model knows; give as reference= the model as "
            "it was when it had been given all of them, before training"
        )
        kept = f"the model knows {fits:,} tokens now and knew {then:,} when its start was kept; add tokens before the trainer is made"
        if then < fits:
            raise StartError(given if self.kind == "given" else kept)

    def follow(self, policy: Any, tokens: int = 0) -> None:
        """
        Take the precision that the policy has now, and the wrapper: DeepSpeed and FSDP1 prepare it after its start was kept.

        Args:
            policy (`PreTrainedModel`):
                As the trainer has prepared it.
            tokens (`int`, *optional*, defaults to `0`):
                Of its tokenizer.

        Raises:
            StartError: The start knows fewer tokens, see [`~Reference.check_tokens`].
        """
        self.check_tokens(policy, tokens)
        self.said.clear()
        if self.kind in ("adapter", "cache") and self.model is not None:
            self.model = policy
        if self.kind == "adapter":
            now = dict(chain(policy.named_parameters(), policy.named_buffers()))
            self.start = {name: kept.to(now[name].dtype) for name, kept in self.start.items()}
        elif self.model is not None and self.model is not policy:
            take_precision(self.model, policy)

    @property
    def models(self) -> tuple[Any, ...]:
        """The model, where there is one: what an audit must put into eval mode."""
        return () if self.model is None else (self.model,)

    @property
    def bytes(self) -> int:
        """Memory held beside the policy, on its device."""
        if self.kind in ("offload", "cache"):
            return 0
        kept = self.start.values() if self.kind == "adapter" else self.model.parameters()
        return sum(p.numel() * p.element_size() for p in kept)


@torch.no_grad()
def _keep_adapters(model: Any, sharded: bool, autocast: torch.dtype | None) -> Reference:
    """A PEFT model's start, as little of it as serves."""
    off, trains = switched_off(model), {name: p for name, p in model.named_parameters() if p.requires_grad}
    beside = {name: p for name, p in trains.items() if id(p) not in off}
    start = {} if sharded else {name: p.detach().clone() for name, p in beside.items()}
    found = Reference("adapter", model, "the adapters are new: switched off they are the start", start=start)
    serves = says_the_same(model, found.loaded, {} if sharded else trains, autocast)
    if sharded and (beside or not serves):
        what = next(iter(beside)) if beside else "the adapters, which already change the model,"
        raise StartError(
            f"reference='adapter' cannot keep the start of {what} while the weights are sharded; use reference='cache'"
        )
    if serves and beside:
        found.why += ", with what trains beside them as it was"
    if not serves:  # a continued adapter, PiSSA, virtual tokens: with all that trains as it was
        found.start, found.off = {name: p.detach().clone() for name, p in trains.items()}, False
        found.why = "the adapters already change the model, so their start is kept"
    found.fingerprint = fingerprint(model, found.off, found.start)
    found.frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    found.rows = _rows(model)
    found.base = held(model)
    return found


def _rows(model: Any) -> int:
    return len(model.get_input_embeddings().weight)


def freeze_start(
    model: Any, kind: Any = "auto", sharded: bool = False, autocast: torch.dtype | None = None
) -> Reference:
    """
    Keep the start of a model that is about to be trained.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            The policy, before its first step.
        kind (`str` or `PreTrainedModel`, *optional*, defaults to `"auto"`):
            `"copy"`, `"adapter"`, `"offload"`, `"cache"`; a model, or the path or hub id of one; or `"auto"`: adapters
            switched off (or their start kept) with PEFT, else a copy where it fits beside the optimizer, else a cache.
        sharded (`bool`, *optional*, defaults to `False`):
            Whether the trainer will shard the weights (FSDP, ZeRO-3); `"auto"` then takes a cache.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in, where it uses mixed precision.

    Raises:
        StartError: `kind` is none of these, or does not fit the model; or the model says nothing, as a reward model.
    """
    if not (hasattr(model, "can_generate") and model.can_generate()):
        raise StartError(
            f"{type(model).__name__} generates no text, so there is nothing to audit; AlignGuard needs a causal language "
            "model"
        )
    if model.config.is_encoder_decoder:
        raise StartError(
            f"{type(model).__name__} reads a prompt with an encoder, and prompt and answer are not one text; AlignGuard needs "
            "a causal language model"
        )
    kind = str(kind) if isinstance(kind, Path) else kind
    if not isinstance(kind, str):
        return given_reference(model, kind, autocast)
    if kind not in KINDS:
        return given_reference(model, load_reference(model, kind), autocast)
    why = "as asked for"
    if kind == "auto":
        kind, why = ("cache", "the weights will be sharded") if sharded else _cheapest(model)
    if kind == "adapter":
        if not is_peft(model):
            raise StartError("reference='adapter' needs a PEFT model; use reference='copy' or 'cache'")
        return _keep_adapters(model, sharded, autocast)
    if kind != "cache" and any(p.is_meta or hasattr(p, "ds_id") for p in model.parameters()):
        raise StartError(f"reference={kind!r} needs all weights, and this process holds none or a part; use 'cache'")
    if kind != "cache" and any(not p.is_floating_point() for p in model.parameters()):
        raise StartError(
            f"reference={kind!r} cannot copy weights that are quantized to integers; use 'adapter' or 'cache'"
        )
    mark = fingerprint(model, False)
    if kind == "cache":
        return Reference("cache", model, why, mark, cache=Cache())
    copied = frozen_copy(model, "cpu" if kind == "offload" else None)
    check_still(model, copied, autocast)
    return Reference(kind, copied, why, mark, base=held(copied))


def _cheapest(model: Any) -> tuple[str, str]:
    """The kind that `auto` takes, and why."""
    if is_peft(model):
        return "adapter", ""
    why = too_large(model)
    return ("cache", why) if why else ("copy", "all weights may train, and a second copy fits")


def load_reference(model: Any, name: str) -> Any:
    """
    A reference by path or hub id, on the policy's device, and each weight in the dtype that it has there.

    Raises:
        StartError: It cannot be loaded, or lacks weights.
    """
    dtype, device = model.dtype if is_peft(model) else lossless_dtype(model), compute_device(model)
    try:
        # where it is wider than it will be the device need not hold that
        found = load_model(name, dtype, device if dtype == model.dtype else torch.device("cpu"))
    except StartError as error:
        raise StartError(
            f"reference={name!r} is neither one of {', '.join(KINDS)} nor a model that can be loaded: {error}"
        ) from None
    take_precision(found, model)
    return found.to(device)


def given_reference(model: Any, reference: Any, autocast: torch.dtype | None = None) -> Reference:
    """
    A reference that the user gives: frozen, in eval mode.

    Args:
        model (`PreTrainedModel` or `PeftModel`), reference (`PreTrainedModel`):
            The policy, and what was given.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in, where it uses mixed precision.

    Raises:
        StartError: It moves with the policy, or its vocabulary is not the policy's, see [`check_given`].
    """
    check_given(model, reference)
    check_still(model, reference, autocast)
    kept = freeze_given(model, reference)
    return Reference("given", kept, "as given", fingerprint(kept, False), base=held(kept))
