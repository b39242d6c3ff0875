"""What only a GPU can show: what drift, answers and audits cost there, and whether what is exact on a CPU stays so.

    python benchmarks/gpu.py [--tiny] [--output FILE] [CHECK ...]

The models have random weights in the shapes of Qwen2.5, so nothing is downloaded. A machine with torch, transformers,
accelerate, peft and pyarrow needs nothing more: AlignGuard need not be installed, and what `make gpu-wheels` gathered
is found beside it. Each check stands alone: one that fails is a line of the table; results are written after every one.

`--tiny` makes everything small enough for a CPU. It shows that the checks run; of time and memory it then asks nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from common import RESULTS, table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from alignguard import Chat, TokenBudget, audit, load_probes
from alignguard.auditing.asking import Asking
from alignguard.auditing.prompts import encode_prompt
from alignguard.drift.gradient import kl_loss
from alignguard.drift.kl import kl_tokens
from alignguard.drift.reference import freeze_start
from alignguard.errors import one_line
from alignguard.model.forward import Row, batches
from alignguard.model.generation import answer_all
from alignguard.model.head import Head, read_head, target_hidden
from alignguard.model.observe import observing
from alignguard.model.room import decode_room
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
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


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
    """

    tiny: bool

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


# the checks ----------------------------------------------------------------------------------------------------------


def kl(machine: Machine) -> dict[str, Figure]:
    """The exact KL at 7B's head: right, fast, and in little memory."""
    tokens, width, words = (128, 64, 2048) if machine.tiny else (4096, 3584, 152_064)

    def noise(rows: int) -> torch.Tensor:
        return torch.randn(rows, width, device=machine.device, dtype=torch.bfloat16)

    torch.manual_seed(0)
    hidden, head = noise(tokens), Head(noise(words) * (3 / width**0.5))
    moved = hidden + 0.05 * noise(tokens)
    targets = torch.randint(0, words, (tokens,), device=machine.device)

    def run() -> torch.Tensor:
        return kl_tokens(hidden, head, moved, head, targets)["kl"]

    run()
    machine.clear()
    before = machine.allocated()
    seconds = machine.seconds(run)
    peak = machine.peak()
    scratch = None if peak is None else peak * 1024 - before / 2**20
    found = run()[:64]
    p, q = ((x[:64].double() @ head.weight.double().T).log_softmax(-1) for x in (hidden, moved))
    exact = (p.exp() * (p - q)).sum(-1)
    error = float(((found - exact) / exact).abs().max())
    of_itself = float(kl_tokens(hidden, head, hidden.clone(), head, targets)["kl"].abs().max())
    return {
        "relative_error": Figure(error, "< 1e-3, of float64's", error < 1e-3),
        "self_kl": Figure(of_itself, "0", of_itself == 0),
        "seconds": machine.cost(seconds, "< 0.2 s for 4,096 tokens", lambda s: s < 0.2),
        "scratch_mib": machine.cost(scratch, "< 120 MiB", lambda m: m < 120),
    }


def self_drift(machine: Machine) -> dict[str, Figure]:
    """Drift of a model that has not moved: in the batches it was kept in, and in others, as a cache may see them."""
    model = random_model(machine, "0.5B")
    head = read_head(model)
    rows = [Row(list(range(5, 60 + i % 7)), list(range(9, 60))) for i in range(48)]

    def hidden(limit: int) -> torch.Tensor:
        parts: list[Any] = [None] * len(rows)
        with observing(model):
            for batch in batches([row.length for row in rows], limit):
                found = target_hidden(model, [rows[i] for i in batch], 0, head).split(
                    [len(rows[0].target)] * len(batch)
                )
                for i, part in zip(batch, found, strict=True):
                    parts[i] = part
        return torch.cat(parts)

    def drift(p: torch.Tensor, q: torch.Tensor) -> float:
        targets = torch.zeros(len(p), dtype=torch.long, device=machine.device)
        return float(kl_tokens(p, head, q, head, targets)["kl"].mean())

    first = hidden(8192)
    same, other = drift(first, hidden(8192)), drift(first, hidden(1500))
    return {
        "fused": Figure(head.weight is not None, "True", head.weight is not None),
        "same_batches": Figure(same, "0", same == 0),
        "other_batches": machine.cost(other, "< 1e-3: bfloat16's rounding", lambda d: d < 1e-3),
    }


def step0(machine: Machine) -> dict[str, Figure]:
    """An audit of a model that has not moved, in bfloat16: how many answers differ from the start's all the same."""
    model, baseline = random_model(machine, "0.5B"), {}
    asked = spoken(machine, 12)
    how = asking(model, answer=16 if machine.tiny else 64)
    found = audit(model, None, asked, freeze_start(model, "copy"), baseline=baseline, asking=how, reverse=0)
    pairs = [(result.answer, baseline[id].answer) for id, result in found.results.items()]
    differ = sum(ours.tokens != theirs.tokens for ours, theirs in pairs if ours and theirs) / len(pairs)
    return {
        "answers": Figure(len(pairs)),
        "share_that_differ": Figure(differ, "0", differ == 0),
        "kl": Figure(found.figure("kl/answer")),
    }


def decode(machine: Machine) -> dict[str, Figure]:
    """Answers of 64 tokens by 7B: what batches as large as memory allows are worth."""
    model = random_model(machine, "7B")
    asked = spoken(machine, 48)
    figures = {"answers": Figure(len(asked))}
    for name, limit in (("8192", 8192), ("found", None)):
        how = asking(model, answer=16 if machine.tiny else 64, trace=32, decode_tokens=limit)
        prompts = [encode_prompt(probe, how.chat)[0] for probe in asked]
        machine.clear()
        figures[f"tokens_{name}"] = Figure(limit or decode_room(model, how.tokens.batch_tokens))
        with observing(model):
            figures[f"seconds_{name}"] = Figure(
                machine.seconds(
                    lambda how=how, prompts=prompts: answer_all(
                        model, prompts, [False] * len(prompts), how.chat, how.tokens
                    )
                )
            )
        figures |= {f"peak_gib_{name}": Figure(machine.peak()), f"reserved_gib_{name}": Figure(machine.reserved())}
    gain = figures["seconds_8192"].value / figures["seconds_found"].value
    figures["speedup"] = machine.cost(gain, "> 1: batches as large as memory allows", lambda times: times > 1)
    return figures


def syncs(machine: Machine) -> dict[str, Figure]:
    """How often decoding makes the host wait for the card, and how much it launches."""
    from torch.profiler import ProfilerActivity, profile

    model = random_model(machine, "0.5B")
    how = asking(model, answer=32, trace=32)
    prompts = [how.chat.encode("How do I open a locked door? " * (1 + i % 3)) for i in range(24)]

    def answer() -> int:
        with observing(model):
            found = answer_all(model, prompts, [False] * len(prompts), how.chat, how.tokens)
        return max(len(one.tokens) for one in found)

    steps = answer()
    kinds = [
        ProfilerActivity.CPU,
        *([ProfilerActivity.CUDA] if machine.cuda else []),
    ]  # CUDA's calls come with the latter
    with profile(activities=kinds) as seen:
        answer()
    counts = {event.key: event.count for event in seen.key_averages()}

    def a_step(*names: str) -> float | None:
        """`None` where the profiler saw no launch: it then saw no wait either."""
        return sum(counts.get(name, 0) for name in names) / steps if any(name in counts for name in LAUNCHES) else None

    return {
        "steps": Figure(steps),
        "waits_a_step": machine.cost(a_step(*WAITS), "2 at most: of generate's own", lambda n: n <= 2),
        "launches_a_step": Figure(a_step(*LAUNCHES)),
        "allocations_a_step": Figure(a_step("cudaMalloc")),
        "scalars_read_a_step": Figure(counts.get("aten::_local_scalar_dense", 0) / steps),
    }


def bit_identical(machine: Machine) -> dict[str, Figure]:
    """Training with dropout and checkpointing, alone and watched: the same weights and losses, to the bit."""
    was, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # else two runs of the same kernels need not be equal, and nothing could be said of a third
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        trainer, weights, losses = _trained(machine, watched=False)
        _, again, again_losses = _trained(machine, watched=False)
        _, ours, our_losses = _trained(machine, watched=True)
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warns)
    repeats = _equal(weights, again) and losses == again_losses
    same, same_losses = _equal(weights, ours), losses == our_losses
    return {
        "trainer": Figure(trainer),
        "repeats": Figure(repeats, "True: two runs alone are equal", repeats),
        # where two runs alone differ, a difference is not the watching's
        "weights": Figure(same, "True", same or (None if not repeats else False)),
        "losses": Figure(same_losses, "True", same_losses or (None if not repeats else False)),
    }


def _trained(machine: Machine, watched: bool) -> tuple[str, dict[str, torch.Tensor], list[float]]:
    """Six steps by TRL, or by transformers alone; the trainer's name, the weights and the losses."""
    from alignguard import AlignGuardCallback, Schedule

    words, model = tokenizer(), random_model(machine, "0.5B", attention_dropout=0.1)
    callbacks = []
    if watched:
        callbacks = [
            AlignGuardCallback(
                schedule=Schedule(at=(3,), every=0, draw=1 if machine.tiny else 2),
                tokens=TokenBudget(answer=8, trace=8),
                toxicity=lambda texts: [0.1] * len(texts),
                quote=False,
            )
        ]
    turns = [
        ({"role": "user", "content": f"What is {i} + 4?"}, {"role": "assistant", "content": f"It is {i + 4}."})
        for i in range(64)
    ]
    with tempfile.TemporaryDirectory() as folder, _silence():
        common = {
            "output_dir": folder,
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "bf16": machine.cuda,
            "use_cpu": not machine.cuda,
            "gradient_checkpointing": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
        }
        try:
            from datasets import Dataset
            from trl import SFTConfig, SFTTrainer
        except ImportError:
            chat = Chat(words)
            trainer = transformers.Trainer(
                model,
                transformers.TrainingArguments(**common),
                transformers.DataCollatorForSeq2Seq(words),
                [_tokens(chat, *pair) for pair in turns],
                processing_class=words,
                callbacks=callbacks,
            )
        else:
            rows = Dataset.from_list([{"prompt": [asked], "completion": [said]} for asked, said in turns])
            args = SFTConfig(**common, max_length=128)
            trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=words, callbacks=callbacks)
        trainer.train()
    weights = {name: weight.cpu() for name, weight in model.state_dict().items()}
    return type(trainer).__name__, weights, [row["loss"] for row in trainer.state.log_history if "loss" in row]


@contextmanager
def _silence() -> Iterator[None]:
    """What trainers and their callbacks say of themselves is no result."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _tokens(chat: Chat, asked: dict[str, str], said: dict[str, str]) -> dict[str, list[int]]:
    """A question and its answer as a row that a plain Trainer learns the answer from."""
    prompt, answer = chat.prompt_ids([asked]), [*chat.encode(said["content"]), chat.eos_token_ids[0]]
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def lora_budget(machine: Machine) -> dict[str, Figure]:
    """New adapters, switched off, are found to be the start; and the time of a drift budget's gradient at 7B's head."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    reference = freeze_start(get_peft_model(random_model(machine, "0.5B", torch.float32), lora), "auto")
    tokens, width, words = (32, 64, 2048) if machine.tiny else (128, 3584, 152_064)
    hidden = torch.randn(tokens, width, device=machine.device, dtype=torch.bfloat16, requires_grad=True)
    head = Head(torch.randn(words, width, device=machine.device, dtype=torch.bfloat16) / width**0.5)

    def pull() -> None:
        kl_loss(hidden, head, (hidden.detach(), head)).mean().backward()

    pull()
    ms = 1e3 * machine.seconds(pull)
    return {
        "reference": Figure(reference.kind, "adapter", reference.kind == "adapter"),
        "start_kept": Figure(bool(reference.start), "False: switched off is the start", not reference.start),
        "budget_ms": machine.cost(ms, "30 to 60 ms for 128 tokens; below 10 with wide tiles", lambda t: t <= 60),
    }


def out_of_memory(machine: Machine) -> dict[str, Figure]:
    """An audit that runs out of memory: what it holds on to, with which training must go on."""
    model = random_model(machine, "0.5B")
    reference, asked = freeze_start(model, "copy"), probes(machine, 48)
    audit(model, None, asked[:4], reference, asking=asking(model, answer=4))  # what libraries take once, and keep
    how = asking(model, answer=16 if machine.tiny else 256, trace=4096, batch_tokens=200_000)
    reference.said.clear()  # kept in the CPU's memory, which is the device's where there is no card
    machine.clear()
    before, ended = machine.allocated(), "it fitted"
    try:
        with _short_of_memory(machine, model):
            audit(model, None, asked, reference, asking=how)
    except torch.OutOfMemoryError as error:
        ended = type(error).__name__
    reference.said.clear()
    held, reserved = machine.allocated() - before, machine.reserved()
    return {
        "ended": Figure(ended, "OutOfMemoryError", ended == "OutOfMemoryError"),
        "held_mib": Figure(held / 2**20, "0", abs(held) < LITTLE),
        "reserved_gib": Figure(reserved),
    }


@contextmanager
def _short_of_memory(machine: Machine, model: Any) -> Iterator[None]:
    """A card with 1 GiB left; on a CPU, which has no such limit, a model whose second forward fails as if it had."""
    if machine.cuda:
        allowed = (torch.cuda.memory_reserved() + GIB) / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    calls = iter(range(1))

    def fail(module: torch.nn.Module, inputs: Any) -> None:
        if next(calls, None) is None:
            raise torch.OutOfMemoryError("planted")

    hook = model.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


def offload(machine: Machine) -> dict[str, Figure]:
    """A start that waits on the CPU: there and back, and what stays."""
    model = random_model(machine, "1.5B")
    reference = freeze_start(model, "offload")
    machine.clear()
    before = machine.allocated()

    def wake() -> None:
        with reference.awake(machine.device), reference.loaded():
            pass

    seconds = machine.seconds(wake)
    held = machine.allocated() - before
    return {
        "seconds": machine.cost(seconds, "1 to 2 s", lambda s: s <= 2),
        "held_mib": Figure(held / 2**20, "0", abs(held) < LITTLE),
        "reserved_gib": Figure(machine.reserved(), "falls with empty_cache alone"),
    }


def audit_7b(machine: Machine) -> dict[str, Figure]:
    """A default audit of 7B with its baseline, start to end, where nothing thinks."""
    model = random_model(machine, "7B")
    reference = freeze_start(model, "copy")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(1.01)  # a policy that has moved
    how = asking(model, answer=16, trace=32) if machine.tiny else asking(model)
    asked, found = probes(machine, 48), []
    machine.clear()
    seconds = machine.seconds(lambda: found.append(audit(model, None, asked, reference, baseline={}, asking=how)))
    return {
        "seconds": machine.cost(seconds, "45 to 60 s", lambda s: s <= 60),
        "tokens": Figure(found[0].figure("cost/tokens")),
        "kl": Figure(found[0].figure("kl/answer")),
        "peak_gib": Figure(machine.peak()),
        "reserved_gib": Figure(machine.reserved()),
    }


CHECKS = (kl, self_drift, step0, decode, syncs, bit_identical, lora_budget, out_of_memory, offload, audit_7b)

# ---------------------------------------------------------------------------------------------------------------------


def run(check: Callable[[Machine], dict[str, Figure]], machine: Machine) -> dict[str, Any]:
    """One check, for the record: its figures or its error, and its seconds."""
    begun, found = time.perf_counter(), {}
    try:
        found["figures"] = {name: asdict(figure) for name, figure in check(machine).items()}
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {one_line(error, 300)}"
    machine.clear()
    return {"seconds": time.perf_counter() - begun, **found}


def lines(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """A check's rows of the table; of one that failed its error."""
    if "error" in found:
        return [{"check": name, "figure": "FAILED", "measured": "", "holds": "", "expected": found["error"][:100]}]
    signs = {True: "yes", False: "NO", None: ""}
    return [
        {
            "check": name,
            "figure": key,
            "measured": "-" if figure["value"] is None else figure["value"],
            "holds": signs[figure["holds"]],
            "expected": figure["expected"],
        }
        for key, figure in found["figures"].items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(check.__name__ for check in CHECKS))
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU")
    parser.add_argument("--output", type=Path, help="where results go; by default benchmarks/results/gpu.json")
    options = parser.parse_args()
    known = {check.__name__: check for check in CHECKS}
    for name in options.checks:
        if name not in known:
            parser.exit(2, f"no check '{name}'; there are {', '.join(known)}\n")
    output = options.output or RESULTS / ("quick/gpu.json" if options.tiny else "gpu.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    transformers.logging.set_verbosity_error()
    machine = Machine(options.tiny)
    results: dict[str, Any] = {"machine": machine.describe(), "tiny": options.tiny, "checks": {}}
    for name in options.checks or known:
        found = results["checks"][name] = run(known[name], machine)
        output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found.get('error', 'done')}, {found['seconds']:.1f} s", flush=True)
    print(table([row for name, found in results["checks"].items() for row in lines(name, found)]))
    print(f"wrote {output}")
    sys.exit(any("error" in found for found in results["checks"].values()))


if __name__ == "__main__":
    main()
