"""Checks of `gpu.py`, each of one thing: the exact KL, decoding, memory, and training to the bit."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from gpu_machine import GIB, LITTLE, Figure, Machine, asking, probes, random_model, spoken, tokenizer

from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.prompts import encode_prompt
from alignguard.distributed import OutOfMemory
from alignguard.drift.gradient import kl_loss
from alignguard.drift.kl import kl_tokens
from alignguard.drift.reference import freeze_start
from alignguard.model.forward import Row, batches
from alignguard.model.generation import answer_all
from alignguard.model.head import Head, read_head, target_hidden
from alignguard.model.observe import observing
from alignguard.model.room import decode_room

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


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
    """Six steps; the trainer's name, the weights and the losses."""
    from alignguard import AlignGuardCallback, Schedule

    model = random_model(machine, "0.5B", attention_dropout=0.1)
    guard = AlignGuardCallback(
        schedule=Schedule(at=(3,), every=0, draw=1 if machine.tiny else 2),
        tokens=TokenBudget(answer=8, trace=8),
        toxicity=lambda texts: [0.1] * len(texts),
        quote=False,
    )
    turns = [(f"What is {i} + 4?", f"It is {i + 4}.") for i in range(64)]
    settings = {"max_steps": 6, "per_device_train_batch_size": 4, "gradient_checkpointing": True}
    trainer = fine_tune(machine, model, turns, 128, [guard] if watched else [], **settings)
    weights = {name: weight.cpu() for name, weight in model.state_dict().items()}
    return type(trainer).__name__, weights, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def fine_tune(
    machine: Machine, model: Any, turns: list[tuple[str, str]], longest: int, callbacks: list[Any], **settings: Any
) -> Any:
    """
    Supervised fine-tuning by TRL, or by transformers alone where that is not there.

    Args:
        machine ([`Machine`]):
            Where.
        model (`PreTrainedModel`):
            What is trained.
        turns (`list[tuple[str, str]]`):
            Questions and answers.
        longest (`int`):
            Tokens of a row.
        callbacks (`list[TrainerCallback]`):
            Who watches.
        settings (`Any`):
            Of the trainer's arguments.

    Returns:
        The trainer, when done.
    """
    words = tokenizer()
    with tempfile.TemporaryDirectory() as folder, _silence():
        common = {
            "output_dir": folder,
            "bf16": machine.cuda,
            "use_cpu": not machine.cuda,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **settings,
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
                [_tokens(chat, asked, said, longest) for asked, said in turns],
                processing_class=words,
                callbacks=callbacks,
            )
        else:
            rows = Dataset.from_list(
                [
                    {
                        "prompt": [{"role": "user", "content": asked}],
                        "completion": [{"role": "assistant", "content": said}],
                    }
                    for asked, said in turns
                ]
            )
            args = SFTConfig(**common, max_length=longest)
            trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=words, callbacks=callbacks)
        trainer.train()
    return trainer


@contextmanager
def _silence() -> Iterator[None]:
    """What trainers and their callbacks say of themselves is no result."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _tokens(chat: Chat, asked: str, said: str, longest: int) -> dict[str, list[int]]:
    """A question and its answer as a row that a plain Trainer learns the answer from."""
    prompt, answer = chat.prompt_ids([{"role": "user", "content": asked}]), [*chat.encode(said), chat.eos_token_ids[0]]
    return {"input_ids": (prompt + answer)[:longest], "labels": ([-100] * len(prompt) + answer)[:longest]}


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
    except (torch.OutOfMemoryError, OutOfMemory) as error:
        ended = type(error).__name__
    reference.said.clear()
    held, reserved = machine.allocated() - before, machine.reserved()
    return {
        "ended": Figure(ended, "OutOfMemory", ended.startswith("OutOfMemory")),
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
