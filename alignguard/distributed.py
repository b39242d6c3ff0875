"""Several processes: shares of the work, their gathering, and what all of them must agree on.

Each process is given a share of the probes, and the results are gathered. Where the weights are sharded (FSDP, ZeRO-3) a forward
is everyone's: all take as many, and a process that has no rows left goes through the rest with a row of nothing.

What is exchanged is small, and goes over gloo: no GPU waits for it, whatever the trainer's own backend is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from transformers.integrations import is_deepspeed_zero3_enabled

from .errors import AlignGuardError, RunError, StartError, one_line

T = TypeVar("T")
V = TypeVar("V")
_PATIENCE = timedelta(minutes=30)  # how long the others are waited for


class LostProcess(AlignGuardError):
    """Another process did not come to the meeting: the run is out of step, and cannot go on."""


# what accelerate's find_executable_batch_size takes for a batch that is too large
_OUT_OF_MEMORY = (" out of memory", "STATUS_NOT_SUPPORTED", "can't allocate memory", "PT_DEVMEM Allocation failed")


class OutOfMemory(RunError):
    """Memory ran out in an audit: told in a type of our own, since trainers take torch's for their batch being too large."""


def _tried(do: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What a call gives, or how it fails; of memory that ran out a line only, nothing that holds what was computed."""
    try:
        return do(), None
    except Exception as error:
        if not isinstance(error, RuntimeError) or not any(told in str(error) for told in _OUT_OF_MEMORY):
            return None, error
        line = one_line(error, 200)
    return None, OutOfMemory(line)


@dataclass
class Ranks:
    """
    This process among the others.

    Args:
        rank (`int`, *optional*, defaults to `0`), size (`int`, *optional*, defaults to `1`):
            Which of how many.
        group (`ProcessGroup`, *optional*):
            What they talk over; `None` for a process alone.
        sharded (`bool`, *optional*, defaults to `False`):
            Whether a forward of the model needs all of them.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    sharded: bool = False
    _depth: int = 0
    _told: bool = False  # the failure that is on its way up is known to all

    @classmethod
    def of(cls, model: Any) -> Ranks:
        """
        The processes that train a model. All of them must call this.

        Args:
            model (`torch.nn.Module`):
                The policy, once the trainer has prepared it.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), _gloo(dist.group.WORLD), is_sharded(model))

    def mine(self, items: Sequence[T]) -> list[T]:
        """This process's share: every n-th, so that each has its part of every dimension."""
        return list(items[self.rank :: self.size])

    def rounds(self, mine: int) -> int:
        """
        How many forwards all take, where this process has so many of its own to take: of a sharded model as many as the process
        with the most; else its own.

        Raises:
            RunError: Another process failed meanwhile; the message is its error.
            LostProcess: Another process is gone, or hangs.
        """
        return max(self._meet(None, mine)) if self.sharded and self.group is not None else mine

    def share(self, items: Sequence[T], do: Callable[[list[T]], dict[str, V]]) -> dict[str, V]:
        """
        Work that each process does a part of.

        Args:
            items (`Sequence[T]`):
                All of the work.
            do (`Callable[[list[T]], dict[str, V]]`):
                Called with this process's share.

        Returns:
            `dict[str, V]`: what all processes found, on each of them.
        """
        parts = self.together(lambda: do(self.mine(items)))
        return {key: value for part in parts for key, value in part.items()}

    def together(self, do: Callable[[], T]) -> list[T]:
        """
        What each process found, in their order. If one fails, all do.

        Args:
            do (`Callable[[], T]`):
                Called on each process. It may itself meet the others.

        Raises:
            RunError: Another process failed; the message is its error.
            LostProcess: Another process is gone, or hangs.
        """
        self._depth += 1
        try:
            value, failure = _tried(do)
        finally:
            self._depth -= 1
        try:
            told, self._told = self._told, self._told and self._depth > 0
            if failure is not None and (told or self.group is None):
                raise failure
            if self.group is None:
                return [value]  # type: ignore[list-item]
            return self._meet(failure, value)
        finally:
            del failure  # it knows this frame: the two would keep each other alive, and all that the failed call held

    def agree(self, value: T) -> T:
        """
        What to go by where the model is sharded and each process has found the same up to rounding: what the first one found. Else
        the value itself.

        Raises:
            RunError: Another process failed meanwhile; the message is its error.
            LostProcess: Another process is gone, or hangs.
        """
        return self._meet(None, value)[0] if self.sharded and self.group is not None else value

    def _meet(self, failure: Exception | None, value: Any) -> list[Any]:
        """What every process brings; if one brings a failure, all fail."""
        try:
            line = None if failure is None else f"{type(failure).__name__}: {one_line(failure, 300)}"
            found = self._exchange((line, isinstance(failure, OutOfMemory), value))
            failed = [(rank, line, short) for rank, (line, short, _) in enumerate(found) if line is not None]
            self._told = bool(failed) and self._depth > 0
            if failed and all(short for _, _, short in failed):  # all processes may try again, or none
                raise OutOfMemory(f"process {failed[0][0]} of {self.size} failed with {failed[0][1]}")
            if failure is not None:
                raise RunError(line) if isinstance(failure, OutOfMemory) else failure
            if failed:
                raise RunError(f"process {failed[0][0]} of {self.size} failed with {failed[0][1]}")
            return [value for _, _, value in found]
        finally:
            del failure

    def short_of_memory(self, do: Callable[[], object]) -> str:
        """
        What ran out of memory in a call, on whichever process, in a line; empty where nothing did. Then all may call again.

        Args:
            do (`Callable[[], object]`):
                As for [`~Ranks.together`].
        """
        try:
            self.together(do)
            return ""
        except OutOfMemory as error:
            self._told = False
            return one_line(error, 200)

    def first(self, value: T) -> T:
        """The first process's value, on every process."""
        return value if self.group is None else self._exchange(value)[0]

    def told(self, do: Callable[[], T]) -> T:
        """
        What the first process finds, on every process; if it fails, all do.

        Args:
            do (`Callable[[], T]`):
                Called on the first process alone, whose disk it may read.
        """
        return self.together(lambda: do() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def _exchange(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(found, value, group=self.group)
        except RuntimeError as error:
            line = one_line(error, 200)
            raise LostProcess(f"process {self.rank} of {self.size} waited for the others in vain ({line})") from None
        return found


@lru_cache(maxsize=1)
def _gloo(world: Any) -> Any:
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def will_shard(args: Any) -> bool:
    """
    Whether a trainer will shard the model's weights: FSDP or ZeRO-3.

    Args:
        args (`TrainingArguments`):
            The trainer's. What `accelerate launch` was told stands in the environment.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")
    return asked or bool(getattr(args, "fsdp", None)) or is_deepspeed_zero3_enabled()


def is_sharded(model: Any) -> bool:
    """Whether a forward of the model needs all processes: FSDP, tensor parallelism, ZeRO-3."""
    from torch.distributed.tensor import DTensor

    if any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in model.parameters()):
        return True
    return any(_is_fsdp1(module) for module in model.modules())


def _is_fsdp1(module: Any) -> bool:
    return type(module).__name__ == "FullyShardedDataParallel"


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """
    For the time of the block a model that FSDP1 wraps answers as what is wrapped: its layers gather themselves, one by one; what
    lies outside of them (embeddings, norm, LM head), flat between forwards, is whole. All processes must enter.

    Raises:
        StartError: The LM head is gathered by itself, and cannot be read.
    """
    if not _is_fsdp1(model) or "forward" in vars(model):
        yield
        return
    if _is_fsdp1(model.get_output_embeddings()):
        raise StartError(
            "FSDP1 gathers the LM head by itself, so drift cannot be read; take fsdp_config version 2, or its auto_wrap_policy "
            "TRANSFORMER_BASED_WRAP"
        )
    from torch.distributed.fsdp import FullyShardedDataParallel

    with FullyShardedDataParallel.summon_full_params(model, recurse=False, writeback=False):
        model.forward = model.module.__call__  # the wrapper's own would gather again what is there
        try:
            yield
        finally:
            del model.forward


def compute_device(model: Any) -> torch.device:
    """Where a model computes: where its first weight is, but where FSDP offloads its weights to the CPU."""
    if _is_fsdp1(model):
        return torch.device(model.compute_device)
    weight = next(model.parameters())
    return _mesh_device(weight) or weight.device


def _mesh_device(weight: Any) -> torch.device | None:
    """This process's device of those that a weight is sharded over, where the weight itself waits elsewhere."""
    kind = getattr(getattr(weight, "device_mesh", None), "device_type", weight.device.type)
    return None if kind == weight.device.type else torch.device(kind, torch.get_device_module(kind).current_device())


def is_quantized(weight: torch.Tensor) -> bool:
    """Whether the values of a weight are not those that it is multiplied with: bitsandbytes' integers, torchao's own tensors."""
    own_kind = hasattr(weight, "__tensor_flatten__") and not hasattr(weight, "full_tensor")  # and no part of a whole
    return own_kind or not weight.is_floating_point()


def whole_weight(weight: Any) -> torch.Tensor:
    """A weight as it would be on one process, and where it is worked with, if it is sharded; all processes must call this."""
    if hasattr(weight, "full_tensor"):  # FSDP2
        return weight.to(_mesh_device(weight) or weight.device).full_tensor()
    if hasattr(weight, "ds_id"):  # ZeRO-3: there only while it is gathered
        import deepspeed

        with deepspeed.zero.GatheredParameters([weight]):
            return weight.detach().clone()
    return weight
