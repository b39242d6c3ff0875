"""`alignguard audit MODEL --reference REF`: one model held against another, without a trainer."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..auditing.answers import settle_form
from ..auditing.asking import Asking, work
from ..auditing.audit import audit
from ..auditing.forced import trace_advice
from ..auditing.prompts import encode_prompt
from ..auditing.result import Result
from ..drift.reference import given_reference
from ..errors import RunError
from ..judging.scorers import INSTALL, judge_of, scorer_name, scorer_of
from ..model.chat import Chat
from ..model.checkpoints import checkpoints
from ..model.generation import TokenBudget
from ..model.loading import check_place, common_tokenizer, device_of, load_model
from ..probes.draw import draw
from ..probes.pool import load_probes
from ..probes.probe import Probe
from ..probes.public.benchmarks import find_benchmark
from ..probes.public.load import load_public
from ..records.record import Record, store_at
from ..records.store import Store
from ..report.html import write_report
from ..report.terminal import dumps, headline, summary, tables
from ..trainer.schedule import Schedule
from ..trainer.settings import Settings, about
from ..verdicts.rule import StopRule
from ..verdicts.watch import compare
from .codes import MISTAKE, exit_code

_STEP = 1  # a matched audit is one look, after the start


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    looks = _looks(options)
    settings, store = _settings(options, looks), _store(options.output)  # what is quickly wrong is found first
    for name in (options.model, options.reference):
        check_place(name)
    device = device_of(options.device)
    tokenizer, note = common_tokenizer(options.model, options.reference)
    model = load_model(options.model, options.dtype, device)
    frozen = load_model(options.reference, next(model.parameters()).dtype, device)
    reference = given_reference(model, frozen)
    store.prepare()
    chat = Chat.of(model, tokenizer, settings.template_kwargs, settings.tags)
    asking = Asking(chat, settings.tokens, settings.toxicity, settings.judge, seed=settings.seed)
    asked = draw(settings.pool, settings.schedule.draw, settings.seed)
    settle_form(frozen, asked, asking)
    _say(_announcement(asked, chat, settings, model))
    if options.looks is None and looks > 1:
        _say(
            f"{options.model} is one of {looks} checkpoints: alpha is spread over so many looks (--looks 1: over this one)"
        )
    if note:
        _say(note)

    baseline: dict[str, Result] = {}
    ticks = work(asked, baseline=True) + work(asked, baseline=False)
    with tqdm(total=ticks, desc="AlignGuard audit", file=sys.stderr) as bar:
        asking.tick = lambda n: bar.update(n) and None
        found = audit(model, tokenizer, asked, reference, baseline=baseline, asking=asking, step=_STEP)
    if advice := trace_advice(frozen, baseline, asking):
        _say(advice)
    verdict = compare(baseline, [found], settings.stop, settings.seed)
    found.metrics |= verdict.metrics()

    known = replace(
        about(model.config, chat, reference, settings, last=None),
        model=options.model,
        against=options.reference,
        title=f"AlignGuard audit: {_short(options.model)} against {_short(options.reference)}",
        dtype=str(frozen.dtype).removeprefix("torch."),
    )
    record = Record(options.output, store, known, baseline, [found], verdict)
    _write(record)
    if options.json:
        print(dumps(summary(record)))
    else:
        print(f"{options.model} against {options.reference}: {headline(record)}\n\n{tables(record)}")
        print(f"\nreport  {store.report(known.quote)}")
    code = exit_code([verdict], options.max_missed_drop)
    if exit_code([verdict]) == MISTAKE:  # a gate must not pass what nobody could judge
        raise RunError(f"{headline(record)}; what was said stands in {store.report(known.quote)}")
    return code


def _settings(options: argparse.Namespace, looks: int) -> Settings:
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
    )


def _looks(options: argparse.Namespace) -> int:
    """Checkpoints of one run that are audited in their turn: as many as there are, where nothing else is said."""
    if options.looks is not None:
        return int(options.looks)
    path = Path(options.model)
    return (
        max(1, len(checkpoints(path.resolve().parent))) if re.fullmatch(r"checkpoint-\d+", path.resolve().name) else 1
    )


def _pool(sources: list[str]) -> list[Probe]:
    """The probes of all sources; a benchmark's file is given as NAME=PATH."""
    parts: list[Any] = []
    for source in sources:
        name, _, path = source.partition("=")
        parts += load_public(name, path) if path and find_benchmark(name) else [source]
    return load_probes(parts)


def _store(output: str) -> Store:
    """Where the record goes: a folder of its own, since an earlier audit in it is moved away."""
    store = store_at(output)
    earlier = store.read_about()
    if earlier is not None and earlier.is_run:
        raise RunError(f"--output {output}: the record of a training run is in it; choose another folder")
    used = store.root.is_dir() and any(store.root.iterdir())
    if used and (earlier is None or Path.cwd().is_relative_to(store.root)):
        raise RunError(f"--output {output}: the folder is in use; choose a new one, or that of an earlier audit")
    return store


def _write(record: Record) -> None:
    store = record.store
    aside = store.set_aside()
    if aside is not None:
        _say(f"{record.name} holds an earlier audit; it was moved to {aside}")
    store.prepare()
    store.write_baseline(record.about, record.baseline)
    store.append(record.audits[0])
    write_report(store.report(record.about.quote), record.about, record.audits, record.verdict)


def _announcement(asked: list[Probe], chat: Chat, settings: Settings, model: torch.nn.Module) -> str:
    counts = Counter(probe.dimension for probe in asked)
    prompts = sum(len(encode_prompt(probe, chat)[0]) for probe in asked)
    spoken = sum(probe.judge != "choice" for probe in asked)
    first = next(model.parameters())
    text = (
        f"{len(asked)} probes ({', '.join(f'{name} {n}' for name, n in counts.items())}) of {len(settings.pool):,}, asked "
        f"of both models: {prompts:,} prompt tokens, at most {spoken} answers of {settings.tokens.answer} tokens and traces "
        f"of {settings.tokens.trace}, and {len(asked) - spoken} choices by likelihood; "
        f"{str(first.dtype).removeprefix('torch.')} on {first.device}; toxicity by {scorer_name(settings.toxicity)}"
    )
    text += f"\nalignguard: traces between {chat.form.open} and {chat.form.close} ({chat.form.why})"
    if settings.toxicity is None and counts["toxicity"]:
        text += f"\nalignguard: toxicity stays unscored; {INSTALL}, or give --toxicity a classifier"
    return text


def _say(text: str) -> None:
    print(f"alignguard: {text}", file=sys.stderr)


def _short(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
