"""
Models, adapters and tokenizers by path or hub id, for everybody who needs one: the callback's reference, `audit()`, the command
line, scorers and checkpoints. A folder that lacks weights is refused, since they would be drawn at random; nothing of a
folder is run but its weights.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from ..errors import StartError, one_line
from .checkpoints import checkpoints

logger = logging.getLogger(__name__)

_TOKENIZERS = (
    "tokenizer_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)


def device_of(name: str) -> torch.device:
    """
    A device by name; `auto` is a GPU where there is one.

    Raises:
        StartError: There is none of this name.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        line = one_line(error, 120)
        raise StartError(f"--device {name}: cannot be used here ({line}); 'auto' takes what there is") from None
    return device


def check_place(name: str) -> None:
    """
    Whether a model may be found under a name: what is plainly a path must be a folder with a model in it.

    Raises:
        StartError: It is not.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / "config.json").exists() or (path / "adapter_config.json").exists():
            return
        inside = checkpoints(path)
        hint = f"; give one of its checkpoints, e.g. {list(inside.values())[-1]}" if inside else ""
        raise StartError(f"{name}: the folder holds no model (neither config.json nor adapter_config.json){hint}")
    if path.exists():
        raise StartError(f"{name}: a file; give the folder of a model or adapter, or a hub id")
    if path.is_absolute() or name.startswith((".", "~")) or name.strip("/").count("/") > 1:
        raise StartError(f"{name}: no such folder; give the folder of a model or adapter, or a hub id")


def from_pretrained(kind: Any, name: str | Path, **options: Any) -> Any:
    """
    A model of a class, with all of its weights.

    Args:
        kind (`type`):
            A model class or auto class of transformers.
        name (`str` or `Path`):
            A folder or hub id.
        options (`Any`):
            For the class's own `from_pretrained`.

    Raises:
        StartError: It lacks weights, or holds some of another shape.
    """
    model, about = kind.from_pretrained(name, trust_remote_code=False, output_loading_info=True, **options)
    lacking = sorted(map(str, [*about["missing_keys"], *about.get("mismatched_keys", [])]))
    if lacking:  # they would be drawn at random
        raise StartError(f"{name}: lacks weights of the model, e.g. {lacking[0]}")
    return model


def lossless_dtype(model: Any) -> torch.dtype:
    """The narrowest dtype in which none of a model's weights is rounded: a body in half precision may have a head in float32."""
    found = {weight.dtype for weight in model.state_dict().values() if weight.is_floating_point()}
    if len(found) == 1:
        return found.pop()
    return torch.float64 if torch.float64 in found else torch.float32


def load_model(name: str, dtype: str | torch.dtype, device: torch.device) -> Any:
    """
    A causal language model by path or hub id, or an adapter on its base.

    Args:
        name (`str`):
            Where it is.
        dtype (`str` or `torch.dtype`):
            `"auto"` for that of its weights.
        device (`torch.device`):
            Where to.

    Raises:
        StartError: It cannot be loaded.
    """
    check_place(name)
    name = _expanded(name)
    try:
        if find_adapter_config_file(name) is None:
            return from_pretrained(_kind(name), name, dtype=dtype).to(device)
        if importlib.util.find_spec("peft") is None:
            raise StartError(f"{name}: an adapter, which needs peft; pip install peft")
        return _adapted(name, dtype).to(device)
    except (StartError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a broken folder makes libraries raise many kinds
        raise _unloadable(name, error) from None


def _adapted(name: str, dtype: str | torch.dtype) -> Any:
    """An adapter on its base, both with all of their weights."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict, load_peft_weights

    config = PeftConfig.from_pretrained(name)
    under = config.base_model_name_or_path
    if not isinstance(under, str) or not under:
        raise StartError(
            f"{name}: an adapter that names no base; put it into adapter_config.json as base_model_name_or_path"
        )
    if under.startswith(".") and not Path(under).is_dir() and (Path(name) / under).is_dir():
        under = str(Path(name) / under)  # no hub id: it was moved together with its base
    try:
        check_place(under)
    except StartError as error:
        raise StartError(f"{name}: the base that adapter_config.json names: {error}") from None
    # the base that it was trained on, not what has become of it
    base = from_pretrained(_kind(under, config.revision), under, dtype=dtype, revision=config.revision)
    tokenizer = load_tokenizer(name) if _has_tokenizer(name) else None
    if tokenizer is not None and len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(len(tokenizer))  # it was trained with tokens of its own
    model = PeftModel.from_pretrained(base, name, config=config)
    lacking = sorted(get_peft_model_state_dict(model).keys() - load_peft_weights(name, device="cpu").keys())
    if lacking:
        raise StartError(f"{name}: lacks weights of the adapter, e.g. {lacking[0]}")
    return model


def _has_tokenizer(name: str) -> bool:
    """Whether an adapter brings a tokenizer, also by hub id, of which `AutoTokenizer` alone would take that of its base."""
    if Path(name).is_dir():
        return any((Path(name) / file).exists() for file in _TOKENIZERS)
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    return cached_file(name, _TOKENIZERS[0], **quiet) is not None


def _kind(name: str, revision: str | None = None) -> Any:
    """
    The auto class that loads it: one that reads images beside text is asked in text alone.

    Raises:
        StartError: It is an encoder-decoder model.
    """
    config = AutoConfig.from_pretrained(name, trust_remote_code=False, revision=revision)
    saved = (config.architectures or [""])[0]
    for kind, known in (
        (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
        (AutoModelForImageTextToText, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
    ):
        if getattr(known.get(type(config), None), "__name__", None) == saved:
            return kind
    if config.is_encoder_decoder:
        raise StartError(
            f"{name}: {saved or type(config).__name__} reads with an encoder; a model that goes on from its prompt is needed"
        )
    images = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if images else AutoModelForCausalLM


def _expanded(name: str) -> str:
    return str(Path(name).expanduser()) if name.startswith("~") else name


@dataclass(frozen=True)
class Outline:
    """What a model's folder tells of it without its weights, where they are elsewhere; what it does not tell is `None`."""

    config: Any
    generation_config: Any


def load_outline(name: str) -> Outline:
    """A model's configuration by path or hub id, without its weights: a folder may hold a tokenizer alone."""
    found = []
    for kind in (AutoConfig, GenerationConfig):
        try:
            found.append(kind.from_pretrained(_expanded(name), trust_remote_code=False))
        except (OSError, ValueError):
            found.append(None)
    return Outline(*found)


def load_tokenizer(name: str) -> Any:
    """
    A tokenizer by path or hub id; `None` where there is none.

    Raises:
        StartError: What is there cannot be reached or read.
    """
    name = _expanded(name)
    # in a folder without one, transformers 5.0 makes up an empty tokenizer of the model's kind
    there = Path(name).is_dir() and any((Path(name) / file).exists() for file in _TOKENIZERS)
    if Path(name).is_dir() and not there:
        return None
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # what is broken, or needs a package, makes libraries raise many kinds
        if isinstance(error, ValueError) and not there:
            return None  # of a hub id, there is none
        raise _unloadable(name, error) from None


def common_tokenizer(model: str, reference: str) -> tuple[Any, str]:
    """
    The tokenizer both are asked with: the model's, or the reference's where the model comes without one, or without a
    chat template.

    Args:
        model, reference (`str`):
            Paths or hub ids.

    Returns:
        `tuple[Any, str]`: the tokenizer, and a note for people; empty where there is nothing to note.

    Raises:
        StartError: Neither has one, or they are not the same.
    """
    ours, theirs = load_tokenizer(model), load_tokenizer(reference)
    if ours is None and theirs is None:
        raise StartError(f"neither {model} nor {reference} holds a tokenizer; save it beside the model")
    if theirs is None:
        return ours, lacks_tokenizer(reference, model)
    if ours is None:
        return theirs, lacks_tokenizer(model, reference)
    check_tokenizers(ours, theirs)
    if ours.chat_template == theirs.chat_template:
        return ours, ""
    if ours.chat_template is None:
        return theirs, f"{model} has no chat template: both are asked with that of {reference}"
    return ours, f"the two have different chat templates: both are asked with that of {model}"


def check_reference_tokenizer(name: str, tokenizer: Any, say: bool = True) -> None:
    """
    Hold the tokenizer of a reference by path or hub id against the one that both models are asked with. A reference that
    has none is said so, once.

    Raises:
        StartError: They differ, or it cannot be read.
    """
    theirs = load_tokenizer(name)
    if theirs is None:
        level = logging.WARNING if say else logging.DEBUG
        logger.log(level, f"AlignGuard: {lacks_tokenizer(name, 'the model that trains')}")
    else:
        check_tokenizers(tokenizer, theirs)


def lacks_tokenizer(name: str, there: str) -> str:
    """What is said of a model that comes without its tokenizer, whose vocabulary then cannot be checked."""
    return f"{name} has no tokenizer that can be loaded: both are asked with that of {there}"


def _unloadable(name: str, error: Exception) -> StartError:
    line = one_line(error, 200)
    if Path(name).is_dir():
        return StartError(f"{name}: cannot be loaded ({line}); give a folder as save_pretrained writes it")
    return StartError(
        f"{name}: no folder here, and as a hub id it cannot be loaded; check path, id and network ({line})"
    )


def check_tokenizers(tokenizer: Any, other: Any) -> None:
    """
    Hold two tokenizers against one another.

    Raises:
        StartError: They differ; the message names the first token that does.
    """
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    for token, index in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != index:
            raise StartError(
                f"the reference has another tokenizer: token {token!r} is number {index} in the model's and "
                f"{theirs.get(token, 'missing')} in the reference's"
            )
