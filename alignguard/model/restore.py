"""The weights of a checkpoint back into the model, as `load_best_model_at_end` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError, StartError, one_line
from .loading import from_pretrained, lossless_dtype


def restore_weights(model: Any, folder: Path) -> None:
    """
    Load a checkpoint's weights into the model that trains: all of them, or none where something is wrong.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            The policy, not sharded.
        folder (`Path`):
            A checkpoint of the trainer: adapters for a PEFT model, else all weights, in one file or several.

    Raises:
        RunError: The checkpoint holds no weights for this model.
    """
    if hasattr(model, "peft_config"):
        from peft import load_peft_weights, set_peft_model_state_dict

        # PEFT keeps an adapter that is not called "default" in a folder of its name
        places = {name: folder if name == "default" else folder / name for name in model.peft_config}
        try:
            weights = {name: load_peft_weights(str(at), device="cpu") for name, at in places.items()}
        except Exception as error:
            raise RunError(f"{folder}: its adapters cannot be read ({one_line(error)})") from None
        own = {name: _adapter(model, name) for name in places}
        lacks = [key for name in places for key in own[name] if key not in weights[name]]
        if lacks:
            raise RunError(f"{folder}: its adapters lack weights of the model that trains, e.g. {sorted(lacks)[0]}")
        told = {key for state in weights.values() for key in state}
        if beside := [name for name in beside_adapters(model) if name not in told]:
            raise RunError(
                f"{folder}: it holds adapters alone, and {len(beside)} other weights train, e.g. {beside[0]}"
            )
        for name, state in weights.items():
            set_peft_model_state_dict(model, state, adapter_name=name)
        return
    try:  # the library's own way in: it knows how weights are split, renamed and tied
        loaded = from_pretrained(type(model), folder, dtype=lossless_dtype(model))
    except StartError as error:
        raise RunError(str(error)) from None
    except (
        Exception
    ) as error:  # a file that is cut off, or a pickle that would run something, makes libraries raise many kinds
        raise RunError(f"{folder}: its weights cannot be read ({one_line(error)})") from None
    load_whole(model, loaded.state_dict(), str(folder))


def beside_adapters(model: Any) -> list[str]:
    """
    What trains beside the adapters of a PEFT model, which a checkpoint of adapters does not hold (embeddings it may); nothing of another.

    Args:
        model (`PreTrainedModel` or `PeftModel`):
            The policy.
    """
    if not hasattr(model, "peft_config"):
        return []
    there = {value.data_ptr() for name in model.peft_config for value in _adapter(model, name).values()}
    for name, encoder in getattr(model, "prompt_encoder", {}).items():
        # a prompt is on file as what it comes to, which is its own embeddings unless a network makes it
        if name in model.peft_config and len(list(encoder.parameters())) == 1:
            there |= {p.data_ptr() for p in encoder.parameters()}
    return [name for name, p in model.named_parameters() if p.requires_grad and p.data_ptr() not in there]


def _adapter(model: Any, name: str) -> dict[str, torch.Tensor]:
    """What a checkpoint of an adapter holds at least."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))


def load_whole(model: Any, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Load every weight, or none where they are not those of this model."""
    own = model.state_dict()
    wrong = [key for key in own.keys() | state.keys() if key not in own or key not in state]
    wrong += [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if wrong:
        raise RunError(f"{name}: its weights are not those of the model that trains, e.g. {sorted(wrong)[0]}")
    model.load_state_dict(state)
