"""One round of questions to a served model: as to a local one, but that a server tells no distributions, so that there is no drift."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import torch

from ..model.chat import Answer
from ..model.generation import TokenBudget
from ..model.observe import undisturbed
from ..model.served import Served
from ..probes.probe import Probe
from .answers import CHOICE_ANSWER, opening_prompts, opening_tokens, take_form
from .asking import Asking
from .audit import Audit
from .context import check_room
from .figures import logged
from .judged import judged
from .leaning import leanings, likelihood_rows, own_opening
from .likelihoods import ask_choices, refusal_margins
from .manner import manner_of
from .metrics import gather, tokens_said
from .prompts import encode_prompt, keep_prompts
from .reading import Told
from .result import Result
from .samples import draws_of, thinking


def askable(served: Served, probes: Sequence[Probe]) -> list[Probe]:
    """Those that a server can be asked: choices are likelihoods, which not every one tells."""
    return [probe for probe in probes if served.way is not None or probe.judge != "choice"]


def settle_served(served: Served, probes: Sequence[Probe], asking: Asking) -> None:
    """As [`settle_form`], of a start that is served."""
    sample, tokens = opening_prompts(probes, asking), opening_tokens(asking)
    if sample:
        said = served.each([partial(served.answer, prompt, False, tokens) for prompt in sample])
        take_form([asking.chat.decode(answer.tokens) for answer in said], asking.chat)


def ask_served(
    served: Served, probes: Sequence[Probe], asking: Asking, start: Mapping[str, Result] | None = None
) -> dict[str, Result]:
    """
    A served model's answers and scores.

    Args:
        served ([`Served`]):
            The model.
        probes (`Sequence[Probe]`):
            What is asked, of which [`askable`] leaves all.
        asking (`Asking`):
            How.
        start (`Mapping[str, Result]`, *optional*):
            What the model that it is held against has said, by probe id: leanings are read off its refusals' opening. A start itself
            has none.

    Returns:
        `dict[str, Result]` by probe id; without drift, and, of a server that gives no log-probabilities of a prompt, without leanings and
        refusal margins.

    Raises:
        EngineError: The server cannot be asked any more.
        ProbeError: A probe is too long for it.
    """
    check_room(served.size, f"{served.endpoint.url}", probes, asking)
    chat = asking.chat
    all_said = _said(served, probes, asking)
    said = {id: answers[0] for id, answers in all_said.items()}
    manner, thinks = manner_of(chain.from_iterable(all_said.values()), chat), thinking(all_said)
    opening = own_opening(probes, said)
    own = {p.id: opening if start is None else start[p.id].opening for p in probes}
    told, logprobs, margins, leaning = Told(), {}, {}, {}
    if served.way is not None:
        rows = {r.key: r for p in probes for r in likelihood_rows(p, chat, p.id in thinks, manner, own[p.id])}
        found = served.each([partial(served.logprob, row) for row in rows.values()])
        told.sums |= dict(zip(rows, found, strict=True))
        # all is told: no model is needed to read it off
        choices = [probe for probe in probes if probe.judge == "choice"]
        logprobs = ask_choices(None, choices, asking, thinks, manner, told)
        margins = refusal_margins(None, probes, asking, thinks, manner, told)
        leaning = leanings(None, probes, asking, own, thinks, manner, told)
    spoken = {p.id: all_said[p.id] for p in probes if p.judge != "choice"}
    with undisturbed(torch.device("cpu")):
        results = judged(probes, asking, spoken, logprobs, margins, leaning)
    if start is not None:
        return results
    asked = {p.id: None if p.plain else encode_prompt(p, chat)[0] for p in probes}
    results = {id: replace(result, prompt=asked[id], opening=opening) for id, result in results.items()}
    keep_prompts(results.values(), chat)
    return results


def _said(served: Served, probes: Sequence[Probe], asking: Asking) -> dict[str, tuple[Answer, ...]]:
    """What it says to every probe; to a choice a few words, which show whether it would think before them."""
    short = replace(asking.tokens, answer=min(CHOICE_ANSWER, asking.tokens.answer))
    jobs, counts = [], []
    for probe in probes:
        choice = probe.judge == "choice"
        draws = [None] if choice else draws_of(probe, asking)
        tokens: TokenBudget = short if choice else asking.tokens
        ids, inside = encode_prompt(probe, asking.chat)
        jobs += [partial(served.answer, ids, inside, tokens, draw) for draw in draws]
        counts.append(len(draws))
    found = iter(served.each(jobs, lambda: asking.tick(1)))
    return {p.id: tuple(next(found) for _ in range(n)) for p, n in zip(probes, counts, strict=True)}


def audit_served(
    served: Served, probes: Sequence[Probe], baseline: dict[str, Result], asking: Asking, step: int
) -> Audit:
    """
    Ask a served model, and hold it against a baseline that has all of these probes; one that is empty is filled with what it says
    itself.

    Args:
        served ([`Served`]), probes (`Sequence[Probe]`), asking (`Asking`):
            As for [`ask_served`].
        baseline (`dict[str, Result]`):
            What the model that it is held against has said.
        step (`int`):
            For the record.
    """
    begun = time.perf_counter()
    results = ask_served(served, probes, asking, baseline or None)
    if not baseline:
        baseline |= results
    metrics = gather(results, baseline)
    metrics[logged("cost/seconds")] = time.perf_counter() - begun
    metrics[logged("cost/tokens")] = tokens_said(results.values())
    return Audit(step, results, metrics, time.time())
