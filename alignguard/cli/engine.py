"""`alignguard audit MODEL --engine URL`: a served model, whose tokenizer alone is loaded here."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from transformers import PretrainedConfig

from ..auditing.asking import Asking
from ..auditing.context import known_size
from ..auditing.figures import compares
from ..auditing.prompts import encode_prompt
from ..auditing.served import askable, audit_served
from ..drift.reference import Reference
from ..errors import StartError
from ..judging.scorers import scorer_name
from ..model.chat import Chat
from ..model.endpoint import Endpoint
from ..model.generation import context_size
from ..model.loading import load_outline, load_tokenizer
from ..model.meeting import meet
from ..model.served import Served
from ..probes.draw import draw
from ..probes.probe import Probe
from ..records.record import Record
from ..trainer.settings import Settings, about
from ..verdicts.watch import compare
from .against import Against, held_against, progress
from .asked import looks_of, reading, settings_of, spread
from .output import hand_over, output_folder, short, target
from .said import tell

_NO_DRIFT = "drift is left out, since a server tells no whole distributions"
_ALONE, _LOOK = 0, 1  # steps: of a model that is held against nothing, and of one look at another


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    if len(options.models) > 1:
        options.refuse(
            "--engine: a server answers as one model; give one MODEL, the one it serves, and audit the next in its turn"
        )
    (name,) = options.models
    looks = options.looks or looks_of(options.models)
    settings, store = settings_of(options, looks), output_folder(options.output)
    report = target("--html", options.html) if options.html else None
    endpoint = Endpoint(options.engine, options.engine_key_env)
    tokenizer, outline = load_tokenizer(name), load_outline(name)
    if tokenizer is None:
        raise StartError(
            f"{name}: holds no tokenizer; with --engine MODEL is the folder or hub id of the tokenizer of what is served"
        )
    chat = Chat.of(outline, tokenizer, settings.template_kwargs, settings.tags)
    size = context_size(outline)
    served = meet(endpoint, options.engine_model, name, chat, size, options.engine_parallel)
    asking = Asking(
        chat, settings.tokens, settings.toxicity, settings.judge, seed=settings.seed, sampling=settings.sampling
    )
    drawn = draw(settings.pool, settings.schedule.draw, settings.seed)
    able = askable(served, drawn)
    against = held_against(options, settings, served, able, asking, size)
    asked, notes = against.asked, [*_other_name(served, name), *against.notes]
    if served.way is None:
        notes = [
            f"{len(drawn) - len(able)} choices, leanings and refusal margins are left out: {served.why_not}",
            *notes,
        ]
    store.prepare()
    tell(_announcement(served, asking, settings, against))
    for note in filter(None, [spread(options, looks), *notes]):
        tell(note)
    baseline = against.ask()
    with progress(asking, asked, "AlignGuard audit"):
        found = audit_served(served, asked, baseline, asking, _LOOK if against.name else _ALONE)
    verdict = compare(baseline, [found], settings.stop, settings.seed)
    found.metrics |= verdict.metrics()
    if not against.name:  # nothing has fallen, or risen, from anywhere
        found.metrics = {key: value for key, value in found.metrics.items() if not compares(key)}
    no_weights = Reference("engine", None, "a server answers")
    known = replace(
        about(PretrainedConfig(name_or_path=name), chat, no_weights, settings, last=None),
        model=name,
        against=against.name,
        title=f"AlignGuard audit: {short(name)}, served"
        + (f", against {against.model or short(against.name)}" if against.name else ""),
        dtype=against.dtype,
        reads=known_size(against.size),
        engine={"url": endpoint.url, "model": endpoint.shown(served.name, 80), "server": served.server}
        | ({"reference": against.answered} if against.name else {})
        | ({"reference_model": against.model} if against.model else {}),
        left_out=_left_out(served, drawn, asked),
        notes=(f"answered by {served.server or 'a server'} at {endpoint.url}; {_NO_DRIFT}", *notes),
    )
    what = f"{name} at {endpoint.url}" + (f" against {against.name}" if against.name else "")
    return hand_over(options, Record(options.output, store, known, baseline, [found], verdict), what, report)


def _other_name(served: Served, name: str) -> list[str]:
    """That a server calls its model otherwise than MODEL, of which the tokenizer alone was compared."""
    ours = (Path(name).expanduser().resolve().name if Path(name).expanduser().exists() else short(name)).casefold()
    if served.name.rstrip("/").casefold().endswith(ours):
        return []
    called = served.endpoint.shown(served.name, 80)
    return [
        f"the server calls its model {called!r}, and MODEL is {name}: that both are one was not seen, but for the tokenizer"
    ]


def _left_out(served: Served, drawn: list[Probe], asked: list[Probe]) -> tuple[str, ...]:
    chosen = len(drawn) - len(asked)
    return ("drift", *(["choices"] if chosen else []), *(["leanings"] if served.way is None else []))


def _announcement(served: Served, asking: Asking, settings: Settings, against: Against) -> str:
    chat, tokens, asked = asking.chat, settings.tokens, against.asked
    prompts = sum(len(encode_prompt(probe, chat)[0]) for probe in asked)
    spoken = sum(probe.judge != "choice" for probe in asked)
    text = (
        f"{len(asked)} probes of {len(settings.pool):,}, asked of {served.server or 'the server'} at {served.endpoint.url} as "
        f"{served.endpoint.shown(served.name, 80)}, {served.parallel} at once: {prompts:,} prompt tokens, at most {spoken} answers of "
        f"{tokens.answer} tokens and traces of {tokens.trace}; toxicity by {scorer_name(settings.toxicity)}"
    )
    if against.name:
        text += f"\nalignguard: held against {against.name}, answered by {against.answered}"
    return text + f"\nalignguard: {_NO_DRIFT}" + reading(chat, settings, asked)
