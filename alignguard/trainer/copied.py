"""A copy of the trainer's collator, by which rows are read while its own goes on as if nobody had read; or why there is none.

`deepcopy` leaves functions and classes as they are, and all that their code reaches. Where that is more than what it is handed, such as a
generator in a closure, to read a row would change what training is given. So what a copy shares with the collator is looked at.
"""

from __future__ import annotations

import dis
import gc
import logging
import random
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import is_dataclass
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerBase, Trainer

from ..errors import one_line

_KNOWN = {
    "accelerate",
    "datasets",
    "numpy",
    "peft",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
}  # keep nothing in their code
_CONSTANT = (type(None), bool, int, float, complex, str, bytes, range, type(...), type(NotImplemented))
_LEAVES = (type, FunctionType, ModuleType, CodeType, Enum, re.Pattern, torch.dtype, torch.device, logging.Logger)
_SHARED = (
    torch.nn.Module,
    torch.nn.Parameter,
    PreTrainedTokenizerBase,
)  # never copied: they are large, and collators only ask them
_NEVER = (Trainer, Optimizer, torch.utils.data.Dataset)  # and what is of `datasets`
_OF_PARTS = (tuple, frozenset, MethodType, BuiltinFunctionType)  # harmless where what is in them is
_CALLED = ("__call__", "__getitem__", "__getattr__", "__iter__", "__next__", "__len__", "__contains__")
_GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
_MOST = 2**24  # bytes, copied at each time that rows are written


class _Kept(Exception):
    """Why there is no copy."""


def copied(collate: Any) -> tuple[Any, str]:
    """
    A copy that shares nothing with a collator by which either could tell that the other was called.

    Args:
        collate (`Callable`):
            Of the trainer's data loader.

    Returns:
        `tuple[Any, str]`: it, and why there is none, in a few words; empty where there is one.
    """
    try:
        own = _reached(collate)
        copy = deepcopy(collate, {key: x for key, x in own.items() if _is_shared(x)})
        theirs = _reached(copy)
        for key, x in own.items():
            if key in theirs:
                _check(x)
    except _Kept as kept:
        return None, str(kept)
    except Exception as error:  # it may be anything
        return None, f"its collator cannot be copied ({type(error).__name__}: {one_line(error, 80)})"
    held = any(isinstance(x, torch.nn.Module) for x in own.values())
    if held and any(isinstance(x, (type, FunctionType)) and not _known(x.__module__) for x in own.values()):
        return None, "its collator holds a model, and code of its own that may change it"
    return copy, ""


def generators(copy: Any) -> list[Any]:
    """What a copy draws from, but for the generators of all."""
    return [x for x in _reached(copy).values() if isinstance(x, _GENERATORS)]


def _reached(root: Any) -> dict[int, Any]:
    """All that an object holds, by identity; of what is never copied no more than that it is there."""
    found: dict[int, Any] = {}
    left, size = [root], 0
    while left:
        x = left.pop()
        if isinstance(x, _CONSTANT) or id(x) in found:
            continue
        found[id(x)] = x
        if isinstance(x, _NEVER) or type(x).__module__.startswith("datasets."):
            raise _Kept(f"its collator holds a {type(x).__name__}")
        if _is_shared(x) or isinstance(x, _LEAVES):
            continue
        size += x.nbytes if isinstance(x, (torch.Tensor, np.ndarray)) else sys.getsizeof(x, 0)
        if size > _MOST:
            raise _Kept("its collator holds too much for a copy at each time that rows are written")
        left += [type(x), *gc.get_referents(x)]
    return found


def _is_shared(x: Any) -> bool:
    return isinstance(x, _SHARED) and (isinstance(x, torch.nn.Module) or _known(type(x).__module__))


def _check(root: Any) -> None:
    """Whether what two share can tell neither that the other was called."""
    seen: set[int] = set()
    left = [root]
    while left:
        x = left.pop()
        if isinstance(x, _CONSTANT) or id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, FunctionType):
            left += _touched(x)
        elif isinstance(x, type):
            left += _members(x)
        elif isinstance(x, ModuleType):
            if not _known(x.__name__):
                raise _Kept(f"its collator's code reaches the module {x.__name__}, which may keep anything")
        elif isinstance(x, _OF_PARTS):
            left += gc.get_referents(x)
        elif _is_plain(x):
            left += vars(x).values()
        elif not (_is_shared(x) or isinstance(x, _LEAVES)):
            raise _Kept(f"its collator's code reaches a {type(x).__name__} that no copy of it has")


def _touched(function: FunctionType) -> Iterator[Any]:
    """What a function reaches beside what it is handed."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # nothing was put there
            yield cell.cell_contents
    if vars(function).keys() - {"__wrapped__"}:
        raise _Kept("its collator's code has functions with attributes, which may keep anything")
    if _known(function.__module__):
        return
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    outer = set(function.__code__.co_freevars)
    for code in _codes(function.__code__):
        for at in dis.get_instructions(code):
            if at.opname == "LOAD_GLOBAL":
                yield function.__globals__.get(at.argval)
            elif at.opname == "IMPORT_NAME" and not _known(at.argval):
                raise _Kept(f"its collator's code reaches the module {at.argval}, which may keep anything")
            elif at.opname == "STORE_GLOBAL" or (at.opname == "STORE_DEREF" and at.argval in outer):
                raise _Kept(f"its collator's code keeps {at.argval} from one call to the next")


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _members(kind: type) -> Iterator[Any]:
    """What a class holds for all of its kind, and its methods."""
    for base in kind.__mro__:
        if _known(base.__module__):
            continue
        for name, x in vars(base).items():
            if isinstance(x, property):
                yield from (x.fget, x.fset)
            elif isinstance(x, (staticmethod, classmethod)):
                yield x.__func__
            elif (not name.startswith("__") or name in _CALLED) and not _is_descriptor(x):
                yield x


def _is_descriptor(x: Any) -> bool:
    return type(x).__name__ in ("member_descriptor", "getset_descriptor", "_abc_data")


def _is_plain(x: Any) -> bool:
    """Whether it is a collator of transformers' or TRL's, which keep nothing but generators that they make of a seed."""
    ours = type(x).__module__.partition(".")[0] in ("transformers", "trl")
    return ours and is_dataclass(x) and vars(x).get("seed") is None


def _known(module: str | None) -> bool:
    root = (module or "").partition(".")[0]
    return root in _KNOWN or root in sys.stdlib_module_names
