"""The plain way to audit: what one would write with transformers alone. It gives the figures that `audit` gives.

Answers by `model.generate` in batches of 16, sorted by length; drift by full logits of both models at once, the start resident;
one forward a row for options and openings, in batches of 16. Which rows are read is told to it, and so is what form the policy
has: it is spared what finding that out would cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig

from alignguard import Audit
from alignguard.auditing.asking import Asking
from alignguard.auditing.audit import as_last
from alignguard.auditing.drifts import _as_told, items_of, opens_trace, said_from
from alignguard.auditing.judged import judge_all
from alignguard.auditing.leaning import likelihood_rows
from alignguard.auditing.likelihoods import REFUSALS, openings
from alignguard.auditing.manner import Manner
from alignguard.auditing.prompts import encode_prompt
from alignguard.auditing.result import Result
from alignguard.model.chat import Answer
from alignguard.model.forward import Row, pad_right
from alignguard.model.generation import reserve
from alignguard.model.observe import observing, undisturbed
from alignguard.model.rounding import rounding
from alignguard.probes.draw import spread
from alignguard.probes.probe import Probe

LOGPROB_GAP = 5e-3  # nats, of a whole option or opening: what float32 rounds is far less
BATCH, PAIRS = 16, 8  # rows that are read or answered at once, and rows of which both models' logits are


@dataclass(frozen=True)
class Questions:
    """
    What an audit asked.

    Args:
        asking (`Asking`):
            How.
        spoken (`Sequence[Probe]`):
            What is answered, with its prompts' token ids in `prompts`.
        whole (`Mapping[str, tuple[Row, Row, slice]]`), after (`Mapping[str, tuple[Row, Row, slice]]`):
            By probe id the start's row, the policy's, and which part of the former the latter's target is: of the answer as
            it stands, and of what stands after the policy's own form, where that is another.
        own (`Mapping[str, tuple[Row, Row]]`):
            The policy's row, and the start's, for the reverse drift.
        rows (`Mapping[str, Sequence[Row]]`):
            By probe id what the log-probability is wanted of.
    """

    asking: Asking
    spoken: Sequence[Probe]
    prompts: Mapping[str, list[int]]
    whole: Mapping[str, tuple[Row, Row, slice]]
    after: Mapping[str, tuple[Row, Row, slice]]
    own: Mapping[str, tuple[Row, Row]]
    rows: Mapping[str, Sequence[Row]]


@dataclass
class Figures:
    """What came of it, by probe id."""

    answers: dict[str, Answer]
    raw: dict[str, list[float]]
    answer: dict[str, list[float]]
    reverse: dict[str, float]
    sums: dict[str, list[float]]


def questions(
    found: Audit, probes: Sequence[Probe], baseline: dict[str, Result], asking: Asking, reverse: int = 16
) -> Questions:
    """What this audit asked, in rows."""
    chat, results = asking.chat, found.results
    manner = found.manner or Manner(chat.form)
    thinks = set(as_last(list(probes), baseline, found, chat).thinks)
    for id, result in results.items():
        if result.answer is None and result.drift is not None and opens_trace(result.drift, baseline[id], chat):
            thinks.add(id)
    writes = thinks
    if manner == Manner(chat.form):
        writes = {id for id, result in results.items() if result.drift is not None and result.drift.thinks >= 0.5}
    whole, after = {}, {}
    for item in items_of(probes, baseline, chat):
        whole[item.id] = (item.row, item.row, slice(0, len(item.answer.tokens)))
        told = _as_told(item, manner, item.id in writes, chat)
        if told is not None:
            after[item.id] = (item.row, *told)
    own = {}
    spoken = [probe for probe in probes if probe.judge != "choice"]
    for probe in spread(spoken, reverse):
        answer, (context, inside) = results[probe.id].answer, encode_prompt(probe, chat)
        item = replace(items_of([probe], baseline, chat)[0], answer=answer)
        tokens, cut = item.answer.tokens, said_from(item, chat)
        if cut < len(tokens):
            ours = Row([*context, *tokens[:cut]], tokens[cut:])
            own[probe.id] = (ours, ours if inside else Row([*context, *chat.lead_ids()], tokens[cut:]))
    rows = {p.id: likelihood_rows(p, chat, p.id in thinks, manner, baseline[p.id].opening) for p in probes}
    prompts = {p.id: encode_prompt(p, chat)[0] for p in spoken}
    return Questions(asking, spoken, prompts, whole, after, own, {id: r for id, r in rows.items() if r})


def plain_audit(policy: Any, start: Any, asked: Questions) -> Figures:
    """All of it, judged too."""
    pad = asked.asking.chat.pad_token_id
    with observing(policy, start):
        answers = say(policy, asked)
        raw = _drift(start, policy, asked.whole, pad)
        after = _drift(start, policy, asked.after, pad)
        pairs = [(ours, theirs) for ours, theirs in asked.own.values()]
        back = _kl(policy, start, pairs, [slice(0, len(ours.target)) for ours, _ in pairs], pad)
        sums = _sums(policy, asked.rows, pad)
    with undisturbed(torch.device("cpu")):
        judge_all(asked.spoken, [answers[probe.id] for probe in asked.spoken], asked.asking, {})
    reverse = {id: sum(kl) / len(kl) for id, kl in zip(asked.own, back, strict=True)}
    return Figures(answers, raw, {**raw, **after}, reverse, sums)


def say(model: Any, asked: Questions) -> dict[str, Answer]:
    """
    Answers by `generate`: what an answer takes, then for those that think as much as their trace may take, too, and where
    that was not closed once more what an answer takes.
    """
    chat, budget = asked.asking.chat, asked.asking.tokens
    said: dict[str, list[int]] = {id: [] for id in asked.prompts}
    size = getattr(model.config, "max_position_embeddings", None) or 2**30
    most = {id: min(budget.trace, size - reserve(chat) - len(p) - budget.answer) for id, p in asked.prompts.items()}
    _more(model, asked, said, list(said), budget.answer)
    inside = {probe.id: encode_prompt(probe, chat)[1] for probe in asked.spoken}
    thinking = [id for id in said if chat.answer(said[id], inside[id]).thinks]
    _more(model, asked, said, [id for id in thinking if not _ended(said[id], chat)], budget.trace)
    forced = []
    for id in thinking:
        stop = _stop(said[id], chat, inside[id], budget.answer, most[id])
        if stop is not None:
            said[id] = said[id][:stop]
        elif budget.force_close:
            cut = said[id][: most[id]]
            said[id] = (cut[:-1] if _ended(cut, chat) else cut) + chat.close_ids()
            forced.append(id)
    _more(model, asked, said, forced, budget.answer)
    return {id: chat.answer(tokens, inside[id], id in forced) for id, tokens in said.items()}


def _stop(said: list[int], chat: Any, inside: bool, answer: int, most: int) -> int | None:
    """
    Where an answer ends after a trace, seen token by token: when as much has been said since it was closed as an answer takes. It
    may be closed again within that. `None` where it is not closed in time.
    """
    in_time = False
    for n in range(1, len(said) + 1):
        seen = chat.answer(said[:n], inside)
        if seen.thinks and seen.closed:
            closing = chat.closing(said[:n])
            in_time |= closing <= most
            if in_time and (n >= min(closing, most) + answer or _ended(said[:n], chat)):
                return n
    return None


def _ended(said: Sequence[int], chat: Any) -> bool:
    return any(token in chat.eos_token_ids for token in said[-1:])


def _more(model: Any, asked: Questions, said: dict[str, list[int]], ids: Sequence[str], room: int) -> None:
    """Let these go on by so many tokens."""
    chat = asked.asking.chat
    config = GenerationConfig(
        do_sample=False, max_new_tokens=room, eos_token_id=list(chat.eos_token_ids), pad_token_id=chat.pad_token_id
    )
    own, model.generation_config = model.generation_config, config
    try:
        lines = {id: [*asked.prompts[id], *said[id]] for id in ids}
        for part in _batches(ids, [len(lines[id]) for id in ids], BATCH):
            width = max(len(lines[id]) for id in part)
            rows = [[chat.pad_token_id] * (width - len(lines[id])) + lines[id] for id in part]
            mask = [[0] * (width - len(lines[id])) + [1] * len(lines[id]) for id in part]
            out = model.generate(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask))
            for id, tokens in zip(part, out[:, width:].tolist(), strict=True):
                ends = [i + 1 for i, token in enumerate(tokens) if token in chat.eos_token_ids]
                said[id] = said[id] + tokens[: ends[0] if ends else None]
    finally:
        model.generation_config = own


def _batches(items: Sequence[Any], lengths: Sequence[int], size: int) -> Iterator[list[Any]]:
    order = sorted(range(len(items)), key=lambda i: -lengths[i])
    for i in range(0, len(order), size):
        yield [items[k] for k in order[i : i + size]]


def _logprobs(model: Any, rows: Sequence[Row], pad: int) -> list[torch.Tensor]:
    """Of each row the log-probabilities at its targets, (tokens, vocabulary)."""
    ids, mask = pad_right(rows, pad, torch.device("cpu"))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    return [z[len(r.context) - 1 : r.length - 1].log_softmax(-1) for z, r in zip(logits, rows, strict=True)]


def _kl(
    first: Any, second: Any, pairs: Sequence[tuple[Row, Row]], spans: Sequence[slice], pad: int
) -> list[list[float]]:
    """KL(first || second) at each token of `spans` of the first's rows, which are the second's targets."""
    found: dict[int, list[float]] = {}
    for part in _batches(range(len(pairs)), [pairs[i][0].length for i in range(len(pairs))], PAIRS):
        ours = _logprobs(first, [pairs[i][0] for i in part], pad)
        theirs = _logprobs(second, [pairs[i][1] for i in part], pad)
        for i, whole, q in zip(part, ours, theirs, strict=True):
            p = whole[spans[i]]
            found[i] = (p.exp() * (p - q)).sum(-1).tolist()
    return [found[i] for i in range(len(pairs))]


def _drift(start: Any, policy: Any, rows: Mapping[str, tuple[Row, Row, slice]], pad: int) -> dict[str, list[float]]:
    pairs = [(theirs, ours) for theirs, ours, _ in rows.values()]
    kl = _kl(start, policy, pairs, [span for _, _, span in rows.values()], pad)
    return dict(zip(rows, kl, strict=True))


def _sums(model: Any, asked: Mapping[str, Sequence[Row]], pad: int) -> dict[str, list[float]]:
    rows = [row for some in asked.values() for row in some]
    found: dict[int, float] = {}
    for part in _batches(range(len(rows)), [row.length for row in rows], BATCH):
        for i, logprobs in zip(part, _logprobs(model, [rows[i] for i in part], pad), strict=True):
            found[i] = logprobs.gather(1, torch.tensor(rows[i].target)[:, None]).sum().item()
    values = iter([found[i] for i in range(len(rows))])
    return {id: [next(values) for _ in some] for id, some in asked.items()}


def differences(found: Audit, plain: Figures, asked: Questions, policy: Any) -> dict[str, float]:
    """By how much the two differ: largest gaps in nats, and how many answers are not the same: ties, and such as ran on beyond their budget."""
    split = len(REFUSALS)
    gaps = {"kl_gap": 0.0, "answer_kl_gap": 0.0, "logprob_gap": 0.0, "margin_gap": 0.0}
    for id, result in found.results.items():
        assert result.drift is not None
        pairs = [("kl_gap", result.drift.raw, plain.raw[id])]
        if id in asked.after or len(result.drift.answer) == len(plain.answer[id]):
            pairs.append(("answer_kl_gap", result.drift.answer, plain.answer[id]))
        if result.logprobs is not None:
            sizes = [1 if result.probe.length == "sum" else len(o.encode()) for o in result.probe.options]
            ours = [value * size for value, size in zip(result.logprobs, sizes, strict=True)]
            pairs.append(("logprob_gap", ours, plain.sums[id]))
        margin = (result.score.detail or {}).get("margin")
        if margin is not None:
            sums = plain.sums[id][
                : len(openings(result.probe))
            ]  # what the leaning is read off beside stands after them
            declines, complies = (torch.tensor(s).logsumexp(0).item() for s in (sums[:split], sums[split:]))
            pairs.append(("margin_gap", [margin], [declines - complies]))
        for name, a, b in pairs:
            gaps[name] = max(gaps[name], *(abs(x - y) for x, y in zip(a, b, strict=True)))
    back = sum(plain.reverse.values()) / max(1, len(plain.reverse))
    gaps["reverse_gap"] = abs(back - (found.figure("kl/reverse") or 0.0))
    other = [id for id, answer in plain.answers.items() if found.results[id].answer.tokens != answer.tokens]
    budget, closed = asked.asking.tokens, len(asked.asking.chat.close_ids())
    most = (
        budget.trace + closed + budget.answer
    )  # one that closes its trace again and again may say more than that here
    run_on = [id for id in other if len(found.results[id].answer.tokens) > most]
    other = [id for id in other if id not in run_on]
    ties = sum(is_tie(policy, asked.prompts[id], found.results[id].answer, plain.answers[id]) for id in other)
    n = len(plain.answers)
    counts = {"identical": n - len(other) - len(run_on), "ties": ties, "run_on": len(run_on)}
    return {**gaps, "answers": n, **counts, "otherwise": len(other) - ties}


def is_tie(model: Any, prompt: Sequence[int], one: Answer, other: Answer) -> bool:
    """Whether two answers part where both go on with tokens whose logits are within rounding of each other."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if at is None:
        return False
    with observing(model):
        logits = model(input_ids=torch.tensor([[*prompt, *one.tokens[:at]]]), use_cache=False).logits[0, -1].float()
    top = logits.max()
    least = torch.stack([logits[one.tokens[at]], logits[other.tokens[at]]]).min()
    return bool(top - least <= rounding(model) * top.abs().clamp(min=1))
