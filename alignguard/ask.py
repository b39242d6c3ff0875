"""How probes are asked and judged, and what the reference says to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .asking import Asking, Result, prompt_of
from .chat import Answer
from .context import check_fits
from .generation import TokenBudget, answer_all
from .likelihood import ask_choices, refusal_margins
from .observe import observing
from .probes import Probe, ProbeError
from .scoring import Score, checked, judge, judge_choice, toxicity_texts

_CHOICE_ANSWER = 16  # tokens of the reference's own answer to a choice, which only drift is measured on


def judge_all(
    probes: Sequence[Probe], answers: Sequence[Answer], asking: Asking, margins: dict[str, float]
) -> list[Score]:
    """
    Judge generated answers; texts go to the toxicity scorer all at once.

    Args:
        probes (`Sequence[Probe]`), answers (`Sequence[Answer]`):
            What was asked and said.
        asking (`Asking`):
            With the scorers.
        margins (`dict[str, float]`):
            Refusal margins by probe id, kept in the scores' detail.

    Raises:
        ProbeError: A scorer failed, unless `asking.failed` is told instead.
    """
    toxicity, own = asking.toxicity, asking.own
    texts = [toxicity_texts(probe, answer) for probe, answer in zip(probes, answers, strict=True)]
    flat = [text for part in texts for text in part]
    prompts = [probe.prompt for probe, part in zip(probes, texts, strict=True) for _ in part]
    known: dict[tuple[str, str], float] = {}
    if toxicity is not None and flat:
        scorer = toxicity
        given = (flat, prompts) if getattr(scorer, "reads_prompts", False) else (flat,)
        try:
            values = checked("the toxicity scorer", lambda: scorer(*given), len(flat))
            known = dict(zip(zip(prompts, flat, strict=True), values, strict=True))
        except ProbeError as error:
            _give_up(error, asking)
            toxicity = None
    scores = []
    for probe, answer in zip(probes, answers, strict=True):
        looked_up = None if toxicity is None else lambda part, p=probe: [known[p.prompt, text] for text in part]
        try:
            score = judge(probe, answer, looked_up, own)
        except ProbeError as error:
            _give_up(error, asking)
            own = None
            score = judge(probe, answer, looked_up, own)
        if probe.id in margins:
            score = replace(score, detail={**(score.detail or {}), "margin": margins[probe.id]})
        scores.append(score)
    return scores


def _give_up(error: Exception, asking: Asking) -> None:
    if asking.failed is None:
        raise error
    asking.failed(error)


def sample_keys(probes: Sequence[Probe], asking: Asking) -> list[str]:
    """The keys of sampled answers' noise; empty for greedy ones."""
    return [f"{asking.seed}:{probe.id}" if probe.sample else "" for probe in probes]


def ask_baseline(model: Any, probes: Sequence[Probe], asking: Asking) -> dict[str, Result]:
    """
    The reference's own answers and scores.

    Args:
        model (`PreTrainedModel`):
            The reference.
        probes (`Sequence[Probe]`):
            What is asked.
        asking (`Asking`):
            How.

    Returns:
        `dict[str, Result]` by probe id; choices have an answer too (of a few tokens), which drift is measured on.

    Raises:
        ProbeError: A probe is too long for the model.
    """
    check_fits(model, probes, asking)
    found = asking.ranks.share(probes, lambda part: _ask_share(model, part, asking))
    return {probe.id: found[probe.id] for probe in probes}


def _ask_share(model: Any, probes: Sequence[Probe], asking: Asking) -> dict[str, Result]:
    chat, budget, synced = asking.chat, asking.budget, asking.ranks.whole
    with observing(model, autocast=asking.autocast):
        choices = [probe for probe in probes if probe.judge == "choice"]
        others = [probe for probe in probes if probe.judge != "choice"]
        short = TokenBudget(min(_CHOICE_ANSWER, budget.answer), budget.trace, budget.force_close, budget.batch_tokens)
        results: dict[str, Result] = {}
        for part, limit in ((others, budget), (choices, short)):
            asked = [prompt_of(probe, chat) for probe in part]
            keys = sample_keys(part, asking)
            ids, inside = [a[0] for a in asked], [a[1] for a in asked]
            answers = answer_all(model, ids, inside, chat, limit, synced=synced, tick=asking.tick, keys=keys)
            thinks = [probe.id for probe, answer in zip(part, answers, strict=True) if answer.thinks]
            if part is choices:
                logprobs = ask_choices(model, part, asking, thinks)
                scores = [judge_choice(probe, logprobs[probe.id]) for probe in part]
            else:
                logprobs, scores = {}, judge_all(part, answers, asking, refusal_margins(model, part, asking, thinks))
            for probe, answer, score in zip(part, answers, scores, strict=True):
                results[probe.id] = Result(probe, score, answer, logprobs.get(probe.id))
    return results
