"""Whatever can be reached from an object, attribute by attribute, as names and plain values that can be compared."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import random
import weakref
from array import array
from collections import deque
from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer

_PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    bool,
    type(None),
    torch.dtype,
    torch.device,
    torch.Size,
    PurePath,
    Enum,
    range,
)
_CODE = (torch.jit.ScriptFunction, staticmethod, classmethod, property)
# what is no state of a run: columns that nobody writes to, and locks
_LEFT = ("pyarrow", "_thread", "threading", "logging", "concurrent", "multiprocessing", "asyncio", "torch._C", "_io")


def portrait(things: dict[str, Any], stop: tuple[Any, ...] = ()) -> dict[str, Any]:
    """
    Walk what can be reached from some objects, one after the other, of each the nearest first.

    Args:
        things (`dict[str, Any]`):
            Where the walk begins, by what it is called; what is within is called after it.
        stop (`tuple[Any, ...]`, *optional*):
            Objects whose inside is not looked at.
    """
    found: dict[str, Any] = {}
    seen = {id(one) for one in stop}
    kept: list[Any] = []  # what is made on the way must live as long as its id is used
    for name, thing in things.items():
        waiting = deque([(name, thing)])
        while waiting:
            path, value = waiting.popleft()
            plain = _plain(value)
            if plain is not None:
                found[path] = plain[0]
                continue
            found[path] = f"{type(value).__qualname__} {id(value):x}"
            if id(value) not in seen:
                seen.add(id(value))
                kept.append(value)
                waiting.extend((f"{path}{part}", inner) for part, inner in _inside(value))
    return found


def digest(tensor: torch.Tensor) -> str:
    """Of a tensor's values, in a few digits."""
    if tensor.is_meta or tensor.layout != torch.strided:
        return str(tensor.layout)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"").hexdigest()[:12]


def _plain(value: Any) -> tuple[Any] | None:
    """What is compared as it is."""
    if isinstance(value, _PLAIN):
        return (repr(value) if isinstance(value, (float, complex)) else value,)
    if isinstance(value, AddedToken):
        return (repr(value),)
    if isinstance(value, weakref.ref):
        return (f"reference to {id(value()):x}",)
    if inspect.ismethod(value):
        return (f"{value.__qualname__} of {id(value.__self__):x}, {id(value.__func__):x}",)
    if isinstance(value, type) or inspect.isroutine(value) or inspect.ismodule(value) or isinstance(value, _CODE):
        return (f"{getattr(value, '__qualname__', value)} {id(value):x}",)
    if isinstance(value, (set, frozenset)):
        return (sorted(str(_plain(one) or id(one)) for one in value),)
    return None


def _inside(value: Any) -> list[tuple[str, Any]]:
    """The parts of something, each with what its name goes on with."""
    if isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if isinstance(value, torch.Generator):
        return [(".state", digest(value.get_state()))]
    if isinstance(value, (np.random.Generator, np.random.RandomState)):
        bits = value.bit_generator if isinstance(value, np.random.Generator) else value
        return [(".state", _hash(bits.state if bits is not value else value.get_state()))]
    if isinstance(value, random.Random):
        return [(".state", _hash(value.getstate()))]
    if isinstance(value, np.ndarray):
        return [(".values", _hash(value.tolist()))]
    if isinstance(value, Tokenizer):
        text = hashlib.sha256(value.to_str().encode()).hexdigest()[:12]
        return [(".truncation", str(value.truncation)), (".padding", str(value.padding)), (".whole", text)]
    if isinstance(value, (dict, Mapping, MappingProxyType)) and not isinstance(value, weakref.WeakKeyDictionary):
        return [(_key(key, i), inner) for i, (key, inner) in enumerate(value.items())] + _attributes(value)
    if isinstance(value, (list, tuple, deque)):
        return [(f"[{i}]", inner) for i, inner in enumerate(value)] + [(".length", len(value))] + _attributes(value)
    if isinstance(value, partial):
        return [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    if isinstance(value, (array, bytearray)):
        return [(".values", _hash(bytes(value)))]
    if type(value).__module__.split(".")[0] in _LEFT or type(value).__module__.startswith("torch._C"):
        return []
    found = _attributes(value)
    if hasattr(value, "get_vocab"):
        found += [(".vocabulary", _hash(sorted(value.get_vocab().items()))), (".template", str(value.chat_template))]
    if isinstance(value, torch.nn.Module):
        found.append((".<class>", _hash([(key, id(one)) for key, one in vars(type(value)).items()])))
    return found


def _attributes(value: Any) -> list[tuple[str, Any]]:
    found = [(f".{name}", inner) for name, inner in getattr(value, "__dict__", {}).items()]
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found.append((f".{name}", getattr(value, name)))
    return found


def _of_tensor(value: torch.Tensor) -> list[tuple[str, Any]]:
    about = f"{tuple(value.shape)} {value.dtype} {value.device} {digest(value)}"
    place = value.untyped_storage().data_ptr() if value.layout == torch.strided and not value.is_meta else 0
    found: list[tuple[str, Any]] = [(".values", about), (".place", f"{place:x}"), (".trains", value.requires_grad)]
    hooks = [(f".{name}", getattr(value, name, None)) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")]
    found += [(name, inner) for name, inner in hooks if inner]
    if value.is_leaf:
        found.append((".grad", value.grad))
    return found + _attributes(value)


def _key(key: Any, place: int) -> str:
    if isinstance(key, str):
        return f".{key}"
    return f"[{key!r}]" if isinstance(key, (int, float, tuple, type(None))) else f"[{place}]"


def _hash(value: Any) -> str:
    return hashlib.sha256(pickle.dumps(value)).hexdigest()[:12]
