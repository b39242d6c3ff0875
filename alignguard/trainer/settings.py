"""What people ask of the callback, what goes on record of it, and what it will cost."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .. import __about__
from ..auditing.context import known_size
from ..auditing.prompts import encode_prompt
from ..drift.reference import Reference
from ..errors import AlignGuardError, ProbeError
from ..given import is_flag, is_whole, need
from ..holding.anchors import Anchor, check_disjoint, load_anchors
from ..holding.budget import DriftBudget
from ..judging.score import OwnJudge, ToxicityScorer
from ..judging.scorers import INSTALL, scorer_name
from ..model.chat import Chat
from ..model.generation import TokenBudget, context_size
from ..model.loading import Outline
from ..model.sampled import Sampling
from ..model.spoken import check_said
from ..model.trees import why_apart
from ..probes.draw import draw
from ..probes.probe import Probe, pool_hash
from ..records.about import About, as_json
from ..verdicts.rule import StopRule
from .schedule import Schedule

ENGINES = (None, "trainer")  # what may generate the policy's answers; see `engine.py`


_KINDS = {"schedule": Schedule, "tokens": TokenBudget, "stop": StopRule, "budget": DriftBudget}
_need = partial(need, where="AlignGuard")


@dataclass
class Settings:
    """What people ask of [`AlignGuardCallback`], see there."""

    pool: list[Probe]
    schedule: Schedule
    tokens: TokenBudget
    toxicity: ToxicityScorer | None
    judge: OwnJudge | None
    stop: StopRule | None
    template_kwargs: dict[str, Any] | None
    tags: tuple[str, str] | None
    reverse: int
    train_prompts: int
    seed: int
    budget: DriftBudget | None = None
    quote: bool = True
    engine: str | None = None
    rows: bool = True
    trace: bool = False
    card: bool = True
    sampling: Sampling | None = None
    anchors: dict[str, Anchor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._check()
        if self.budget is not None:
            self.anchors = load_anchors(self.budget.anchors)
            check_disjoint(self.anchors, self.pool)
        if self.engine not in ENGINES:
            raise AlignGuardError(f"engine={self.engine!r} is none; take 'trainer', or leave it out")
        own = next((probe for probe in self.pool if probe.judge == "own"), None)
        if own is not None and self.judge is None:
            raise ProbeError(f"probe {own.id!r} has the judge 'own': give judge=, a callable (prompt, answer) -> float")

    def _check(self) -> None:
        """What is of the wrong kind, or out of range."""
        for name, kind in _KINDS.items():
            value, optional = getattr(self, name), name in ("stop", "budget")
            right = isinstance(value, kind) or (optional and value is None)
            _need(right, f"{name}= is {'None or ' * optional}a {kind.__name__}, as {kind.__name__}(...)", value)
        for name in ("reverse", "train_prompts", "seed"):
            _need(is_whole(getattr(self, name), 0), f"{name}= is a whole number, 0 or more", getattr(self, name))
        for name in ("quote", "rows", "trace", "card"):
            _need(is_flag(getattr(self, name)), f"{name}= is True or False", getattr(self, name))
        check_said(self.tags, self.template_kwargs)

    def drawn(self, number: int) -> list[Probe]:
        """The probes of an audit by its number: that of step 0 is 0, and the one after it asks the same."""
        return draw(self.pool, self.schedule.draw, self.seed, max(0, number - 1) if self.schedule.rotate else 0)


def about(config: Any, chat: Chat, reference: Reference, settings: Settings, last: int | None) -> About:
    """
    What goes on record of a run, and must be the same when it is resumed.

    Args:
        config (`PretrainedConfig`):
            The model's.
        chat ([`Chat`]), reference ([`Reference`]), settings ([`Settings`]):
            How it is asked, and against what.
        last (`int`, *optional*):
            The trainer's last step; a matched audit of two models has none.
    """
    rule = settings.stop or StopRule(checkpoint=False, stop=False)
    return About(
        alignguard=__about__.__version__,
        model=getattr(config, "_name_or_path", "") or config.model_type,
        model_fingerprint=reference.fingerprint,
        tokenizer_fingerprint=chat.fingerprint(),
        reference=reference.kind,
        pool_hash=pool_hash(settings.pool),
        probes=len(settings.pool),
        draw=settings.schedule.draw,
        seed=settings.seed,
        toxicity=scorer_name(settings.toxicity),
        judge=scorer_name(settings.judge),
        rule=f"{rule.rule}, alpha {rule.alpha}, min_drop {rule.min_drop}, patience {rule.patience}"
        + ("" if settings.stop else "; stops nothing"),
        stop={**vars(rule), "dimensions": list(rule.dimensions), "floors": dict(rule.floors)},
        looks=rule.looks or (1 if last is None else None),
        alpha_until=last,
        budget=_budget_name(settings),
        overhead=settings.schedule.overhead if last is not None else None,
        tags=tuple(chat.tags),
        answer_tokens=settings.tokens.answer,
        trace_tokens=settings.tokens.trace,
        reads=known_size(context_size(Outline(config, None))),
        template_kwargs=json.loads(json.dumps(settings.template_kwargs, default=as_json)) or None,
        sampling=vars(settings.sampling) if settings.sampling is not None else None,
        max_steps=last,
        quote=settings.quote,
    )


def _budget_name(settings: Settings) -> str | None:
    budget = settings.budget
    if budget is None:
        return None
    how = "held by the controller" if budget.coefficient is None else f"coefficient {budget.coefficient}"
    return (
        f"max_kl {budget.max_kl}, {how}, {budget.batch} of {len(settings.anchors)} anchors every {budget.every} steps"
    )


def announcement(chat: Chat, reference: Reference, settings: Settings, last: int) -> str:
    """What an audit will cost, said before the first is taken."""
    schedule, tokens = settings.schedule, settings.tokens
    asked = settings.drawn(0)
    prompts = sum(len(encode_prompt(probe, chat)[0]) for probe in asked)
    spoken = sum(probe.judge != "choice" for probe in asked)
    steps = schedule.planned(last)
    shown = ", ".join(map(str, steps[:8])) + (f", ... {steps[-1]}" if len(steps) > 8 else "")
    text = (
        f"AlignGuard: {len(asked)} probes an audit ({prompts:,} prompt tokens, at most {spoken} answers of "
        f"{tokens.answer} tokens and traces of {tokens.trace}); {'at most ' * (schedule.overhead is not None)}{len(steps)} audits, at steps "
        f"{shown}\n"
        f"AlignGuard: reference '{reference.kind}' ({reference.why}), {reference.bytes / 2**20:,.0f} MiB "
        f"beside the policy; toxicity by {scorer_name(settings.toxicity)}\n"
        f"AlignGuard: traces between {chat.form.open} and {chat.form.close} ({chat.form.why})"
    )
    if late := schedule.beyond(last):
        text += f"\nAlignGuard: Schedule(at=) names {', '.join(map(str, late[:8]))}, beyond the last step, {last}: no audit is there"
    if settings.budget is not None:
        text += f"\nAlignGuard: drift budget: {_budget_name(settings)}"
    if settings.toxicity is None and any(probe.judge == "toxicity" for probe in settings.pool):
        text += f"\nAlignGuard: toxicity stays unscored; {INSTALL}, or give toxicity= a callable"
    return text


def from_now_on(model: Any, settings: Settings, last: int, seconds: float) -> str:
    """What the audit of step 0 has shown of the others."""
    planned, overhead = len(settings.schedule.planned(last)) - 1, settings.schedule.overhead
    text = f"AlignGuard: {planned} more audits, about {seconds:.0f} s each while answers stay this long"
    if overhead is not None:
        text += (
            f"; between this and the last they take at most {overhead:.0%} of the run's time, and those that do not fit are left "
            "out (Schedule(overhead=None) takes all)"
        )
    apart = why_apart(model)
    if apart:
        text += f"\nAlignGuard: prompts are read again for each option and opening, since {apart}"
    return text
