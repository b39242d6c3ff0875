"""The LM head: from final hidden states to logits, in float32 whatever the model computes in."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..distributed import compute_device, is_quantized, whole_weight
from ..errors import StartError
from .forward import Row, _caught, pad_right
from .observe import base_of, observing
from .rounding import rounding
from .trees import asked_for, read_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """
    What turns final hidden states into logits: `softcap(scale * (h W^T + b))`.

    Args:
        weight (`torch.Tensor` or `None`):
            Shape (vocabulary, d). `None` on the plain path, where the "hidden states" are the model's own logits.
        bias (`torch.Tensor` or `None`):
            Shape (vocabulary,).
        scale (`float`, *optional*, defaults to `1.0`):
            Multiplies the logits (cohere; granite, by the inverse).
        softcap (`float`, *optional*, defaults to `0.0`):
            `c * tanh(z / c)` where not zero (gemma2).
        size (`int`, *optional*, defaults to `0`):
            Vocabulary of a plain head.
    """

    weight: torch.Tensor | None
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0
    size: int = 0

    def __len__(self) -> int:
        return self.size if self.weight is None else len(self.weight)

    def to(self, device: torch.device) -> Head:
        """The same head on another device."""
        weight = None if self.weight is None else self.weight.to(device)
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias.to(device))

    def prepare(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states in the dtype that the products are taken in: float32, but on CUDA as they are."""
        return hidden if hidden.is_cuda and hidden.dtype in (torch.bfloat16, torch.float16) else hidden.float()

    def logits(self, hidden: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """
        Float32 logits of a slice of the vocabulary, whatever the dtypes and whatever autocast would do.

        Args:
            hidden (`torch.Tensor`):
                Shape (n, d), see [`~Head.prepare`].
            start, stop (`int`, *optional*):
                The slice of the vocabulary.

        Returns:
            `torch.Tensor` of shape (n, stop - start), float32; the caller's to overwrite.
        """
        if self.weight is None:
            return hidden[:, start:stop].float().clone()
        weight = self.weight[start:stop]  # (v, d)
        with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits to bfloat16
            if hidden.dtype == torch.float32:
                z = hidden @ weight.float().T  # (n, v)
            else:
                z = torch.mm(hidden, weight.to(hidden.dtype).T, out_dtype=torch.float32)  # (n, v)
        if self.bias is not None:
            z += self.bias[start:stop].float()
        if self.scale != 1.0:
            z *= self.scale
        if self.softcap:
            z = z.div_(self.softcap).tanh_().mul_(self.softcap)
        return z

    def pick(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """
        The logit of one token each, float32.

        Args:
            hidden (`torch.Tensor`):
                Shape (n, d).
            targets (`torch.Tensor`):
                Token ids, shape (n,).
        """
        if self.weight is None:
            return hidden.gather(1, targets[:, None])[:, 0].float()
        with torch.autocast(hidden.device.type, enabled=False):
            z = (hidden.float() * self.weight[targets].float()).sum(1)  # (n,)
        if self.bias is not None:
            z = z + self.bias[targets].float()
        z = z * self.scale
        return self.softcap * torch.tanh(z / self.softcap) if self.softcap else z

    def slope(self, logits: torch.Tensor) -> torch.Tensor | None:
        """How much final logits move with plain ones, (n, v) like the logits or one number; `None` where it is one."""
        if not self.softcap:
            return None if self.scale == 1.0 else torch.tensor(self.scale, device=logits.device)
        return self.scale * (1 - (logits / self.softcap).square())


# heads that were held against their model's own logits, and whether the fused path may be taken
_checked: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()
_told: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # those of which it was said that it may not


def read_head(model: Any) -> Head:
    """
    The LM head of a causal language model.

    Scale and soft cap are read from the config. At the first call for a model the fused path is held against the model's
    own logits; where they differ, or where the head itself carries an adapter, the plain path is taken and said so once. Where
    more than a matrix, a bias and the config may stand between hidden states and logits, they are held against each other at
    every call: a factor that is learnt changes nothing yet where it begins.
    """
    module = model.get_output_embeddings()
    if not hasattr(module, "weight") or type(module).__module__.startswith("peft.") or is_quantized(module.weight):
        fused = False
    else:
        if module not in _checked or not is_plain(model):
            _checked[module] = _fused_is_exact(model, _fused_head(model, module))
            if not _checked[module] and module not in _told:
                _told.add(module)
                logger.warning(
                    f"AlignGuard: {type(model).__name__} does not compute its logits as expected; "
                    "its own logits are used, row by row"
                )
        fused = _checked[module]
    if fused:
        return _fused_head(model, module)
    return Head(None, size=model.config.get_text_config().vocab_size)


def is_plain(model: Any) -> bool:
    """Whether nothing that may be learnt stands between hidden states and logits but a linear layer's own weight and bias."""
    base, head = base_of(model), model.get_output_embeddings()
    own = "forward" not in vars(head) and getattr(type(head), "forward", None) is torch.nn.Linear.forward
    beside = dict(head.named_parameters()).keys() - {"weight", "bias"}
    # what a hook does to the head's input is in the hidden states
    if not own or beside or any(module._forward_hooks for module in (model, base, head)):
        return False
    under = getattr(base, getattr(base, "base_model_prefix", ""), None)  # all but the head, where the model tells
    if not isinstance(under, torch.nn.Module):
        return True
    known = {id(p) for part in (under, head) for p in part.parameters()}
    return all(id(p) in known for p in base.parameters())


def _fused_head(model: Any, module: Any) -> Head:
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    if getattr(config, "logits_scaling", None):
        scale = 1.0 / config.logits_scaling
    bias = getattr(module, "bias", None)
    # of a sharded model the head alone is gathered, on every rank
    weight, bias = whole_weight(module.weight).detach(), None if bias is None else whole_weight(bias).detach()
    return Head(weight, bias, float(scale), float(getattr(config, "final_logit_softcapping", None) or 0.0))


def _fused_is_exact(model: Any, head: Head) -> bool:
    """Whether hidden states times head give the model's own logits, to the precision of its dtype."""
    device = compute_device(model)
    ids = torch.arange(4, 20, device=device)[None] % model.config.get_text_config().vocab_size
    with observing(model):
        hidden = _caught(model, ids, torch.ones_like(ids))
        own = model(input_ids=ids, use_cache=False).logits[0]  # (16, V)
        if len(hidden) != 1:
            if "forward" in model.__dict__:
                raise StartError(
                    f"the forward of {type(model).__name__} called its own LM head {len(hidden)} times, not once: "
                    "it is bound to another model, as that of a careless copy is"
                )
            return False
        assert head.weight is not None
        ours = head.logits(head.prepare(hidden[0][0].to(head.weight.device))).to(own.device)
    if ours.shape[1] < own.shape[1]:
        return False
    # some set what must not be said to the least there is: no size of logits to go by
    if not bool((own > torch.finfo(own.dtype).min / 2).all() and own.isfinite().all()):
        return False
    ours, own = ours[:, : own.shape[1]], own.float()
    scale = (own - own.mean(1, keepdim=True)).abs().max()
    return bool((ours - own).abs().max() <= max(1e-4, rounding(model)) * scale)


def batch_limit(most: int, head: Head) -> int:
    """
    Padded tokens of a batch: few on the plain path, where every target holds a row of the vocabulary, and on a CPU, which gains
    nothing by more and works for padding as for words.
    """
    if head.weight is None:
        return min(most, 512)
    return min(most, 2048) if head.weight.device.type == "cpu" else most


def target_hidden(model: Any, rows: Sequence[Row], pad: int, head: Head) -> torch.Tensor:
    """
    Hidden states from which each row's target tokens are predicted, rows joined.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            A causal language model.
        rows (`Sequence[Row]`):
            One batch.
        pad (`int`):
            A token to fill up with.
        head (`Head`):
            The model's, from [`read_head`].

    Returns:
        `torch.Tensor` of shape (sum of target lengths, d), on the device of the head, which may not be that of the first layer;
        on the plain path (sum of target lengths, vocabulary), the model's own logits, computed row by row.
    """
    hidden, at = node_hidden(model, rows, pad, head)
    return hidden[at.to(hidden.device)]


def node_hidden(model: Any, rows: Sequence[Row], pad: int, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The same as [`target_hidden`], where several targets may be predicted from one hidden state: those, (nodes, d), and of each
    target token which of them it is, (sum of target lengths,).
    """
    if head.weight is not None:
        hidden, at = read_rows(model, rows, pad)
        return hidden.to(head.weight.device), at
    device, parts = compute_device(model), []
    for row in rows:
        ids, mask = pad_right([row], pad, device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
        parts.append(asked_for(model, logits, row.length)[len(row.context) - 1 : row.length - 1].clone())
    logits = torch.cat(parts)
    return logits, torch.arange(len(logits))
