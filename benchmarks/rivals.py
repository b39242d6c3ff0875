"""What of an audit other libraries do, on the same items: options' likelihoods by lm-eval, generation by TRL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from common import side_by_side
from plain import BATCH, LOGPROB_GAP

from alignguard import Probe
from alignguard.auditing.asking import Asking
from alignguard.auditing.likelihoods import ask_choices
from alignguard.auditing.prompts import encode_prompt
from alignguard.model.generation import answer_all
from alignguard.model.observe import observing


def against_lm_eval(model: Any, tokenizer: Any, probes: Sequence[Probe], asking: Asking, rounds: int) -> dict[str, Any]:
    """Options' log-probabilities, as text to go on from, so that both read the same tokens."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    chat, choices = asking.chat, [probe for probe in probes if probe.judge == "choice"]
    texts = [chat.tokenizer.decode(encode_prompt(probe, chat)[0]) for probe in choices]
    items = [
        replace(probe, plain=True, length="sum", messages=({"role": "user", "content": text},))
        for probe, text in zip(choices, texts, strict=True)
    ]
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
    asked = [Instance("loglikelihood", {}, (p.prompt, o), i) for p in items for i, o in enumerate(p.options)]
    found: dict[str, Any] = {}

    def ours() -> None:
        with observing(model):
            found["ours"] = ask_choices(model, items, asking)

    def theirs() -> None:
        found["theirs"] = [value for value, _ in lm.loglikelihood(asked, disable_tqdm=True)]

    seconds = side_by_side({"ours": ours, "lm_eval": theirs}, rounds)
    sums = [value for probe in items for value in found["ours"][probe.id]]
    gap = max(abs(a - b) for a, b in zip(sums, found["theirs"], strict=True))
    if gap > LOGPROB_GAP:
        raise SystemExit(f"an option's log-probability is {gap:.2g} nats from lm-eval's")
    return {
        "items": len(items),
        "options": len(asked),
        "speedup": seconds["lm_eval"] / seconds["ours"],
        "gap": gap,
        "seconds": seconds,
    }


def against_trl(model: Any, tokenizer: Any, probes: Sequence[Probe], asking: Asking, rounds: int) -> dict[str, Any]:
    """Answers without drafts, in as many tokens."""
    from accelerate import Accelerator
    from transformers import GenerationConfig
    from trl.trainer.callbacks import _generate_completions

    chat, spoken = asking.chat, [probe for probe in probes if probe.judge != "choice"]
    prompts = [encode_prompt(probe, chat)[0] for probe in spoken]
    budget = replace(asking.tokens, force_close=False)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=budget.answer,
        eos_token_id=list(chat.eos_token_ids),
        pad_token_id=chat.pad_token_id,
    )
    tokenizer.padding_side, accelerator = "left", Accelerator(cpu=True)
    texts = [tokenizer.decode(ids) for ids in prompts]
    found: dict[str, Any] = {}

    def ours() -> None:
        with observing(model):
            found["ours"] = answer_all(model, prompts, [False] * len(prompts), chat, budget)

    def theirs() -> None:
        found["theirs"] = _generate_completions(texts, model, tokenizer, accelerator, config, BATCH)

    seconds = side_by_side({"ours": ours, "trl": theirs}, rounds)
    said = [tokenizer.decode(answer.tokens, skip_special_tokens=True) for answer in found["ours"]]
    same = sum(a == b for a, b in zip(said, found["theirs"], strict=True))
    return {
        "answers": len(spoken),
        "identical": same,
        "speedup": seconds["trl"] / seconds["ours"],
        "seconds": seconds,
    }
