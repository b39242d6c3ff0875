"""Published benchmarks as probes, from the hub or from a local file; one small file a kind.

None of their texts ship with the package. Each benchmark's function turns rows into probes and is cited with its licence;
what is missing in a row is an error that names the file, the row and the field.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ProbeError
from .. import Probe
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


def load_public(name: str, path: str | Path | None = None, size: int | None = None, seed: int = 0) -> list[Probe]:
    """
    A published benchmark as probes.

    Args:
        name (`str`):
            Its name or hub id, e.g. `"xstest"` or `"Paul/XSTest"`.
        path (`str` or `Path`, *optional*):
            A local file (csv, tsv, json, jsonl, parquet) or a folder that holds it; by default it is loaded from the hub.
        size (`int`, *optional*):
            A sample of so many items; all by default. The orders or samples of one item are taken together.
        seed (`int`, *optional*, defaults to `0`):
            Of the sample.

    Raises:
        ProbeError: The benchmark is unknown, cannot be loaded, or its rows lack a field.

    Example:
    ```python
    >>> AlignGuardCallback(probes=["core", *load_public("xstest", "data/xstest_prompts.csv", size=100)])
    ```
    """
    benchmark = find_benchmark(name)
    if benchmark is None:
        raise ProbeError(f"no benchmark '{name}'; there are: {', '.join(b.name for b in BENCHMARKS)}")
    where, rows = _from_hub(benchmark) if path is None else _from_disk(Path(path), benchmark)
    for number, row in enumerate(rows, 1):
        for field in benchmark.fields:
            first, *others = field.split("|")
            given = next((row[name] for name in (first, *others) if row.get(name) is not None), None)
            if given is None or not str(given).strip():
                found = ", ".join(key for key in map(str, row) if key[0] != "_")[:120]
                raise ProbeError(f"{where}, row {number}: the field '{first}' is missing or empty; found: {found}")
            row[first] = given
    if not rows:
        raise ProbeError(f"{where}: holds no row")
    probes = benchmark.probes(rows)
    items = list(dict.fromkeys(_item(probe) for probe in probes))
    if size is not None and size < len(items):
        chosen = {items[i] for i in np.random.default_rng(seed).permutation(len(items))[:size]}
        probes = [probe for probe in probes if _item(probe) in chosen]
    return probes


def _item(probe: Probe) -> str:
    """What is sampled together: the orders and samples of one item differ after a slash."""
    return probe.id.partition("/")[0]


def _from_hub(benchmark: Benchmark) -> tuple[str, list[dict[str, Any]]]:
    from datasets import load_dataset

    if not benchmark.hub:
        raise ProbeError(
            f"{benchmark.name} is not on the hub; give load_public('{benchmark.name}', path=...) its folder"
        )
    try:
        loaded = [load_dataset(benchmark.hub, config) for config in benchmark.configs]
    except Exception as error:  # network, authentication, a script that is not trusted: all end here
        line = " ".join(str(error).split())[:160]
        raise ProbeError(
            f"{benchmark.hub}: cannot be loaded from the hub ({line}); give load_public('{benchmark.name}', path=...) a file"
        ) from None
    return benchmark.hub, [{**row, "_split": split} for part in loaded for split, rows in part.items() for row in rows]


def _from_disk(path: Path, benchmark: Benchmark) -> tuple[str, list[dict[str, Any]]]:
    if path.is_dir():
        found = sorted(path.glob(benchmark.files))
        if not found:
            raise ProbeError(f"{path}: no file of {benchmark.name} in it ({benchmark.files})")
        if benchmark.read is not None:
            return str(path), benchmark.read(path)
        return str(path), [row for file in found for row in read_rows(file)]
    if benchmark.read is not None:
        raise ProbeError(f"{path}: {benchmark.name} is read from the folder of its files")
    return str(path), read_rows(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """
    Rows of a csv, tsv, json, jsonl or parquet file.

    Raises:
        ProbeError: In one line: the file, and the line where that is known.
    """
    try:
        if path.suffix in (".csv", ".tsv"):
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
                return [dict(row) for row in reader]
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pylist()
        if path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise ProbeError(f"{path}: a list of objects is expected")
            return rows
        if path.suffix == ".jsonl":
            rows = []
            for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
                if line.strip():
                    try:
                        rows.append(json.loads(line))
                    except json.JSONDecodeError as error:
                        raise ProbeError(f"{path}, line {number}: not JSON ({error.msg})") from None
                    if not isinstance(rows[-1], dict):
                        raise ProbeError(f"{path}, line {number}: an object with fields is expected")
            return rows
    except ProbeError:
        raise
    except OSError as error:
        raise ProbeError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise ProbeError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except (csv.Error, ValueError) as error:  # json and pyarrow raise kinds of ValueError
        raise ProbeError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from None
    raise ProbeError(f"{path}: csv, tsv, json, jsonl or parquet is expected, not '{path.suffix}'")
