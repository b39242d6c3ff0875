"""
Everything of a process and a trainer that looking could change: a snapshot by name, and what differs between two.

What can be reached from the trainer is walked attribute by attribute (`portrait.py`), so that nothing has to be thought of
to be seen; the process is asked for what it has (`process_state.py`). `tests/helpers` proves nothing about itself:
`tests/trainer/test_everything.py` plants a change of each kind, and each must be told.
"""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Any

import torch
from portrait import portrait
from process_state import process_state

Snapshot = dict[str, Any]
_ABSENT = "absent"
_KNOWN = ("processing_class", "model", "optimizer", "lr_scheduler", "state", "control", "args")


def everything(folders: tuple[Path, ...] = (), ours: Any = None, memory: bool = False, **looked_at: Any) -> Snapshot:
    """
    A snapshot.

    Args:
        folders (`tuple[Path, ...]`, *optional*):
            Whose files are seen too, with what is in them.
        ours (`AlignGuardCallback`, *optional*):
            The callback that looks: what it keeps for itself is no part of what it looks at.
        memory (`bool`, *optional*, defaults to `False`):
            Whether to see which tensors live, too: it takes half a second, ten times as long as all else.
        looked_at (`Any`):
            A trainer, a model, a tokenizer, by the name that its state is told under.
    """
    if memory:
        gc.collect()  # what nobody holds is nobody's
    trainer = looked_at.get("trainer")  # what is known by a name of its own is told under that
    known = {f"trainer.{name}": getattr(trainer, name) for name in _KNOWN if hasattr(trainer, name)}
    found: Snapshot = portrait(known | looked_at, () if ours is None else (ours,))
    found |= {f"files.{path}": mark for folder in folders for path, mark in _files(folder).items()}
    found |= {"memory.tensors": _tensors(ours)} if memory else {}
    return found | process_state()


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is not as it was, a line each: its name, what it was, what it is."""
    names = dict.fromkeys([*before, *after])
    pairs = ((name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in names)
    return [f"{name}: {_short(was)} -> {_short(now)}" for name, was, now in pairs if was != now]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _files(folder: Path) -> dict[str, str]:
    """What lies in a folder, by path within it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = f"{folder.name}/{path.relative_to(folder)}"
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "folder"
    return found


def _tensors(ours: Any) -> int:
    """Bytes of all tensors that live, but for those that the callback keeps for itself."""
    kept: dict[int, int] = {}
    for value in gc.get_objects():
        if type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided and not value.is_meta:
            storage = value.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
    for storage in _held(ours):
        kept.pop(storage, None)
    return sum(kept.values())


def _held(ours: Any) -> set[int]:
    """The storages that the callback keeps: of its reference, of what that has said, and of its record."""
    reference, run = getattr(ours, "reference", None), getattr(ours, "run", None)
    found: list[torch.Tensor] = []
    if reference is not None:
        found += [*reference.start.values(), *reference.base.values(), *reference.said._rows.values()]
        if reference.kind in ("copy", "offload", "given"):
            found += [*reference.model.parameters(), *reference.model.buffers()]
        if reference.cache is not None and reference.cache.head is not None:
            found += [part for part in (reference.cache.head.weight, reference.cache.head.bias) if part is not None]
    holder = run.state.holder if run is not None else None
    if holder is not None:
        found += [anchor.hidden for anchor in holder.anchors.values()]
    return {tensor.untyped_storage().data_ptr() for tensor in found}
