"""A reference without a model: what the start said at every token it will be asked about, kept once, before step 1.

Kept are the final hidden states of its own answers, and its head on the CPU: T x d numbers instead of T x V. The head is kept
though it may be frozen: what is frozen today may train tomorrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import RunError, StartError, one_line
from ..files import make_folder, write_whole
from ..model.head import Head


class Cache:
    """Filled by [`~Cache.add`], written once, read from disk after that."""

    def __init__(self) -> None:
        self.head: Head | None = None  # of the start
        self._tensors: dict[str, torch.Tensor] = {}
        self._files: dict[str, Path] = {}  # where each tensor is, once written
        self._awake: Head | None = None
        self._device = torch.device("cpu")

    def add(self, ids: Sequence[str], lengths: Sequence[int], hidden: torch.Tensor, head: Head) -> None:
        """
        Keep what the reference said.

        Args:
            ids (`Sequence[str]`):
                Whose answers they are.
            lengths (`Sequence[int]`):
                Tokens of each.
            hidden (`torch.Tensor`):
                Final hidden states, shape (sum of lengths, d).
            head (`Head`):
                The reference's.
        """
        if head.weight is None:
            raise StartError("reference='cache' cannot keep this model's logits; use reference='copy' or 'offload'")
        if self.head is None:
            # a true copy: on a CPU `.to` would keep the very weights that train
            bias = None if head.bias is None else head.bias.cpu().clone()
            self.head = replace(head, weight=head.weight.cpu().clone(), bias=bias)
        for id, part in zip(ids, hidden.cpu().split(list(lengths)), strict=True):
            self._tensors[f"hidden/{id}"] = part.clone()

    def write(self, path: Path, fingerprint: str, part: int = 0, parts: int = 1) -> None:
        """
        Write everything as safetensors, whole or not at all, and let go of it in memory; to be opened before it is read.

        Args:
            path (`Path`):
                The file; of several parts, each has its number in its name.
            fingerprint (`str`):
                Of the start.
            part (`int`, *optional*, defaults to `0`), parts (`int`, *optional*, defaults to `1`):
                Which of how many: each process writes what it asked.
        """
        tensors = dict(self._tensors)
        about = {"fingerprint": fingerprint, "parts": str(parts)}
        if part == 0 and self.head is not None and self.head.weight is not None:
            tensors["head/weight"] = self.head.weight.contiguous()
            if self.head.bias is not None:
                tensors["head/bias"] = self.head.bias.contiguous()
            about |= {"scale": repr(self.head.scale), "softcap": repr(self.head.softcap)}
        if parts > 1:
            path = path.with_name(f"{path.stem}-{part + 1:05d}-of-{parts:05d}{path.suffix}")
        make_folder(path.parent, private=True)
        write_whole(path, lambda beside: save_file(tensors, beside, metadata=about), private=True)
        self._tensors = {}

    def open(self, path: Path, fingerprint: str) -> None:
        """
        Take up what was written, by all processes.

        Raises:
            RunError: A file is missing, broken, or of another start.
        """
        files = sorted(path.parent.glob(f"{path.stem}-*-of-*{path.suffix}")) or [path]
        self._files = {}
        if not files[0].exists():
            raise RunError(
                f"{path}: the cached reference is not seen here; output_dir must be a folder that all processes see, or give "
                "reference= the start's path"
            )
        for file in files:
            parts = self._open(file, fingerprint)
        if parts != len(files):
            raise RunError(
                f"{path.parent}: {len(files)} of the {parts} files of the cached reference are seen here; output_dir must be "
                "a folder that all processes see"
            )

    def _open(self, path: Path, fingerprint: str) -> int:
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                names = set(file.keys())
                if "head/weight" in names:
                    bias = file.get_tensor("head/bias") if "head/bias" in names else None
                    self.head = Head(
                        file.get_tensor("head/weight"), bias, float(about["scale"]), float(about["softcap"])
                    )
        except (OSError, KeyError, SafetensorError) as error:
            line = one_line(error)
            raise RunError(
                f"{path}: the cached reference cannot be read ({line}); give reference= the start's path"
            ) from None
        if about.get("frozen_head") == "True":
            raise RunError(
                f"{path}: an earlier version kept it for a frozen head, which is not read any more; give reference= the start's "
                "path"
            )
        if about.get("fingerprint") != fingerprint:
            raise RunError(
                f"{path}: holds the reference of another start ({about.get('fingerprint')}, not {fingerprint}); "
                "give reference= the path of the model this run began with"
            )
        self._files |= dict.fromkeys(names, path)
        return int(about.get("parts", 1))

    def wake(self, device: torch.device) -> None:
        """Move the head to the device, for the time of an audit."""
        self._device = device
        self._awake = None if self.head is None else self.head.to(device)

    def sleep(self) -> None:
        """Let go of the device's memory."""
        self._awake = None

    def _read(self, ids: Sequence[str]) -> torch.Tensor:
        found = {key: self._tensors[key] for id in ids if (key := f"hidden/{id}") in self._tensors}
        wanted = [key for id in ids if (key := f"hidden/{id}") not in found]
        for path in {self._files[key] for key in wanted}:  # streamed: only what is asked for is read
            with safe_open(path, framework="pt") as file:
                found |= {key: file.get_tensor(key) for key in wanted if self._files[key] == path}
        return torch.cat([found[f"hidden/{id}"] for id in ids]).to(self._device)

    def has(self, ids: Sequence[str]) -> bool:
        """Whether these answers are kept."""
        return {f"hidden/{id}" for id in ids} <= self._tensors.keys() | self._files.keys()

    def teacher(self, ids: Sequence[str]) -> tuple[torch.Tensor, Head]:
        """What drift is measured against: hidden states and head."""
        assert self._awake is not None
        return self._read(ids), self._awake

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(path.stat().st_size for path in set(self._files.values()))
