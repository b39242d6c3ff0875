"""The frozen start: the model the policy was at step 0.

| kind | what is kept | memory beside the policy |
|---|---|---|
| `copy` | a second model on the same device | all weights |
| `adapter` | nothing, where new PEFT adapters are switched off; else the start of what trains | none, or the adapters |
| `offload` | a second model on the CPU, moved to the device for an audit | all weights, on the CPU |
| `cache` | what it said and how (see `cache.py`), on disk | the LM head, on the CPU |
| `given` | a model that the user gives | all weights |

TRL replaces `model.forward` by a closure over the original model. A copy that keeps it runs the policy, and its KL reads
0 for ever; so copies shed every instance-level forward, and a reference whose own LM head is not called is an error
(see `forward.final_hidden`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..distributed import is_sharded
from ..errors import StartError
from ..model.forward import final_hidden
from ..model.loading import check_tokenizers, lacks_tokenizer, load_model, load_tokenizer
from ..model.observe import observing
from .cache import Cache
from .fingerprint import fingerprint, weight_samples

KINDS = ("auto", "copy", "adapter", "offload", "cache")
_CHECK_TOLERANCE = 1e-5  # of the largest hidden value: adapters that start at zero change nothing at all
_ROUNDING = 0.01  # of a weight's largest value: adapters that are merged and unmerged in bf16 leave that much behind
_ADAM_BYTES = 12  # a float32 gradient and two moments, for every weight that trains


logger = logging.getLogger(__name__)


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
            For `adapter`, where switching off is not the start: what trains, as it was.
        base (`dict[str, torch.Tensor]`, *optional*):
            For `adapter`: values of what lies under the adapters, as it was.
        cache ([`Cache`], *optional*):
            For `cache`.
    """

    kind: str
    model: Any
    why: str
    fingerprint: str = ""
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    base: dict[str, torch.Tensor] = field(default_factory=dict)
    cache: Cache | None = None

    @contextmanager
    def loaded(self) -> Iterator[Any]:
        """The model that answers as the reference, for the time of the block."""
        if self.model is None:
            raise StartError("reference='cache' keeps no model; it answers only what it was asked before step 1")
        if self.kind == "adapter" and not self.start:
            with without_adapters(self.model):
                yield self.model
        elif self.kind == "adapter":
            with _swapped(self.model, self.start):
                yield self.model
        else:
            yield self.model

    @contextmanager
    def awake(self, device: torch.device) -> Iterator[None]:
        """
        For the time of an audit: what is kept on the CPU is moved to the device.

        Raises:
            StartError: For `adapter`, the weights under the adapters are not what they were.
        """
        if self.kind == "adapter":
            self._check_base()
        try:  # a move that runs out of memory half way is undone too
            if self.kind == "offload" or (self.kind == "copy" and next(self.model.parameters()).device != device):
                self.model.to(device)
            if self.cache is not None:
                self.cache.wake(device)
            yield
        finally:
            if self.kind == "offload":
                self.model.to("cpu")
            if self.cache is not None:
                self.cache.sleep()

    def _check_base(self) -> None:
        if is_sharded(self.model):
            return  # all weights would be gathered
        for name, _, now in weight_samples(self.model, without_adapters=True):
            then = self.base.get(name, now)
            if not torch.allclose(now, then, rtol=0.0, atol=_ROUNDING * float(then.abs().amax()), equal_nan=True):
                raise StartError(
                    f"{name} changed under the adapters, so switching them off does not give the start any more; use "
                    "reference='offload' or 'copy'"
                )

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


def frozen_copy(model: Any, device: str | torch.device | None = None) -> Any:
    """
    A copy of a model that nothing done to the original can move.

    Every `forward` bound to an instance is dropped: it is a closure over the original's weights.

    Args:
        model (`torch.nn.Module`):
            What is copied; its gradients are not.
        device (`str` or `torch.device`, *optional*):
            Where to; weights go there one by one, so that the original's device never holds them twice.
    """
    memo: dict[int, Any] = {}
    for p in [*model.parameters(), *model.buffers()]:
        twin = p.detach().to(device or p.device, copy=True)
        memo[id(p)] = torch.nn.Parameter(twin, requires_grad=False) if isinstance(p, torch.nn.Parameter) else twin
    clone = copy.deepcopy(model, memo)
    for module in clone.modules():
        module.__dict__.pop("forward", None)
        module.__dict__.pop("_original_forward", None)
    return clone.eval().requires_grad_(False)


@contextmanager
def _swapped(model: Any, start: dict[str, torch.Tensor]) -> Iterator[None]:
    """What trains, as it was at the start, for the time of the block. Pointers are exchanged: nothing is rounded."""
    now: dict[str, torch.Tensor] = {}
    parameters = {name: p for name, p in model.named_parameters() if name in start}
    try:
        for name, p in parameters.items():
            now[name] = p.data
            p.data = start[name]
        torch.clear_autocast_cache()  # it keeps casts by parameter, whatever data the parameter points to
        yield
    finally:
        for name, data in now.items():
            parameters[name].data = data
        torch.clear_autocast_cache()


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """PEFT adapters off, for the time of the block. PEFT itself makes all of them trainable when it ends; here none is."""
    asked = [(p, p.requires_grad) for p in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for p, trains in asked:
            p.requires_grad_(trains)


def is_peft(model: Any) -> bool:
    """Whether a model carries PEFT adapters that can be switched off."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")


def _adapters_start_at_zero(model: Any) -> bool:
    """Whether switching the adapters off changes nothing: not so for a continued adapter, nor for PiSSA and the like."""
    device = next(model.parameters()).device
    ids = torch.arange(5, 21, device=device)[None] % model.config.get_text_config().vocab_size
    with observing(model):
        on = final_hidden(model, ids, torch.ones_like(ids))
        with without_adapters(model):
            off = final_hidden(model, ids, torch.ones_like(ids))
    return bool((on - off).abs().max() <= _CHECK_TOLERANCE * on.abs().max())


def freeze_start(model: Any, kind: Any = "auto", sharded: bool = False) -> Reference:
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

    Raises:
        StartError: `kind` is none of these, or does not fit the model; or the model says nothing, as a reward model.
    """
    if not (hasattr(model, "can_generate") and model.can_generate()):
        raise StartError(
            f"{type(model).__name__} generates no text, so there is nothing to audit; AlignGuard needs a causal language "
            "model"
        )
    kind = str(kind) if isinstance(kind, Path) else kind
    if not isinstance(kind, str):
        return given_reference(model, kind)
    if kind not in KINDS:
        return given_reference(model, load_reference(model, kind))
    why = "as asked for"
    if kind == "auto":
        kind, why = ("cache", "the weights will be sharded") if sharded else _cheapest(model)
    if kind == "adapter":
        if not is_peft(model):
            raise StartError("reference='adapter' needs a PEFT model; use reference='copy' or 'cache'")
        base = {name: values for name, _, values in weight_samples(model, without_adapters=True)}
        if _adapters_start_at_zero(model):
            why = "the adapters are new: switched off they are the start"
            return Reference("adapter", model, why, fingerprint(model, True), base=base)
        start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        why = "the adapters already change the model, so their start is kept"
        return Reference("adapter", model, why, fingerprint(model, False), start, base)
    if kind != "cache" and any(p.is_meta or hasattr(p, "ds_id") for p in model.parameters()):
        raise StartError(f"reference={kind!r} needs all weights, and this process holds none or a part; use 'cache'")
    mark = fingerprint(model, False)
    if kind == "cache":
        return Reference("cache", model, why, mark, cache=Cache())
    return Reference(kind, frozen_copy(model, "cpu" if kind == "offload" else None), why, mark)


def _cheapest(model: Any) -> tuple[str, str]:
    """The kind that `auto` takes, and why."""
    if is_peft(model):
        return "adapter", ""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    device = next(model.parameters()).device
    if device.type == "cuda":
        # of all memory, not of what happens to be free: the choice is the same on every rank, and on resume
        total = torch.cuda.get_device_properties(device).total_memory
        training = sum(p.numel() * _ADAM_BYTES for p in model.parameters() if p.requires_grad)
        if 2 * weights + training > 0.6 * total:
            return "cache", f"a copy of {weights / 2**30:.1f} GiB might not fit beside the optimizer"
    return "copy", "all weights may train, and a second copy fits"


def load_reference(model: Any, name: str) -> Any:
    """
    A reference by path or hub id, in the policy's dtype and on its device.

    Raises:
        StartError: It cannot be loaded, or lacks weights.
    """
    first = next(model.parameters())
    try:
        return load_model(name, first.dtype, first.device)
    except StartError as error:
        raise StartError(
            f"reference={name!r} is neither one of {', '.join(KINDS)} nor a model that can be loaded: {error}"
        ) from None


def check_reference_tokenizer(name: str, tokenizer: Any, say: bool = True) -> None:
    """
    Hold the tokenizer of a reference by path or hub id against the one that both models are asked with. A reference that
    has none is said so, once.

    Raises:
        StartError: They differ, or it cannot be read.
    """
    theirs = load_tokenizer(name)
    if theirs is None:
        level = logging.WARNING if say else logging.DEBUG
        logger.log(level, f"AlignGuard: {lacks_tokenizer(name, 'the model that trains')}")
    else:
        check_tokenizers(tokenizer, theirs)


def given_reference(model: Any, reference: Any) -> Reference:
    """
    A reference that the user gives: frozen, in eval mode.

    Raises:
        StartError: Its vocabulary is not the policy's. More rows, for padding, do no harm.
    """
    if not hasattr(reference, "get_input_embeddings"):
        raise StartError(
            f"the reference is a {type(reference).__name__}; a model, or the path or hub id of one, is expected"
        )
    if reference is model:
        raise StartError("the reference is the very model that trains; give a copy, or reference='copy'")
    ours, theirs = (m.get_input_embeddings().weight.shape[0] for m in (model, reference))
    if abs(ours - theirs) > 0.02 * max(ours, theirs):
        raise StartError(
            f"the reference has a vocabulary of {theirs:,} and the model one of {ours:,}; "
            "drift can only be measured between models of one tokenizer"
        )
    return Reference("given", reference.eval().requires_grad_(False), "as given", fingerprint(reference, False))
