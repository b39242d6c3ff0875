"""What a matched audit asks and by what rule, from its options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..judging.scorers import INSTALL, judge_of, scorer_of
from ..model.chat import Chat
from ..model.checkpoints import checkpoints
from ..model.generation import TokenBudget
from ..model.sampled import Sampling
from ..probes.pool import load_probes
from ..probes.probe import Probe
from ..probes.public.benchmarks import find_benchmark
from ..probes.public.load import load_public
from ..trainer.schedule import Schedule
from ..trainer.settings import Settings
from ..verdicts.rule import StopRule


def settings_of(options: argparse.Namespace, looks: int) -> Settings:
    """What people ask, with alpha spread over so many looks."""
    return Settings(
        pool=_pool(options.probes),
        schedule=Schedule(draw=options.draw),
        tokens=TokenBudget(options.answer_tokens, options.trace_tokens),
        toxicity=scorer_of(options.toxicity),
        judge=judge_of(options.judge),
        # what an earlier look has shown is not known here: each has its share of alpha
        stop=StopRule(options.alpha / looks, options.min_drop, checkpoint=False, stop=False),
        template_kwargs=options.template_kwargs,
        tags=tuple(options.tags) if options.tags else None,
        reverse=16,
        train_prompts=0,
        seed=options.seed,
        quote=not options.no_quote,
        sampling=_sampling(options),
    )


def reading(chat: Chat, settings: Settings, asked: Sequence[Probe]) -> str:
    """How answers will be drawn and read, and what will not be scored, as further lines of what is said before anything is asked."""
    text = ""
    if (drawn := settings.sampling) is not None:
        text += (
            f"\nalignguard: each answer is sampled {drawn.samples} times, at temperature {drawn.temperature:g} and top_p "
            f"{drawn.top_p:g}, with the seed {settings.seed}"
        )
    text += f"\nalignguard: traces between {chat.form.open} and {chat.form.close} ({chat.form.why})"
    if settings.toxicity is None and any(probe.dimension == "toxicity" for probe in asked):
        text += f"\nalignguard: toxicity stays unscored; {INSTALL}, or give --toxicity a classifier"
    return text


def _sampling(options: argparse.Namespace) -> Sampling | None:
    """How answers are drawn; greedy ones are the default, and always the same."""
    if options.temperature > 0:
        return Sampling(
            options.temperature, Sampling.top_p if options.top_p is None else options.top_p, options.samples
        )
    for name, given in (("--samples", options.samples > 1), ("--top-p", options.top_p is not None)):
        if given:
            raise RunError(f"{name}: greedy answers are always the same; give --temperature 0.6, or leave {name} out")
    return None


def looks_of(models: Sequence[str]) -> int:
    """
    Looks at one reference, as far as they are seen: every model of the call, and of a run of which one is a checkpoint all of
    its checkpoints, which are audited in their turn.
    """
    looked_at = set()
    for name in models:
        path = Path(name).resolve()
        looked_at.add(path)
        if re.fullmatch(r"checkpoint-\d+", path.name):
            looked_at |= {found.resolve() for found in checkpoints(path.parent).values()}
    return len(looked_at)


def spread(options: argparse.Namespace, looks: int) -> str:
    """That alpha is shared with the checkpoints beside the one model of a call, where they are and nobody has said so; else nothing."""
    if options.looks or looks == 1:
        return ""
    return f"{options.models[0]} is one of {looks} checkpoints: alpha is spread over so many looks (--looks 1: over this one)"


def _pool(sources: list[str]) -> list[Probe]:
    """The probes of all sources; a benchmark's file is given as NAME=PATH."""
    parts: list[Any] = []
    for source in sources:
        name, _, path = source.partition("=")
        parts += load_public(name, path) if path and find_benchmark(name) else [source]
    return load_probes(parts)
