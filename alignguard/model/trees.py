"""Rows that begin alike are read as one: the prompt once, and what may follow it as the branches of a tree.

A token sees those on its own path to the root and no others, and stands at the position that it has on that path, so that every
branch is what it would be alone (tree attention: SpecInfer, arXiv 2305.09781). Where a model carries state from token to
token, or takes no such mask, rows are read one by one, see [`why_apart`].
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..distributed import compute_device, is_sharded
from ..errors import StartError, one_line
from .forward import Row, final_hidden, pad_right
from .observe import base_of, observing
from .rounding import rounding
from .virtual import virtual_tokens

_MOST = 1024  # tokens of a tree: its mask takes their square, and no token gains by being read with so many others
_LEAST = 128  # of the tree that a model is tried on, however little memory is free
_MASKED = ("sdpa", "eager")  # attention that takes a mask of any shape
_TOLERANCE = 1e-4  # of the size of hidden states, in float32
_FAR_LESS = 0.25  # in half precision: of what the branches before one would change; measured: 0.04 to 0.08
_CHECKED = 6  # branches at either end of the tree that a model is tried on
_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass
class Tree:
    """
    Rows with one beginning, joined.

    Args:
        rows (`list[int]`):
            Which rows, in the order in which they were added.
        tokens (`list[int]`), parents (`list[int]`), depths (`list[int]`):
            Of each node its token, the node before it (-1: none), and its position.
        ends (`list[list[int]]`):
            Of each row the nodes that its targets are predicted from.
    """

    rows: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)
    _next: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, index: int, row: Row) -> None:
        """Join a row; its last token predicts nothing, and is left out."""
        node, path = -1, []
        for token in [*row.context, *row.target[:-1]]:
            if (node, token) not in self._next:
                self._next[node, token] = len(self.tokens)
                self.tokens.append(token)
                self.depths.append(self.depths[node] + 1 if node >= 0 else 0)
                self.parents.append(node)
            node = self._next[node, token]
            path.append(node)
        self.rows.append(index)
        self.ends.append(path[len(row.context) - 1 :])

    def sees(self) -> np.ndarray:
        """Which nodes each node sees, (nodes, nodes)."""
        seen = np.zeros((len(self.tokens), len(self.tokens)), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] = seen[parent]
            seen[node, node] = True
        return seen


def grow(rows: Sequence[Row], longest: int = sys.maxsize, most: int = _MOST) -> list[Tree]:
    """
    Join neighbours that begin alike.

    Args:
        rows (`Sequence[Row]`):
            Those of one prompt stand together, the one with the shortest context first.
        longest (`int`, *optional*):
            How long a row may be that is read with others; where one is longer, each is a tree of its own.
        most (`int`, *optional*, defaults to `1024`):
            Tokens of a tree of several rows.
    """
    trees: list[Tree] = []
    root: Sequence[int] = ()
    joined = all(row.length <= longest for row in rows)
    for index, row in enumerate(rows):
        alike = joined and bool(trees) and list(row.context[: len(root)]) == list(root)
        if not alike or len(trees[-1].tokens) + row.length - len(root) > most:
            trees.append(Tree())
            root = row.context
        trees[-1].add(index, row)
    return trees


def padded(model: Any, rows: Sequence[Row]) -> int:
    """Padded tokens that reading these rows together takes."""
    trees = grow(rows, joined_length(model), joined_tokens(model))
    return len(trees) * (1 + max(len(tree.tokens) for tree in trees))


def read_rows(model: Any, rows: Sequence[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    One forward over some rows, joined where they begin alike and the model allows it.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            A causal language model.
        rows (`Sequence[Row]`):
            One batch.
        pad (`int`):
            A token to fill up with.

    Returns:
        The final hidden states from which anything is predicted, (nodes, d), and of each target token which of them it is
        predicted from, (sum of target lengths,), rows joined, on the CPU.
    """
    trees = grow(rows, joined_length(model), joined_tokens(model))
    joined = any(len(tree.rows) > 1 for tree in trees)
    hidden = _joined(model, trees, pad) if joined else _apart(model, rows, pad)  # (tokens, batch, d)
    places = [(i, node) for i, tree in enumerate(trees) for node in sorted({n for path in tree.ends for n in path})]
    order = {place: n for n, place in enumerate(places)}
    ends = {
        row: [order[i, n] for n in path]
        for i, tree in enumerate(trees)
        for row, path in zip(tree.rows, tree.ends, strict=True)
    }
    batch, nodes = torch.tensor(places, device=hidden.device).T
    return hidden[nodes, batch], torch.tensor([n for index in range(len(rows)) for n in ends[index]])


def _apart(model: Any, rows: Sequence[Row], pad: int) -> torch.Tensor:
    device = compute_device(model)
    ids, mask = pad_right(rows, pad, device)
    return asked_for(model, final_hidden(model, ids, mask).transpose(0, 1), ids.shape[1])


def _joined(model: Any, trees: Sequence[Tree], pad: int) -> torch.Tensor:
    device = compute_device(model)
    width = max(len(tree.tokens) for tree in trees)
    ids, depths = (torch.full((len(trees), width), fill, dtype=torch.long) for fill in (pad, 0))
    sees = torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1)  # (batch, tokens, tokens); padding sees itself
    for i, tree in enumerate(trees):
        n = len(tree.tokens)
        ids[i, :n], depths[i, :n] = torch.tensor(tree.tokens), torch.tensor(tree.depths)
        sees[i, :n, :n] = torch.from_numpy(tree.sees())
    mask = sees[:, None].to(device)
    if _attention(model) != "sdpa":  # it adds its mask, and takes none of yes and no
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    return final_hidden(model, ids.to(device), mask, position_ids=depths.to(device)).transpose(0, 1)


def asked_for(model: Any, found: torch.Tensor, tokens: int) -> torch.Tensor:
    """
    What a model says at the tokens that it was asked, (tokens, ...), without those that PEFT puts before them.

    Raises:
        StartError: It says more or less, and nobody knows where.
    """
    if len(found) - tokens != virtual_tokens(model):
        raise StartError(
            f"{type(model).__name__} has {len(found)} hidden states for {tokens} tokens, so it is not known which of them "
            "predicts which token; AlignGuard cannot read this model"
        )
    return found[-tokens:]


# models that were tried: why rows cannot be joined for them, nothing where they can, and of how many tokens a tree was read
_tried: weakref.WeakKeyDictionary[torch.nn.Module, tuple[str, int]] = weakref.WeakKeyDictionary()


def joined_length(model: Any) -> int:
    """How long a row may be that is read as one with others, so that each is what it would be alone; 0 for none."""
    if why_apart(model):
        return 0
    config = model.config.get_text_config()
    sees = [getattr(config, "attention_chunk_size", None)]
    if getattr(config, "use_sliding_window", None) is not False:
        sees.append(getattr(config, "sliding_window", None))
    # a layer that sees no further would need a mask of its own
    return min((size for size in sees if size), default=sys.maxsize)


def joined_tokens(model: Any) -> int:
    """
    How many tokens a tree of several rows may have: no more than a layer sees that looks back so many tokens of the input, on
    whatever branch and whatever the mask (GPT-Neo's local attention), no more than the model has places for, and no more than
    memory had room for when it was tried.
    """
    if model in _tried:
        return _tried[model][1]
    config = model.config.get_text_config()
    sees = [getattr(config, name, None) for name in ("window_size", "max_position_embeddings")]
    return min([_MOST, *(size for size in sees if isinstance(size, int) and size > 0)])


def why_apart(model: Any) -> str:
    """
    Why rows that begin alike are read one by one; nothing where they are joined.

    What is known to need each token's neighbours is told by the model's class and config; beyond that it is tried once, on a
    tree with many branches, as large as any that will be read, or as memory has room for.
    """
    if virtual_tokens(model):  # adapters are switched on and off
        return "PEFT puts virtual tokens before every prompt"
    for adapter in getattr(model, "peft_config", {}).values() if hasattr(model, "disable_adapter") else ():
        kind = str(getattr(adapter.peft_type, "value", adapter.peft_type))
        if getattr(adapter, "alora_invocation_tokens", None) or kind == "XLORA":
            return "its adapters wake by what else is read"
    if model not in _tried:
        most = joined_tokens(model)
        while (why := _why_apart(model, most)) is None:
            most //= 2
        _tried[model] = why, most
    return _tried[model][0]


def _why_apart(model: Any, most: int) -> str | None:
    """Tried on a tree of so many tokens; `None` where memory has no room for it, and may have for a smaller one."""
    base = base_of(model)
    config = model.config.get_text_config()
    attention, layers = _attention(model), set(getattr(config, "layer_types", None) or ()) - _LAYERS
    if attention not in _MASKED:
        return f"{attention or 'its attention'} takes no mask of its own"
    if getattr(base, "_is_stateful", False) or layers:
        return "it carries state from token to token" + (f" ({', '.join(sorted(layers))})" if layers else "")
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return f"{type(base).__name__} is not told where a token stands"
    try:
        same = _is_the_same(model, most)
    except torch.OutOfMemoryError:
        if most < _LEAST or is_sharded(model):  # whose forwards all processes must take alike
            raise
        return None
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        return f"{type(base).__name__} takes no such mask ({one_line(error, 80)})"
    return "" if same else f"{type(base).__name__} says something else then"


@torch.no_grad()
def _is_the_same(model: Any, most: int) -> bool:
    """
    Whether branches say what they say alone: to the precision of float32, and else, where what a trained model rounds grows from
    layer to layer, by far less than if each saw the branches before it.

    Held against themselves alone are the first and the last branches of a tree of so many tokens, since a layer may look so many
    back whatever they are, and the same few in a batch.
    """
    size = model.config.get_text_config().vocab_size
    prompt = [(7 * i + 5) % size for i in range(6)]
    rows = [Row(prompt, [(11 * i + 3 * k + 4) % size for i in range(3 + k % 6)]) for k in range(_MOST // 2)]
    tree = grow(rows, most=most)[0]
    with observing(model):
        whole = _joined(model, [tree], 0)[:, 0]
        for part in (slice(_CHECKED), slice(-_CHECKED, None)):
            some = [rows[i] for i in tree.rows[part]]
            few = grow(some)[0]
            alone = torch.cat([_apart(model, [row], 0)[len(prompt) - 1 : -1, 0] for row in some]).float()
            allowed = _TOLERANCE * alone.norm()
            if rounding(model) > _TOLERANCE:
                wrong = _apart(model, [Row(few.tokens, [0])], 0)[_joint(few.ends), 0].float()
                allowed = torch.maximum(allowed, _FAR_LESS * (wrong - alone).norm())
            for found in (whole[_joint(tree.ends[part])], _joined(model, [few, few], 0)[_joint(few.ends), 1]):
                if not (found.float() - alone).norm() <= allowed:
                    return False
    return True


def _joint(paths: Sequence[Sequence[int]]) -> list[int]:
    return [end for path in paths for end in path]


def _attention(model: Any) -> str:
    return str(getattr(model.config.get_text_config(), "_attn_implementation", ""))
