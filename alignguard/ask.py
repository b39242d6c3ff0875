"""How probes are asked: `Asking`, the reference's `Result`s, and choices by likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .chat import Answer, Chat, render_choice
from .drift import logprob_tokens
from .forward import Row, batch_limit, batches, read_head, target_hidden
from .generation import TokenBudget, answer_all
from .observe import observing
from .probes import Probe
from .scoring import Score, ToxicityScorer, judge, judge_choice

_CHOICE_ANSWER = 16  # tokens of the reference's own answer to a choice, which only drift is measured on


@dataclass(frozen=True)
class ProbeDrift:
    """
    Drift on one probe, on the reference's own answer.

    Args:
        raw (`list[float]`):
            KL(reference || policy) at each token of the answer as it stands, in nats.
        answer (`list[float]`):
            The same for the answer proper: after an empty, closed trace where the policy thinks and the reference does
            not; after the reference's own trace where the reference thinks.
        thinks (`float`):
            Probability that the policy opens a trace here.
        same (`int`):
            How many of the answer's tokens the policy would say too, greedily, before it first departs.
        departs (`int`):
            The token it would say there instead; -1 where it does not depart.
    """

    raw: list[float]
    answer: list[float]
    thinks: float
    same: int
    departs: int


@dataclass(frozen=True)
class Result:
    """
    One probe in one audit.

    Args:
        probe (`Probe`):
            What was asked.
        score (`Score`):
            How it was judged.
        answer (`Answer`, *optional*):
            What was said; `None` for a policy's choices, which are likelihoods.
        logprobs (`list[float]`, *optional*):
            Of each option, nats per byte.
        drift (`ProbeDrift`, *optional*):
            `None` in a baseline.
    """

    probe: Probe
    score: Score
    answer: Answer | None = None
    logprobs: list[float] | None = None
    drift: ProbeDrift | None = None


@dataclass
class Asking:
    """
    How probes are asked and judged; the same for policy and reference.

    Args:
        chat (`Chat`):
            How the model is spoken to.
        budget (`TokenBudget`, *optional*):
            Tokens of trace and answer.
        toxicity (`Callable[[list[str]], list[float]]`, *optional*):
            Texts to probabilities of being toxic.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in.
        tick (`Callable[[int], None]`, *optional*):
            Called as work is done, for a progress bar; see [`work`].
    """

    chat: Chat
    budget: TokenBudget = field(default_factory=TokenBudget)
    toxicity: ToxicityScorer | None = None
    autocast: torch.dtype | None = None
    tick: Callable[[int], None] = lambda n: None


def work(probes: Sequence[Probe], baseline: bool) -> int:
    """How many ticks asking these probes takes: of the baseline one a probe and task, of an audit two."""
    choices = sum(probe.judge == "choice" for probe in probes)
    return len(probes) + choices if baseline else 2 * len(probes)


def prompt_of(probe: Probe, chat: Chat) -> tuple[list[int], bool]:
    """Token ids of what is asked, and whether they end inside a trace. A plain probe is text to go on from, no chat."""
    if probe.plain:
        return chat.plain_ids(probe.prompt), False
    messages = turns(probe)
    return chat.prompt_ids(messages), chat.opens_trace(messages)


def _option_rows(probe: Probe, chat: Chat, thinks: bool) -> list[Row]:
    """One row an option: what is asked, and the option's text as the answer."""
    if probe.plain:
        return [Row(*chat.continuation(probe.prompt, option)) for option in probe.options]
    context, inside = prompt_of(probe, chat)
    if inside:
        context = context + chat.close_ids()
    elif thinks:
        context = context + chat.closed_trace_ids()
    return [Row(context, chat.encode(option)) for option in probe.options]


def turns(probe: Probe) -> tuple[dict[str, str], ...]:
    """What is asked, as chat turns: choices with their options, questions for a number with a word on the form."""
    if probe.plain:
        return probe.messages
    if probe.judge == "choice":
        return render_choice(probe, _option_order(probe))
    if probe.judge == "number":
        content = f"{probe.prompt}\n\nGive the final answer as a number only."
        return (*probe.messages[:-1], {"role": "user", "content": content})
    return probe.messages


def _option_order(probe: Probe) -> list[int]:
    """Options listed from a place that the probe's id decides, so that over the pool each place is used alike."""
    n = len(probe.options)
    shift = sum(probe.id.encode()) % n
    return [(i + shift) % n for i in range(n)]


def ask_choices(
    model: Any, probes: Sequence[Probe], asking: Asking, thinks: Iterable[str] = ()
) -> dict[str, list[float]]:
    """
    Log-probability of every option's text as the answer, in nats per byte (or in all, where the probe's `length` says so).

    Args:
        model (`PreTrainedModel`):
            The model that chooses.
        probes (`Sequence[Probe]`):
            Choice probes.
        asking (`Asking`):
            How they are asked.
        thinks (`Iterable[str]`, *optional*):
            Ids of probes at which the model would open a trace: it is asked after an empty, closed one.
    """
    chat, thinks = asking.chat, set(thinks)
    rows: list[Row] = []
    owners: list[tuple[str, int]] = []
    for probe in probes:
        rows += _option_rows(probe, chat, probe.id in thinks)
        owners += [(probe.id, 1 if probe.length == "sum" else len(o.encode())) for o in probe.options]
    head, device = read_head(model), next(model.parameters()).device
    found: list[float] = [0.0] * len(rows)
    for batch in batches([row.length for row in rows], batch_limit(asking.budget.batch_tokens, head)):
        part = [rows[i] for i in batch]
        targets = torch.tensor([t for row in part for t in row.target], device=device)
        logprobs = logprob_tokens(target_hidden(model, part, chat.pad_token_id, head), head, targets).tolist()
        start = 0
        for i, row in zip(batch, part, strict=True):
            found[i] = sum(logprobs[start : start + len(row.target)])
            start += len(row.target)
    result: dict[str, list[float]] = {probe.id: [] for probe in probes}
    for (owner, length), value in zip(owners, found, strict=True):
        result[owner].append(value / length)
    asking.tick(len(probes))
    return result


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
    """
    chat, budget = asking.chat, asking.budget
    with observing(model, autocast=asking.autocast):
        choices = [probe for probe in probes if probe.judge == "choice"]
        others = [probe for probe in probes if probe.judge != "choice"]
        short = TokenBudget(min(_CHOICE_ANSWER, budget.answer), budget.trace, budget.force_close, budget.batch_tokens)
        results: dict[str, Result] = {}
        for part, limit in ((others, budget), (choices, short)):
            asked = [prompt_of(probe, chat) for probe in part]
            answers = answer_all(model, [a[0] for a in asked], [a[1] for a in asked], chat, limit, tick=asking.tick)
            thinks = [probe.id for probe, answer in zip(part, answers, strict=True) if answer.thinks]
            logprobs = ask_choices(model, part, asking, thinks) if part is choices else {}
            for probe, answer in zip(part, answers, strict=True):
                options = logprobs.get(probe.id)
                score = judge_choice(probe, options) if options else judge(probe, answer, asking.toxicity)
                results[probe.id] = Result(probe, score, answer, options)
    return results
