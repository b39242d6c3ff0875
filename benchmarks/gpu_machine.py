"""What the checks of `gpu.py` stand on: the machine, and models with random weights in the shapes of Qwen2.5."""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# this checkout before any other; what was gathered comes last: it fills gaps, and what is installed fits its Python
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "gpu-wheels"))
os.environ["HF_HUB_OFFLINE"] = "1"  # else libraries may wait for a network that is not there

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from alignguard import Chat, TokenBudget, load_probes
from alignguard.auditing.asking import Asking
from alignguard.probes.draw import draw
from alignguard.probes.probe import Probe

GIB = 2**30
LITTLE = 2**16  # bytes: a generator's state, say
# width, layers, heads, key-value heads, width of the MLP
SHAPES = {
    "0.5B": (896, 24, 14, 2, 4864),
    "1.5B": (1536, 28, 12, 2, 8960),
    "7B": (3584, 28, 28, 4, 18944),
    "tiny": (64, 2, 4, 2, 128),
}
TAGS = ("<think>", "</think>")
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Figure:
    """
    One thing that a check measured.

    Args:
        value (`float`, `str` or `None`):
            As measured; `None` where this machine cannot tell.
        expected (`str`, *optional*, defaults to `""`):
            What it should be, in words.
        holds (`bool`, *optional*):
            Whether it is so; `None` where nothing is asked.
    """

    value: float | str | None
    expected: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Machine:
    """
    What the checks run on.

    Args:
        tiny (`bool`):
            Whether everything is small.
        model (`str`, *optional*):
            A folder of a real model's.
    """

    tiny: bool
    model: str | None = None

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def cost(self, value: float | None, expected: str, holds: Callable[[float], bool]) -> Figure:
        """A figure of time or memory: asked for of a GPU at full size alone."""
        asked = self.cuda and not self.tiny and value is not None
        return Figure(value, expected, holds(value) if asked and value is not None else None)

    def allocated(self) -> int:
        """Bytes that tensors hold."""
        if self.cuda:
            return torch.cuda.memory_allocated()
        storages = [t.untyped_storage() for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

    def peak(self) -> float | None:
        """The most that tensors held since `clear`, GiB."""
        return torch.cuda.max_memory_allocated() / GIB if self.cuda else None

    def reserved(self) -> float | None:
        """What is kept from other processes, GiB."""
        return torch.cuda.memory_reserved() / GIB if self.cuda else None

    def clear(self) -> None:
        """Let go of what the last check left, and count peaks anew."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def seconds(self, run: Callable[[], Any]) -> float:
        """Wall time of a run, to its last kernel."""
        if self.cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def describe(self) -> dict[str, Any]:
        """For the record."""
        properties = torch.cuda.get_device_properties(0) if self.cuda else None
        return {
            "card": properties.name if properties else None,
            "memory_gib": round(properties.total_memory / GIB, 1) if properties else None,
            "cuda": torch.version.cuda,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": version("trl"),
            "peft": version("peft"),
            "python": platform.python_version(),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
        }


def version(package: str) -> str | None:
    """Of a package, `None` where it cannot be imported."""
    return None if find_spec(package) is None else metadata.version(package)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 400 tokens, made in memory."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>", "<pad>", *TAGS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["How do I open a locked door? I cannot help with that. The answer is 16."] * 9, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<pad>")
    made.chat_template = CHATML
    return made


def random_model(machine: Machine, size: str, dtype: torch.dtype = torch.bfloat16, **config: Any) -> Any:
    """
    A model of Qwen2.5's shape and vocabulary, with logits as large as a trained one's, about 20, and rivals closer to the top.

    The head is its own at every size: where it is tied a model without training says its last token for ever.
    """
    width, layers, heads, kv_heads, mlp = SHAPES["tiny" if machine.tiny else size]
    words = tokenizer()
    settings = Qwen2Config(
        vocab_size=vocabulary(machine),
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=False,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        **config,
    )
    torch.manual_seed(0)
    with machine.device:
        model = AutoModelForCausalLM.from_config(settings, dtype=dtype).eval()
    with torch.no_grad():
        head = model.get_output_embeddings().weight  # hidden states have a root mean square of 1
        head.mul_(4.5 / (head.float().std() * width**0.5))
    return model


def vocabulary(machine: Machine) -> int:
    return 2048 if machine.tiny else 151_936


def asking(model: Any, **budget: Any) -> Asking:
    """How probes are asked: the scorer costs nothing, so that what is timed is the model."""
    return Asking(Chat.of(model, tokenizer(), tags=TAGS), TokenBudget(**budget), lambda texts: [0.1] * len(texts))


def probes(machine: Machine, size: int) -> list[Probe]:
    """A draw of the built-in pool, so many of each dimension."""
    return draw(load_probes("core"), 1 if machine.tiny else size, 0)


def spoken(machine: Machine, size: int) -> list[Probe]:
    """Those of a draw that are answered in words."""
    return [probe for probe in probes(machine, size) if probe.judge != "choice"]
