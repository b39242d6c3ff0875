"""`alignguard audit MODEL... --reference REF`: models held against another, without a trainer."""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from ..auditing.asking import work
from ..auditing.audit import audit
from ..auditing.context import check_traces, known_size
from ..auditing.forced import budget_advice
from ..auditing.prompts import encode_prompt
from ..errors import AlignGuardError, RunError, one_line
from ..files import write_text
from ..judging.scorers import scorer_name
from ..model.generation import context_size
from ..model.loading import check_place, common_tokenizer, device_of, load_model
from ..records.record import Record
from ..records.store import MODELS, Store
from ..report.several import joined, page, tables_of
from ..report.terminal import dumps, headline
from ..trainer.settings import Settings, about
from ..verdicts.watch import compare
from . import engine
from .against import is_address
from .asked import looks_of, reading, settings_of, spread
from .codes import MISTAKE, REGRESSION, exit_code
from .output import hand_over, make_room, output_folder, short, short_names, target, write
from .said import say, tell
from .start import Start, Way

T = TypeVar("T")
_STEP = 1  # a matched audit is one look, after the start


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    if (options.reference_model or options.reference_key_env) and not (
        options.engine and is_address(options.reference)
    ):
        options.refuse(
            "--reference-model and --reference-key-env are of a server: give --engine, and --reference its address"
        )
    if options.max_missed_drop is not None and options.engine and options.reference is None:
        options.refuse("--max-missed-drop: a model that is held against nothing tells of no drop; give --reference")
    if options.engine:
        return engine.run(options)
    if options.reference is None:
        options.refuse("the following arguments are required: --reference (only with --engine is it left out)")
    looks = options.looks or looks_of(options.models)
    settings, store = settings_of(options, looks), output_folder(options.output)  # what is quickly wrong is found first
    folders, given = short_names(options.models), target("--html", options.html) if options.html else None
    for name in (*options.models, options.reference):
        check_place(name)
    start = Start(options.reference, device_of(options.device), settings)
    if len(options.models) > 1:
        return _several(options, start, store, folders, looks, given)
    (name,) = options.models
    tokenizer, note = common_tokenizer(name, options.reference)
    record = _audited(options, name, start, store, tokenizer, [spread(options, looks), note])
    return hand_over(options, record, f"{name} against {options.reference}", given)


def _several(
    options: argparse.Namespace, start: Start, store: Store, folders: Sequence[str], looks: int, given: Path | None
) -> int:
    """
    One model after another, each with a record of its own, and all in one table. What is wrong with the first ends it; where a
    later one cannot be audited the others are, which may have taken hours, and that one is named at the end.
    """
    models = options.models
    tokenizers = [_of(name, partial(common_tokenizer, name, options.reference)) for name in models]
    if not options.looks:
        tell(f"alpha is spread over {looks} looks at {options.reference} (--looks 1: each model has all of it)")
    records: list[Record] = []
    failed: dict[str, str] = {}
    for number, (name, folder, (tokenizer, note)) in enumerate(zip(models, folders, tokenizers, strict=True), start=1):
        tell(f"{name}, {number} of {len(models)}")
        try:
            record = _of(name, partial(_audited, options, name, start, store, tokenizer, [note]))
        except (AlignGuardError, torch.OutOfMemoryError) as error:
            if not records:
                raise
            failed[name] = one_line(error if name in str(error) else f"{name}: {error}", 400)
            tell(failed[name])
            continue
        finally:
            gc.collect()  # of two models one is let go of before the next is there
            torch.cuda.empty_cache()
        if not records:
            make_room(store)
        of_it = Store(store.root / folder)
        records.append(replace(record, name=str(of_it.root), store=of_it))
        write(records[-1], of_it.report(record.about.quote))
        write_text(store.root / MODELS, dumps(joined(records, failed)))
    told = joined(records, failed)
    write_text(store.root / MODELS, dumps(told))
    sheet = given or store.root / "report.html"
    write_text(sheet, page(records, failed))
    if options.json:
        print(dumps(told | {"page": str(sheet)}))
    else:
        say(f"{len(records)} models against {options.reference}\n\n{tables_of(records, failed)}\n")
        for record in records:
            say(f"report  {record.store.report(record.about.quote)}")
        say(f"page    {sheet}")
    code = exit_code([record.verdict for record in records], options.max_missed_drop)
    unjudged = [record for record in records if exit_code([record.verdict]) == MISTAKE]
    wrong = [*failed.values(), *(f"{record.about.model}: {headline(record)}" for record in unjudged)]
    if wrong and code != REGRESSION:
        raise RunError("; ".join(wrong))
    for line in wrong:
        tell(line)
    return code


def _of(name: str, do: Callable[[], T]) -> T:
    """Whatever is wrong is told of the model it is wrong with."""
    try:
        return do()
    except AlignGuardError as error:
        raise error if name in str(error) else type(error)(f"{name}: {error}") from None


def _audited(
    options: argparse.Namespace, name: str, start: Start, store: Store, tokenizer: Any, notes: Sequence[str]
) -> Record:
    """One model, loaded, audited, and let go of."""
    settings = start.settings
    model = load_model(name, options.dtype, start.device)
    reference, way = start.beside(model, tokenizer)
    store.prepare()
    asking, new = way.asking, not way.baseline
    sizes = context_size(model), context_size(start.frozen)
    cut = check_traces(name, sizes[0], options.reference, sizes[1], way.asked, asking)
    if new:
        tell(_announcement(way, settings, model))
    for note in filter(None, [*notes, cut]):
        tell(note)
    samples = settings.sampling.samples if settings.sampling is not None else 1
    ticks = work(way.asked, True, samples) * new + work(way.asked, False, samples)
    with tqdm(total=ticks, desc="AlignGuard audit", file=sys.stderr) as bar:
        asking.tick = lambda n: bar.update(n) and None
        found = audit(model, tokenizer, way.asked, reference, baseline=way.baseline, asking=asking, step=_STEP)
    if new and (advice := budget_advice(start.frozen, way.baseline, asking)):
        tell(advice)
    verdict = compare(way.baseline, [found], settings.stop, settings.seed)
    found.metrics |= verdict.metrics()
    known = replace(
        about(model.config, asking.chat, reference, settings, last=None),
        model=name,
        against=options.reference,
        title=f"AlignGuard audit: {short(name)} against {short(options.reference)}",
        dtype=str(start.frozen.dtype).removeprefix("torch."),
        reads=known_size(sizes[1]),
        notes=(cut,) if cut else (),
    )
    return Record(options.output, store, known, way.baseline, [found], verdict)


def _announcement(way: Way, settings: Settings, model: torch.nn.Module) -> str:
    asked, chat = way.asked, way.asking.chat
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
    return text + reading(chat, settings, asked)
