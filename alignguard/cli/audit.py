"""`alignguard audit MODEL --reference REF`: one model held against another, without a trainer."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..asking import Asking, Result, prompt_of, work
from ..audit import audit
from ..chat import Chat
from ..draw import draw
from ..errors import RunError
from ..generation import TokenBudget
from ..probes import Probe, load_probes
from ..probes.public import find_benchmark, load_public
from ..reference import given_reference
from ..report import write_report
from ..schedule import Schedule
from ..scoring.toxicity import INSTALL, judge_of, scorer_name, scorer_of
from ..settings import Settings, about
from ..stop import StopRule
from ..store import Store
from ..verdict import compare
from .loading import check_place, device_of, load_model, load_tokenizer
from .record import Record, store_at
from .show import dumps, headline, summary, tables, unjudged

_STEP = 1  # a matched audit is one look, after the start
_DESCRIPTION = """Hold one model against another: the same probes are asked of both, their answers judged alike, and the drift between
them measured. MODEL and REF are paths or hub ids, of models or of PEFT adapters (asked on their base).

    alignguard audit runs/sft/checkpoint-400 --reference Qwen/Qwen2.5-1.5B-Instruct
    alignguard audit runs/lora --reference Qwen/Qwen2.5-1.5B-Instruct --probes safety privacy my_probes.jsonl
    alignguard audit runs/sft --reference start --probes xstest=data/xstest_prompts.csv --draw 200 --json > audit.json

A table goes to the terminal; the HTML report, all answers and all figures to --output. A regression is called by one
look: proven at --alpha over all dimensions together, and no smaller than --min-drop.

exit codes: 0 fine, 1 a mistake (told in one line), or answers that cannot be
judged, 2 wrong options, 3 a regression"""


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "audit",
        help="hold one model against another",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    option = parser.add_argument
    option("model", metavar="MODEL", help="what is audited: a folder or hub id of a model or adapter")
    option("--reference", required=True, metavar="REF", help="what it is held against: the model before training")
    option(
        "--probes",
        nargs="+",
        default=["core"],
        metavar="SET",
        help="core (default), dimensions, JSONL files, published benchmarks (from the hub, or NAME=PATH)",
    )
    option("--draw", type=_count, default=48, metavar="N", help="probes a dimension (default 48)")
    option("--seed", type=int, default=0, help="of the draw and of sampled answers (default 0)")
    option("--output", default="alignguard-audit", metavar="DIR", help="report and record (default ./alignguard-audit)")
    option("--answer-tokens", type=_count, default=64, metavar="N", help="budget of an answer (default 64)")
    option("--trace-tokens", type=_count, default=512, metavar="N", help="budget of a trace (default 512)")
    option(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="auto: as MODEL's weights"
    )
    option("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda:1, ...")
    option("--toxicity", metavar="NAME", help="a text classifier or guard in place of the built-in toxicity scorer")
    option("--judge", metavar="NAME", help="a generative guard, for probes with the judge 'own'")
    option(
        "--alpha", type=float, default=0.05, help="chance of calling a regression where there is none (default 0.05)"
    )
    option("--min-drop", type=float, default=0.03, help="smallest mean drop that is called one (default 0.03)")
    option("--no-quote", action="store_true", help="leave what was asked and said out of the report")
    option("--json", action="store_true", help="print JSON, and nothing else, on stdout")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"1 or more is expected, not {value}")
    return value


def _run(options: argparse.Namespace) -> int:
    settings, store = _settings(options), _store(options.output)  # what is quickly wrong is found first
    for name in (options.model, options.reference):
        check_place(name)
    device = device_of(options.device)
    tokenizer, note = load_tokenizer(options.model, options.reference)
    model = load_model(options.model, options.dtype, device)
    frozen = load_model(options.reference, next(model.parameters()).dtype, device)
    reference = given_reference(model, frozen)
    store.prepare()
    chat = Chat.of(model, tokenizer)
    asking = Asking(chat, settings.tokens, settings.toxicity, settings.judge, seed=settings.seed)
    asked = draw(settings.pool, settings.schedule.draw, settings.seed)
    _say(_announcement(asked, chat, settings, model))
    if note:
        _say(note)

    baseline: dict[str, Result] = {}
    ticks = work(asked, baseline=True) + work(asked, baseline=False)
    with tqdm(total=ticks, desc="AlignGuard audit", file=sys.stderr) as bar:
        asking.tick = lambda n: bar.update(n) and None
        found = audit(model, tokenizer, asked, reference, baseline=baseline, asking=asking, step=_STEP)
    verdict = compare(baseline, [found], settings.stop, settings.seed)
    found.metrics |= verdict.metrics()

    known = about(model.config, chat, reference, settings, last=0)
    del known["max_steps"]
    known |= {
        "model": options.model,
        "against": options.reference,
        "title": f"AlignGuard audit: {_short(options.model)} against {_short(options.reference)}",
        "dtype": str(frozen.dtype).removeprefix("torch."),
    }
    record = Record(options.output, store, known, baseline, [found], verdict)
    _write(record)
    if options.json:
        print(dumps(summary(record)))
    else:
        print(f"{options.model} against {options.reference}: {headline(record)}\n\n{tables(record)}")
        print(f"\nreport  {store.report}")
    if verdict.since:
        return 3
    if unjudged(record):  # a gate must not pass what nobody could judge
        raise RunError(f"{headline(record)}; what was said stands in {store.report}")
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        pool=_pool(options.probes),
        schedule=Schedule(draw=options.draw),
        tokens=TokenBudget(options.answer_tokens, options.trace_tokens),
        toxicity=scorer_of(options.toxicity),
        judge=judge_of(options.judge),
        stop=StopRule(options.alpha, options.min_drop, checkpoint=False, stop=False),
        template_kwargs=None,
        tags=None,
        reverse=16,
        train_prompts=0,
        seed=options.seed,
        quote=not options.no_quote,
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
    if earlier is not None and "max_steps" in earlier:
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
    write_report(store.report, record.about, record.audits, record.verdict)


def _announcement(asked: list[Probe], chat: Chat, settings: Settings, model: torch.nn.Module) -> str:
    counts = Counter(probe.dimension for probe in asked)
    prompts = sum(len(prompt_of(probe, chat)[0]) for probe in asked)
    spoken = sum(probe.judge != "choice" for probe in asked)
    first = next(model.parameters())
    text = (
        f"{len(asked)} probes ({', '.join(f'{name} {n}' for name, n in counts.items())}) of {len(settings.pool):,}, asked "
        f"of both models: {prompts:,} prompt tokens, at most {spoken} answers of {settings.tokens.answer} tokens and traces "
        f"of {settings.tokens.trace}, and {len(asked) - spoken} choices by likelihood; "
        f"{str(first.dtype).removeprefix('torch.')} on {first.device}; toxicity by {scorer_name(settings.toxicity)}"
    )
    if settings.toxicity is None and counts["toxicity"]:
        text += f"\nalignguard: toxicity stays unscored; {INSTALL}, or give --toxicity a classifier"
    return text


def _say(text: str) -> None:
    print(f"alignguard: {text}", file=sys.stderr)


def _short(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
