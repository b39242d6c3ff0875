"""The weights of a checkpoint back into the model, as `load_best_model_at_end` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .errors import RunError


def restore_weights(model: Any, folder: Path) -> None:
    """
    Load a checkpoint's weights into the model that trains.

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

        for name in model.peft_config:
            # PEFT keeps an adapter that is not called "default" in a folder of its name
            at = folder if name == "default" else folder / name
            set_peft_model_state_dict(model, load_peft_weights(str(at), device="cpu"), adapter_name=name)
        return
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise RunError(f"{folder}: holds no model*.safetensors; weights of a sharded run cannot be put back here")
    missing = set(model.state_dict())
    for file in files:
        weights = load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu")
        missing -= set(weights)
        unknown = model.load_state_dict(weights, strict=False).unexpected_keys
        if unknown:
            raise RunError(f"{folder}: {file.name} holds weights that the model does not have, e.g. {unknown[0]}")
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    if missing - tied:
        raise RunError(f"{folder}: lacks weights of the model, e.g. {sorted(missing - tied)[0]}")
