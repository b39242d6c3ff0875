"""Traces and answers that their budgets cut off: how many, and what budget they would want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from ..judging.score import Status
from ..model.generation import Draft, answer_all
from ..model.observe import observing
from ..model.stopping import TokenBudget
from ..probes.draw import spread
from .asking import Asking
from .prompts import encode_prompt
from .result import Result

MANY = 0.2  # of the start's answers: above it their judgement says little
_WHOLE = ("number", "leak", "tell", "abstain")  # judges of what may come late
_SAMPLE, _REACH, _ROUND = 8, 4, 64  # traces that are let go on, over so many budgets; to what the advice is rounded


def budget_advice(start: Any, baseline: Mapping[str, Result], asking: Asking) -> str:
    """
    A word where more than a fifth of the start's answers were cut off before they came to their point, and one where as many came
    after a trace that was closed by force, with the budget that would do, found by letting a few of those traces go on; nothing
    where it is fewer.

    Args:
        start (`PreTrainedModel`):
            The model before training.
        baseline (`Mapping[str, Result]`):
            What it said.
        asking (`Asking`):
            How it was asked.
    """
    return "\n".join(filter(None, (_answers(baseline, asking.tokens), _traces(start, baseline, asking))))


def _answers(baseline: Mapping[str, Result], tokens: TokenBudget) -> str:
    there = [r for r in baseline.values() if r.probe.judge in _WHOLE and r.answer is not None and r.answer.answer]
    cut = [r for r in there if r.score.status is Status.TRUNCATED and r.answer is not None and not r.answer.forced]
    if len(cut) <= MANY * len(there):
        return ""
    return (
        f"AlignGuard: {len(cut)} of {len(there)} of the start's answers that should tell a number, a fact or a secret were cut off "
        f"at {tokens.answer:,} tokens before they did, and are unscored; TokenBudget(answer={2 * tokens.answer}) leaves more room."
    )


def _traces(start: Any, baseline: Mapping[str, Result], asking: Asking) -> str:
    chat, tokens = asking.chat, asking.tokens
    spoken = [result for result in baseline.values() if result.answer is not None and result.logprobs is None]
    cut = [r for r in spoken if r.answer is not None and r.answer.forced and len(_trace(r, asking)) >= tokens.trace]
    if not spoken or len(cut) <= MANY * len(spoken):
        return ""
    some = spread(cut, _SAMPLE)
    prompts = [encode_prompt(result.probe, chat) for result in some]
    longer = replace(tokens, answer=1, trace=_REACH * tokens.trace, force_close=False)
    with observing(start, autocast=asking.autocast):
        said = answer_all(
            start,
            [ids for ids, _ in prompts],
            [inside for _, inside in prompts],
            chat,
            longer,
            [Draft(_trace(result, asking)) for result in some],
            asking.ranks,
        )
    lengths = sorted(chat.closing(answer.tokens) for answer in said if answer.closed)
    share = len(cut) / len(spoken)
    wanted = ceil(len(some) * (1 - MANY / share))  # so many of them must close, for few enough to be left
    if len(lengths) >= wanted:
        room = ceil(lengths[wanted - 1] / _ROUND) * _ROUND
        advice = f"of {len(some)} that were let go on {wanted} closed by {room:,}: TokenBudget(trace={room}) would do"
    else:
        advice = f"of {len(some)} that were let go on {len(lengths)} closed by {longer.trace:,}: it would take more than that"
    return (
        f"AlignGuard: {share:.0%} of the start's answers came after a trace that was closed by force at {tokens.trace:,} tokens. "
        f"Those that go on thinking are unscored; {advice}."
    )


def _trace(result: Result, asking: Asking) -> tuple[int, ...]:
    """What was thought before the trace was closed."""
    assert result.answer is not None
    return result.answer.tokens[: asking.chat.forced_tokens(result.answer).start]
