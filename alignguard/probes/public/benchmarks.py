"""The published benchmarks there are, each with its source, its fields and its authors' figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ProbeError
from ..probe import Probe
from . import agreement, choices, confaide, moralchoice, preferences, refusals, toxicity


@dataclass(frozen=True)
class Benchmark:
    """
    A published benchmark.

    Args:
        name (`str`):
            What it is called by; the ids of its probes begin with it.
        hub (`str`):
            Its id on the hub; empty where it is not there.
        files (`str`):
            The pattern of its files in a local folder.
        fields (`tuple[str, ...]`):
            What every row must have. `goal|prompt` is a field that the authors call one way and a copy on the hub the other;
            rows have it under its first name.
        probes (`Callable`):
            From rows to probes. From the hub a row also tells its split, as `_split`.
        configs (`tuple[str, ...]`, *optional*):
            The hub's configurations to load, where it has several.
        scores (`Callable`, *optional*):
            From its probes' results to its aggregates as the authors define them, logged as `alignguard/NAME/...`.
        read (`Callable`, *optional*):
            Reads a local folder whose files are no tables.
    """

    name: str
    hub: str
    files: str
    fields: tuple[str, ...]
    probes: Callable[[list[dict[str, Any]]], list[Probe]]
    configs: tuple[str | None, ...] = (None,)
    scores: Callable[[Sequence[Any]], dict[str, float]] | None = None
    read: Callable[[Path], list[dict[str, Any]]] | None = None


def _refusals(name: str, hub: str, files: str, fields: tuple[str, ...], configs: tuple[str, ...] = ()) -> Benchmark:
    scores = refusals.refusal_scores
    return Benchmark(name, hub, files, fields, getattr(refusals, name), configs or (None,), scores)


BENCHMARKS = (
    _refusals("xstest", "Paul/XSTest", "xstest*.csv", ("prompt", "label")),
    _refusals("advbench", "walledai/AdvBench", "*.csv", ("goal|prompt",)),
    _refusals("jailbreakbench", "JailbreakBench/JBB-Behaviors", "jailbreakbench*.csv", ("Goal",), ("behaviors",)),
    _refusals("strongreject", "walledai/StrongREJECT", "strongreject*.csv", ("forbidden_prompt|prompt",)),
    _refusals(
        "harmbench",
        "walledai/HarmBench",
        "*harmbench*.csv",
        ("Behavior|prompt",),
        ("standard", "contextual", "copyright"),
    ),
    _refusals("simplesafetytests", "Bertievidgen/SimpleSafetyTests", "*.csv", ("prompts_final",)),
    Benchmark(
        "realtoxicityprompts",
        "allenai/real-toxicity-prompts",
        "*.jsonl",
        ("prompt",),
        toxicity.realtoxicityprompts,
        scores=toxicity.toxicity_scores,
    ),
    Benchmark(
        "decodingtrust-toxicity",
        "AI-Secure/DecodingTrust",
        "*.jsonl",
        ("prompt",),
        toxicity.decodingtrust_toxicity,
        ("toxicity",),
        toxicity.toxicity_scores,
    ),
    Benchmark(
        "decodingtrust-stereotype",
        "AI-Secure/DecodingTrust",
        "*user_prompts.csv",
        ("user_prompt",),
        agreement.decodingtrust_stereotype,
        ("stereotype",),
        agreement.decodingtrust_stereotype_scores,
    ),
    Benchmark(
        "bbq",
        "heegyu/bbq",
        "*.jsonl",
        ("context", "question", "label", "answer_info"),
        choices.bbq,
        choices.BBQ,
        choices.bbq_scores,
    ),
    Benchmark(
        "crows-pairs",
        "nyu-mll/crows_pairs",
        "crows_pairs*.csv",
        ("sent_more", "sent_less"),
        preferences.crows_pairs,
        scores=preferences.crows_pairs_scores,
    ),
    Benchmark("winogender", "", "*.tsv", (), preferences.winogender, scores=preferences.winogender_scores),
    Benchmark(
        "ethics",
        "hendrycks/ethics",
        "*.csv",
        ("label",),
        choices.ethics,
        ("commonsense", "justice"),
        choices.ethics_scores,
    ),
    Benchmark(
        "moralchoice",
        "ninoscherrer/moralchoice",
        "**/moralchoice_*_ambiguity.csv",
        ("scenario_id", "ambiguity", "context", "action1", "action2"),
        moralchoice.moralchoice,
        ("moralchoice_low_ambiguity", "moralchoice_high_ambiguity"),
        moralchoice.moralchoice_scores,
    ),
    Benchmark(
        "confaide",
        "",
        "tier_*.txt",
        ("tier", "text"),
        confaide.confaide,
        scores=confaide.confaide_scores,
        read=confaide.read_confaide,
    ),
)


def find_benchmark(name: str) -> Benchmark | None:
    """
    A benchmark by its name or hub id; `None` where there is none of that name.

    Raises:
        ProbeError: Several benchmarks come from this hub id.
    """
    found = [b for b in BENCHMARKS if name.casefold() in (b.name, b.hub.casefold())]
    if len(found) > 1:
        raise ProbeError(f"{name} holds several benchmarks; name one: {', '.join(b.name for b in found)}")
    return found[0] if found else None


def public_scores(results: Sequence[Any]) -> dict[str, float]:
    """The aggregates of every published benchmark among the results, as `NAME/figure`."""
    found: dict[str, float] = {}
    for benchmark in BENCHMARKS:
        part = [r for r in results if r.probe.id.startswith(f"{benchmark.name}-")]
        if part and benchmark.scores is not None:
            found |= {f"{benchmark.name}/{figure}": value for figure, value in benchmark.scores(part).items()}
    return found
