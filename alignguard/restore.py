"""The weights of a checkpoint back into the model, as `load_best_model_at_end` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import AlignGuardError, RunError
from .stop import StopRule


def check_restorable(rule: StopRule | None, args: Any, sharded: bool = False) -> None:
    """
    Whether the checkpoints that restoring needs will be there; asked before step 1.

    Raises:
        AlignGuardError: The trainer would delete them, or decides itself what is saved or loaded; or the model is sharded.
    """
    if rule is None or not rule.restore:
        return
    if sharded:
        raise AlignGuardError(
            "StopRule(restore=True) cannot put weights back into a sharded model; use StopRule(), and resume from the "
            "checkpoint that its message names"
        )
    if args.save_total_limit is not None:
        raise AlignGuardError(
            "StopRule(restore=True) needs the checkpoints of aligned audits, and save_total_limit deletes the oldest; leave "
            "it unset"
        )
    if args.load_best_model_at_end or str(getattr(args.save_strategy, "value", args.save_strategy)) == "best":
        raise AlignGuardError(
            "StopRule(restore=True) and load_best_model_at_end (or save_strategy='best') both decide which weights are kept; "
            "choose one"
        )


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
        except (OSError, ValueError) as error:
            raise RunError(f"{folder}: its adapters cannot be read ({' '.join(str(error).split())[:160]})") from None
        for name, state in weights.items():
            set_peft_model_state_dict(model, state, adapter_name=name)
        return
    try:  # the library's own way in: it knows how weights are split, renamed and tied
        dtype = next(model.parameters()).dtype
        loaded, about = type(model).from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(f"{folder}: its weights cannot be read ({' '.join(str(error).split())[:160]})") from None
    lacking = [*about["missing_keys"], *about.get("mismatched_keys", [])]
    if lacking:
        raise RunError(f"{folder}: lacks weights of the model, e.g. {sorted(map(str, lacking))[0]}")
    load_whole(model, loaded.state_dict(), str(folder))


def load_whole(model: Any, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Load every weight, or none where they are not those of this model."""
    own = model.state_dict()
    wrong = [key for key in own.keys() | state.keys() if key not in own or key not in state]
    wrong += [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    if wrong:
        raise RunError(f"{name}: its weights are not those of the model that trains, e.g. {sorted(wrong)[0]}")
    model.load_state_dict(state)
