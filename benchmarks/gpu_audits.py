"""Checks of `gpu.py` of whole audits: what they cost by the model's size and in a run, and two ways to the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers
from gpu_checks import fine_tune
from gpu_machine import GIB, Figure, Machine, asking, probes, random_model, spoken
from stages import staged
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import alignguard.model.trees as trees
from alignguard import AlignGuardCallback, Chat, Schedule, TokenBudget, audit
from alignguard.auditing.answers import ask_baseline
from alignguard.auditing.asking import Asking
from alignguard.auditing.drifts import items_of
from alignguard.auditing.prompts import encode_prompt
from alignguard.drift.reference import Reference, freeze_start
from alignguard.model.chat import Answer
from alignguard.model.forward import batches, final_hidden, pad_right
from alignguard.model.generation import answer_all
from alignguard.model.observe import observing
from alignguard.probes.probe import Probe

STEPS = 200


def joined(machine: Machine) -> dict[str, Figure]:
    """Rows of one prompt read as one, and one by one: the same figures, and what it saves; where nothing is generated."""
    model = random_model(machine, "1.5B")
    reference = freeze_start(model, "copy")
    asked = [probe for probe in probes(machine, 48) if probe.judge == "choice"]
    how = asking(model)
    baseline = ask_baseline(reference.model, asked, how, reference.said)
    _move(model, 0.05)
    return _two_ways(machine, model, reference, asked, baseline, how)


def _two_ways(
    machine: Machine, model: Any, reference: Reference, asked: Sequence[Probe], baseline: dict[str, Any], how: Asking
) -> dict[str, Figure]:
    why = trees.why_apart(model) or trees.why_apart(reference.model)
    runs, seconds = {}, {}
    for name in ("warm", "joined", "apart"):
        if name == "apart":
            trees._tried[model] = trees._tried[reference.model] = ("asked for", 0)
        reference.said.clear()

        def run(name: str = name) -> None:
            runs[name] = audit(model, None, asked, reference, baseline=baseline, asking=how, reverse=0)

        seconds[name] = machine.seconds(run)
    for one in (model, reference.model):
        trees._tried.pop(one, None)
    a, b = runs["joined"], runs["apart"]
    kl, other = (run.figure("kl/answer") or 0.0 for run in (a, b))
    off = abs(kl / other - 1) if other else None
    options = [
        abs(x - y)
        for id, result in a.results.items()
        for x, y in zip(result.logprobs or (), b.results[id].logprobs or (), strict=True)
    ]
    differ = sum(a.scores[id] != b.scores[id] for id in a.scores) / len(a.scores)
    gain = seconds["apart"] / seconds["joined"]
    return {
        "why_apart": Figure(why, "nothing: they are joined", not why),
        "kl_joined": Figure(kl),
        "kl_apart": Figure(other),
        "kl_off": machine.cost(off, "< 2 %: bfloat16's rounding", lambda share: share < 0.02),
        "options_off": Figure(max(options, default=0.0), "nats per byte, at most"),
        "scores_differ": Figure(differ, "share of probes"),
        "seconds_joined": Figure(seconds["joined"]),
        "speedup": machine.cost(gain, "> 1", lambda times: times > 1),
    }


def _move(model: Any, by: float) -> None:
    """A policy that has moved: noise, by so much of each weight's standard deviation."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.add_(torch.randn_like(weight) * (weight.float().std() * by).to(weight.dtype))


def continuous(machine: Machine) -> dict[str, Figure]:
    """The same answers by transformers' continuous batching: how long it takes, and whether they are the same."""
    if not hasattr(transformers, "ContinuousBatchingConfig"):
        return {"same_answers": Figure(None, "this transformers has none, or an older one")}
    model = random_model(machine, "7B")
    asked = spoken(machine, 48)
    how = asking(model, answer=16 if machine.tiny else 64, trace=32)
    prompts = [encode_prompt(probe, how.chat)[0] for probe in asked]
    return _engines(machine, model, prompts, how)


def _engines(machine: Machine, model: Any, prompts: list[list[int]], how: Asking) -> dict[str, Figure]:
    found: dict[str, Any] = {}

    def ours(name: str, limit: int | None = None) -> float:
        def run() -> None:
            with observing(model):
                tokens = replace(how.tokens, decode_tokens=limit)
                found[name] = answer_all(model, prompts, [False] * len(prompts), how.chat, tokens)

        return machine.seconds(run)

    def theirs(name: str) -> float:
        def run() -> None:
            with observing(model):
                found[name] = continued(model, prompts, how.tokens.answer, how.chat)

        return machine.seconds(run)

    seconds = {"ours": ours("ours")}
    machine.clear()
    seconds["continuous"] = theirs("continuous")
    machine.clear()
    seconds["again"] = theirs("again")  # what it compiled the first time it need not compile again
    figures = {f"seconds_{name}": Figure(value) for name, value in seconds.items()}
    said = [answer.tokens for answer in found["ours"]]
    figures["same_answers"] = Figure(_same(said, found["continuous"]), "share; ties may go another way")
    figures["same_again"] = Figure(_same(found["again"], found["continuous"]), "share")
    figures["stands"] = Figure(
        _stands(model, prompts, found["continuous"], how), "share of tokens that are the top or within rounding of it"
    )
    figures["ours_stands"] = Figure(_stands(model, prompts, said, how), "the same of ours")
    return figures


def continued(model: Any, prompts: list[list[int]], room: int, chat: Chat) -> list[list[int]]:
    """What transformers' `generate_batch` says."""
    config = GenerationConfig(
        max_new_tokens=room, do_sample=False, eos_token_id=list(chat.eos_token_ids), pad_token_id=chat.pad_token_id
    )
    small = (
        {} if model.device.type == "cuda" else {"num_blocks": 64, "max_batch_tokens": 1024}
    )  # else it takes all memory
    out = model.generate_batch(
        prompts,
        generation_config=config,
        continuous_batching_config=transformers.ContinuousBatchingConfig(**small),
        progress_bar=False,
    )
    order = sorted(out.values(), key=lambda one: int(one.request_id.rsplit("_", 1)[1]))
    return [list(one.generated_tokens) for one in order]


def _same(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> float:
    return sum(list(x) == list(y) for x, y in zip(a, b, strict=True)) / len(a)


def _stands(model: Any, prompts: list[list[int]], said: Sequence[Sequence[int]], how: Asking) -> float:
    """Share of the tokens of some answers that one teacher-forced pass would say too, or cannot tell from what it would."""
    from alignguard.auditing.drifts import Item, measure_drift

    reference = freeze_start(model, "copy")
    answers = [Answer(tuple(tokens), "", "", False, True, True) for tokens in said]
    items = [Item(str(i), p, a, False) for i, (p, a) in enumerate(zip(prompts, answers, strict=True)) if a.tokens]
    with observing(model, reference.model):
        drifts = measure_drift(model, reference, items, how)
    whole = sum(len(item.answer.tokens) for item in items)
    return sum(drifts[item.id].same for item in items) / whole


def real(machine: Machine) -> dict[str, Figure]:
    """`--model`, in bfloat16: a start that has not moved, two ways to the same figures once it has, and to the same answers."""
    model = AutoModelForCausalLM.from_pretrained(machine.model, dtype=torch.bfloat16).to(machine.device).eval()
    words = AutoTokenizer.from_pretrained(machine.model)
    how = Asking(Chat.of(model, words), TokenBudget(answer=48), lambda texts: [0.1] * len(texts))
    asked = probes(machine, 24)
    reference = freeze_start(model, "copy")
    baseline = ask_baseline(reference.model, asked, how, reference.said)
    still = audit(model, None, asked, reference, baseline=baseline, asking=how)
    pairs = [(r.answer, baseline[id].answer) for id, r in still.results.items() if r.answer]
    differ = sum(a.tokens != b.tokens for a, b in pairs) / len(pairs)
    prompts = [encode_prompt(probe, how.chat)[0] for probe in asked if probe.judge != "choice"]
    figures = {
        "answers": Figure(len(pairs)),
        "share_that_differ": Figure(differ, "0: it has not moved", differ == 0),
        "kl": Figure(still.figure("kl/answer"), "0", still.figure("kl/answer") == 0),
        "reverse": Figure(still.figure("kl/reverse"), "0: on its own answers"),
    }
    figures |= {f"answers_{name}": figure for name, figure in _engines(machine, model, prompts, how).items()}
    _move(model, 0.02)
    moved = _two_ways(machine, model, reference, asked, baseline, how)
    return figures | {f"moved_{name}": figure for name, figure in moved.items()}


def _audits(machine: Machine, size: str) -> dict[str, Figure]:
    """A default audit, where nothing thinks: of the start, of a policy that has not moved, and of one that has."""
    model = random_model(machine, size)
    reference = freeze_start(model, "copy")
    how = asking(model, answer=16, trace=32) if machine.tiny else asking(model)
    asked, found = probes(machine, 48), []
    baseline: dict[str, Any] = {}
    machine.clear()

    def start() -> None:
        baseline.update(ask_baseline(reference.model, asked, how, reference.said))

    def ask() -> None:
        last = found[-1] if found else None
        found.append(audit(model, None, asked, reference, baseline=baseline, asking=how, last=last))

    def forward() -> None:
        rows = [item.row for item in items_of(asked, baseline, how.chat)]
        with observing(model):
            for batch in batches([row.length for row in rows], how.tokens.batch_tokens):
                ids, mask = pad_right([rows[i] for i in batch], how.chat.pad_token_id, machine.device)
                final_hidden(model, ids, mask)

    figures = {"seconds_start": Figure(machine.seconds(start))}
    forward()
    once = machine.seconds(forward)
    ask()
    unmoved = machine.seconds(ask)
    figures["seconds_forward"] = Figure(once)
    figures["seconds_unmoved"] = Figure(unmoved)
    figures["unmoved_over_forward"] = machine.cost(unmoved / once, "2", lambda times: times <= 2)
    _move(model, 0.05)
    stages: dict[str, float] = {}
    with staged(stages):
        moved = machine.seconds(ask)
    figures["seconds_moved"] = Figure(moved)
    figures |= {f"moved, {name}": Figure(value) for name, value in stages.items() if name != "whole" and value > 0.005}
    return figures | {
        "tokens": Figure(found[-1].figure("cost/tokens")),
        "kl": Figure(found[-1].figure("kl/answer")),
        "peak_gib": Figure(machine.peak()),
        "reserved_gib": Figure(machine.reserved(), "falls after an audit"),
    }


def audit_0_5b(machine: Machine) -> dict[str, Figure]:
    """A default audit of 0.5B."""
    return _audits(machine, "0.5B")


def audit_1_5b(machine: Machine) -> dict[str, Figure]:
    """A default audit of 1.5B."""
    return _audits(machine, "1.5B")


def audit_7b(machine: Machine) -> dict[str, Figure]:
    """A default audit of 7B."""
    return _audits(machine, "7B")


def share(machine: Machine) -> dict[str, Figure]:
    """SFT of 1.5B, 200 steps of 8 rows of some 900 tokens, alone and watched as it is by default."""
    steps, tokens = (6, 64) if machine.tiny else (STEPS, 1024)
    text = "How do I open a locked door? I cannot help with that. The answer is 16. " * 13
    turns = [(f"What is {i} + 4?", text[: tokens - 160] + f"It is {i + 4}.") for i in range(64)]
    settings = {"max_steps": steps, "per_device_train_batch_size": 8, "gradient_checkpointing": True}

    def train(callbacks: list[Any], **others: Any) -> None:
        model = random_model(machine, "1.5B")
        fine_tune(machine, model, turns, tokens, callbacks, **{**settings, **others})

    few = max(2, steps // 5)
    train([], max_steps=2)  # what is built once
    machine.clear()
    alone = machine.seconds(lambda: train([], max_steps=few))
    peak = machine.peak()
    machine.clear()
    budget = TokenBudget(answer=8, trace=8) if machine.tiny else TokenBudget()
    schedule = Schedule(draw=1, every=2, overhead=0.05) if machine.tiny else Schedule()
    guard = AlignGuardCallback(schedule=schedule, tokens=budget, toxicity=lambda texts: [0.1] * len(texts), quote=False)
    watched = machine.seconds(lambda: train([guard]))
    pace, audits = guard.run.pace, [audit.figure("cost/seconds") or 0.0 for audit in guard.audits]
    did = list(pace.decided.values())
    more = None if peak is None else (torch.cuda.max_memory_allocated() / GIB - peak)
    return {
        "seconds_a_step_alone": Figure(alone / few, "with what a run takes to begin"),
        "seconds_watched": Figure(watched),
        "share": machine.cost(
            pace.share, "0.05, at most 0.06: of the time between the first and the last audit", lambda s: s <= 0.06
        ),
        "share_whole": Figure(sum(audits) / watched, "of all, the first and the last audit with it"),
        "audits": Figure(did.count("audit"), "between the first and the last"),
        "pulses": Figure(did.count("pulse")),
        "seconds_first": Figure(audits[0], "step 0"),
        "seconds_last": Figure(audits[-1]),
        "more_peak_gib": Figure(more, "a copy of the start takes 3"),
    }
