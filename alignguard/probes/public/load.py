"""Published benchmarks as probes, from the hub or from a local file; one small file a kind.

None of their texts ship with the package. Each benchmark's function turns rows into probes and is cited with its licence;
what is missing in a row is an error that names the file, the row and the field.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ProbeError, one_line
from ...given import is_whole, meant
from ...given import need as hold
from ..probe import Probe
from ..rows import need, read_jsonl
from .benchmarks import BENCHMARKS, Benchmark, find_benchmark


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
        raise ProbeError(f"no benchmark '{name}'{meant(name, [b.name for b in BENCHMARKS])}")
    hold(size is None or is_whole(size, 1), "size is 1 or more, or None for all", size, where="load_public")
    hold(is_whole(seed, 0), "seed is a whole number, 0 or more", seed, where="load_public")
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
        line = one_line(error)
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
            for where, row in read_jsonl(path):
                need(isinstance(row, dict), where, "an object with fields is expected")
                rows.append(row)
            return rows
    except ProbeError:
        raise
    except OSError as error:
        line = error.strerror or error
        raise ProbeError(f"{path}: cannot be read ({line}); give a csv, tsv, json, jsonl or parquet file") from None
    except UnicodeDecodeError as error:
        raise ProbeError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except (csv.Error, ValueError) as error:  # json and pyarrow raise kinds of ValueError
        raise ProbeError(f"{path}: cannot be read ({one_line(error, 120)})") from None
    raise ProbeError(f"{path}: csv, tsv, json, jsonl or parquet is expected, not '{path.suffix}'")
