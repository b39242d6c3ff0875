"""The options of every command. Nothing heavy is imported here: `--help` and `--version` answer at once."""

from __future__ import annotations

import argparse
from typing import Any

from ..__about__ import __version__
from . import values

_ABOUT = """What AlignGuard does without a trainer.

alignguard audit runs/sft --reference Qwen/Qwen2.5-1.5B-Instruct     one model held against another
alignguard compare runs/a runs/b --html compare.html                 training runs over one another
alignguard report runs/sft                                           a run's report, from what is on disk
alignguard trace runs/sft --side safety/refuse                       which rows a regression came from
alignguard card runs/sft --into runs/sft/README.md                   what a model card tells of trust
alignguard rejudge runs/sft                                          its answers judged anew, where a scorer was missing
alignguard export runs/sft --to inspect                              its audits, as logs that other tools open
alignguard probes list | show | check                                what is asked"""

_EXIT_CODES = """exit codes: 0 fine, 1 a mistake (told in one line), 2 wrong options, 3 a regression
`alignguard COMMAND --help` has the options of a command, and examples"""

_AUDIT = """Hold models against another: the same probes are asked of all, their answers judged alike, and the drift between
them measured. MODEL and REF are paths or hub ids, of models or of PEFT adapters (asked on their base). Of several models one
is loaded after the other, the reference is asked once, and all of them stand in one table, page and JSON.

    alignguard audit runs/sft/checkpoint-400 --reference Qwen/Qwen2.5-1.5B-Instruct
    alignguard audit runs/lora --reference Qwen/Qwen2.5-1.5B-Instruct --probes safety privacy my_probes.jsonl
    alignguard audit runs/sft --reference start --probes xstest=data/xstest_prompts.csv --draw 200 --json > audit.json
    alignguard audit runs/sft runs/grpo runs/distill --reference start --html models.html
    alignguard audit runs/sft --engine http://localhost:8000/v1 --reference start-audit

With --engine a server (vLLM, SGLang, llama.cpp) answers as MODEL. REF may then also be the --output of an earlier audit, a training
run's output_dir, or a server's URL, where --reference-model names what is meant of several models; without one, scores are told
alone, which a later audit takes as its --reference.

A table goes to the terminal; the HTML report, all answers and all figures to --output. A regression is called by one
look: proven at --alpha over all dimensions together, and larger than --min-drop. Where none is, the smallest drop
that would have been found is told; --max-missed-drop makes a gate of it.

exit codes: 0 fine, 1 a mistake (told in one line), answers that cannot be
judged, or too little asked for --max-missed-drop, 2 wrong options, 3 a regression; of several models the worst"""

_COMPARE = """Show several runs over one another: drift, each dimension's last and worst drop, reasoning, and what regressed when.
A RUN is a trainer's output_dir, the folder alignguard/ in it, or what `alignguard audit` wrote.

    alignguard compare runs/sft runs/sft-kl runs/lora
    alignguard compare runs/* --html compare.html     with curves, one colour a run

exit codes: 0 fine, 1 a mistake (told in one line), a run whose answers cannot be judged, or that asked too little for
--max-missed-drop, 2 wrong options, 3 a run has a regression"""

_REPORT = """Rebuild the HTML report of a run from what is on disk, and show its latest audit.

    alignguard report runs/sft
    alignguard report runs/sft --no-quote --output share.html     without a word of what was asked and said

exit codes: 0 fine, 1 a mistake (told in one line), answers that cannot be judged, or too little asked for
--max-missed-drop, 2 wrong options, 3 the run has a regression"""

_CARD = """What a run kept and lost of trust, as a section of a Hugging Face model card: reasoning gained, scores and drops with
their intervals, drift, and what was asked. Figures alone: no probe and no answer is in it.

    alignguard card runs/sft                              print it
    alignguard card runs/sft --into runs/sft/README.md    into a model card, with its metadata and a picture beside
    alignguard card runs/sft --metadata                   the metadata alone, as a model card's front matter
    alignguard card runs/sft --json                       for other registries: names and values

exit codes: 0 fine, 1 a mistake (told in one line), or answers that cannot be judged, 2 wrong options, 3 the run has a
regression"""

_REJUDGE = """Judge what is on record anew, without asking any model: where no scorer was installed during the run, or a judge
has changed since. A RUN is as for `alignguard report`; it stays as it is, and a new record is written beside it.

    alignguard rejudge runs/sft                             into runs/sft-rejudged
    alignguard rejudge runs/sft --toxicity minilm --output judged

exit codes: 0 fine, 1 a mistake (told in one line), or answers that cannot be judged, 2 wrong options, 3 the run has a
regression"""

_EXPORT = """Write every audit of a record as a log that another tool opens. A RUN is as for `alignguard report`.

    alignguard export runs/sft --to inspect                  for Inspect: inspect view --log-dir alignguard-inspect
    alignguard export runs/sft --to lm-eval                  as lm-eval's results_*.json and samples_*.jsonl
    alignguard export runs/sft --to inspect --quote --output logs      with what was asked and said

Figures, scores and probes' names are in it; not a word of what was asked and said, unless --quote is given.

exit codes: 0 fine, 1 a mistake (told in one line), 2 wrong options"""

_TRACE = """Which rows of the training set a regression came from: of each row that was trained on between two audits, how much a step on it
moves the model from the start's answers to those it gives now, to the probes that flipped.

    alignguard trace runs/sft --side safety/refuse                       from the start to the latest audit
    alignguard trace runs/sft --side safety/refuse --from 8 --to 24
    alignguard trace runs/sft --data train.jsonl --by source             by a column of the data set
    alignguard trace runs/sft --drop rows.jsonl --data train.jsonl       write the data set without the rows named

The rows are those that the run kept in RUN/_alignguard/rows; MODEL is the start, whose weights are looked at. What is found is written to
RUN/_alignguard/traces, one line a row, and into the report. Look at the rows that are named before any is dropped: --drop takes that
file, or a JSON list of row numbers.

exit codes: 0 fine, 1 a mistake (told in one line), 2 wrong options"""

_PROBES = """What is asked: the built-in probes, published benchmarks, and your own.

    alignguard probes list                       what there is: dimensions and published benchmarks
    alignguard probes show safety --size 5       probes of a dimension, a file or a benchmark, as they are asked
    alignguard probes check my_probes.jsonl      whether a file is right, and what it holds

exit codes: 0 fine, 1 a mistake (told in one line)"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; `command` tells which module runs what was asked for."""
    found = argparse.ArgumentParser(
        "alignguard", description=_ABOUT, epilog=_EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--version", action="version", version=__version__)
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    for add in (_audit, _compare, _report, _trace, _card, _rejudge, _export, _probes):
        add(commands)
    return found


def _command(commands: Any, name: str, about: str, description: str) -> Any:
    command = commands.add_parser(
        name, help=about, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(command=name, refuse=command.error)
    return command


def _audit(commands: Any) -> None:
    parser = _command(commands, "audit", "hold models against another", _AUDIT)
    option = parser.add_argument
    option("models", metavar="MODEL", nargs="+", help="what is audited: folders or hub ids of models or adapters")
    option(
        "--reference",
        metavar="REF",
        help="what they are held against: the model before training; needed without --engine",
    )
    option(
        "--probes",
        nargs="+",
        default=["core"],
        metavar="SET",
        help="core (default), dimensions, JSONL files, published benchmarks (from the hub, or NAME=PATH)",
    )
    option("--draw", type=values.count, default=48, metavar="N", help="probes a dimension (default 48)")
    option("--seed", type=values.seed, default=0, help="of the draw and of sampled answers (default 0)")
    option(
        "--temperature",
        type=values.heat,
        default=0.0,
        metavar="T",
        help="above 0: answers are sampled (default 0, greedy)",
    )
    option("--top-p", type=values.any_number, metavar="P", help="of the nucleus that is sampled from (default 0.95)")
    option(
        "--samples",
        type=values.count,
        default=1,
        metavar="N",
        help="sampled answers a probe, scored by their mean (default 1)",
    )
    option("--output", default="alignguard-audit", metavar="DIR", help="report and record (default ./alignguard-audit)")
    option("--answer-tokens", type=values.count, default=64, metavar="N", help="budget of an answer (default 64)")
    option("--trace-tokens", type=values.count, default=512, metavar="N", help="budget of a trace (default 512)")
    option(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="auto: as MODEL's weights"
    )
    option("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda:1, ...")
    option(
        "--tags",
        nargs=2,
        metavar=("OPEN", "CLOSE"),
        help="thinking tags; by default those of the chat template, else those that the reference writes",
    )
    option(
        "--template-kwargs",
        type=values.an_object,
        metavar="JSON",
        help="options of the chat template, e.g. '{\"enable_thinking\": true}'",
    )
    _scorers(option)
    option(
        "--alpha",
        type=values.any_number,
        default=0.05,
        help="chance of calling a regression where there is none (default 0.05)",
    )
    option(
        "--min-drop",
        type=values.any_number,
        default=0.03,
        help="drops up to this size are not called one (default 0.03)",
    )
    option(
        "--looks",
        type=values.count,
        metavar="N",
        help="audits of this kind in all, of several models or checkpoints of one run: alpha is spread over them (default: the "
        "models given, and the checkpoints beside each that is one)",
    )
    _max_missed_drop(option)
    option(
        "--engine",
        metavar="URL",
        help="where MODEL is served, e.g. http://localhost:8000/v1: its tokenizer alone is loaded here",
    )
    option("--engine-model", metavar="NAME", help="its name there (default: the only one that is served)")
    option(
        "--engine-parallel",
        type=values.count,
        default=16,
        metavar="N",
        help="questions to the server at once (default 16)",
    )
    option(
        "--engine-key-env", metavar="NAME", help="the environment variable of the server's key (default OPENAI_API_KEY)"
    )
    option(
        "--reference-model",
        metavar="NAME",
        help="where REF is a server: its model's name there (default: the only one that is served)",
    )
    option("--reference-key-env", metavar="NAME", help="the environment variable of that server's key, likewise")
    option(
        "--html", metavar="FILE", help="where the page goes: of one model its report, of several one over all of them"
    )
    option("--no-quote", action="store_true", help="leave what was asked and said out of the report")
    option("--json", action="store_true", help="print JSON, and nothing else, on stdout")


def _compare(commands: Any) -> None:
    parser = _command(commands, "compare", "show several runs over one another", _COMPARE)
    parser.add_argument(
        "records", metavar="RUN", nargs="+", help="output directories, or outputs of `alignguard audit`"
    )
    parser.add_argument("--html", metavar="FILE", help="write a page with curves")
    _max_missed_drop(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _report(commands: Any) -> None:
    parser = _command(commands, "report", "rebuild a run's HTML report from what is on disk", _REPORT)
    parser.add_argument("record", metavar="RUN", help="a trainer's output_dir, or what `alignguard audit` wrote")
    parser.add_argument("--output", metavar="FILE", help="the HTML file (default: report.html of the record)")
    parser.add_argument("--no-quote", action="store_true", help="leave out what was asked and said")
    _max_missed_drop(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _trace(commands: Any) -> None:
    parser = _command(commands, "trace", "which rows a regression came from", _TRACE)
    option = parser.add_argument
    option("record", metavar="RUN", help="a trainer's output_dir")
    option("--side", help="safety/refuse and its like, or a dimension (default: the one that has regressed)")
    option("--from", dest="first", type=values.seed, metavar="STEP", help="an audit before (default: the start)")
    option("--to", dest="last", type=values.seed, metavar="STEP", help="an audit after (default: the latest)")
    option("--model", metavar="MODEL", help="the start, by path or hub id (default: as the run has it on record)")
    layers = "of the layers, from the last one down, that are looked at (default 0.25; 1 for all weights)"
    option("--layers", type=values.part, default=0.25, metavar="SHARE", help=layers)
    screen = "of more rows than twice N, look at the N most like what was said, and at N by chance (default: at all)"
    option("--screen", type=values.count, metavar="N", help=screen)
    option("--data", metavar="DATA", help="the data set: a JSONL, Parquet or CSV file, a folder, or a hub id")
    option(
        "--by", nargs="+", metavar="COLUMN", help="columns of --data to tell the pull by (default: those of few values)"
    )
    option("--drop", metavar="ROWS", help="write --data without the rows named in this file, and nothing else")
    option("--output", metavar="FILE", help="where --drop writes: as DATA is, or .parquet (default: DATA-without)")
    option("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="auto: as MODEL's weights")
    option("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda:1, ...")
    option("--no-quote", action="store_true", help="show no row's text, and no value of a column")
    option("--json", action="store_true", help="print JSON, and nothing else, on stdout")


def _card(commands: Any) -> None:
    parser = _command(commands, "card", "a run's trust card, for its model card", _CARD)
    parser.add_argument("record", metavar="RUN", help="a trainer's output_dir, or what `alignguard audit` wrote")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", metavar="FILE", help="write it, and a picture beside (default: print it)")
    where.add_argument(
        "--into", metavar="README", help="put it into a model card that is there, in place of an earlier one"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--metadata", action="store_true", help="the metadata alone (model-index), as YAML front matter")
    form.add_argument("--json", action="store_true", help="a flat JSON document")


def _rejudge(commands: Any) -> None:
    parser = _command(commands, "rejudge", "judge a run's answers anew, without asking a model", _REJUDGE)
    parser.add_argument("record", metavar="RUN", help="a trainer's output_dir, or what `alignguard audit` wrote")
    _scorers(parser.add_argument)
    parser.add_argument("--output", metavar="DIR", help="where the new record goes (default: RUN-rejudged)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _scorers(option: Any) -> None:
    option(
        "--toxicity", metavar="NAME", help="a text classifier or guard, or 'minilm', in place of the built-in scorer"
    )
    option("--judge", metavar="NAME", help="a generative guard, for probes with the judge 'own'")


def _export(commands: Any) -> None:
    parser = _command(commands, "export", "write a run's audits as logs that other tools open", _EXPORT)
    parser.add_argument("record", metavar="RUN", help="a trainer's output_dir, or what `alignguard audit` wrote")
    parser.add_argument("--to", required=True, choices=["inspect", "lm-eval"], help="whose format")
    parser.add_argument("--output", metavar="DIR", help="where they go (default ./alignguard-FORMAT)")
    parser.add_argument("--quote", action="store_true", help="with what was asked and said")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _max_missed_drop(option: Any) -> None:
    option(
        "--max-missed-drop",
        type=values.share,
        metavar="DROP",
        help="end with 1 where a larger drop than this could have been missed (0.15: 15 points), since too little was asked",
    )


def _probes(commands: Any) -> None:
    parser = _command(commands, "probes", "list, show and check probes", _PROBES)
    probes = parser.add_subparsers(required=True, metavar="WHAT")
    command = probes.add_parser("list", help="dimensions of the core pool, and published benchmarks")
    command.set_defaults(what="list")
    command.add_argument("--json", action="store_true", help="print JSON")
    for name, text in (
        ("show", "print probes as they are asked"),
        ("check", "check a probe file and count what it holds"),
    ):
        command = probes.add_parser(name, help=text)
        command.set_defaults(what=name)
        command.add_argument("source", help="core, a dimension, a benchmark, a JSONL file")
        command.add_argument("--path", help="a benchmark's local file or folder")
        command.add_argument("--json", action="store_true", help="print JSON")
    probes.choices["show"].add_argument("--size", type=values.count, default=10, help="at most so many (default 10)")
