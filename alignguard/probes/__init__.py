"""What is asked: the `Probe`, its JSONL form, and `load_probes()`.

A probe file is JSONL, one probe a line. Fields (see `probes/README.md` for examples):

| field | needed | what it is |
|---|---|---|
| id | always | unique in the pool |
| dimension | always | safety, toxicity, stereotype, ethics, privacy, ood or reasoning |
| family | always | probes of one template or scene share it; statistics treat a family as one cluster |
| group | no | what aggregates split by, e.g. "harmful" and "benign" |
| condition | no | a finer label, e.g. "ambiguous" |
| prompt, or messages | one of them | a user turn, or a list of {"role", "content"} that ends with one |
| system | no | a system turn put before them |
| judge | always | refusal, toxicity, leak, tell, choice, abstain or number |
| expect | refusal | "refuse" or "comply" |
| secrets | leak | strings that must not appear in the answer |
| facts | tell | strings of which any one should appear in the answer |
| options, target | choice | the options, and the index of the right one |
| stereotype | no (choice) | the index of the option that follows the stereotype |
| expected | number | the right number, as a string |
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ProbeError

TRUST_DIMENSIONS = ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood")
DIMENSIONS = (*TRUST_DIMENSIONS, "reasoning")

# judge -> the fields it cannot do without
JUDGES: dict[str, tuple[str, ...]] = {
    "refusal": ("expect",),
    "toxicity": (),
    "leak": ("secrets",),
    "tell": ("facts",),
    "choice": ("options", "target"),
    "abstain": (),
    "number": ("expected",),
}
MAX_LINE = 1_000_000  # characters; a longer line is no probe but the wrong file


@dataclass(frozen=True)
class Probe:
    """
    One thing asked, and how its answer is judged.

    Args:
        id (`str`):
            Unique in the pool.
        dimension (`str`):
            One of [`DIMENSIONS`].
        messages (`tuple[dict[str, str], ...]`):
            Chat turns `{"role", "content"}`; the last is a user turn.
        judge (`str`):
            One of `refusal`, `toxicity`, `leak`, `tell`, `choice`, `abstain`, `number`.
        family (`str`):
            Probes of one template or scene share it: the cluster of the statistics.
        group (`str`, *optional*, defaults to `""`):
            What aggregates split by, e.g. `"harmful"` and `"benign"`.
        condition (`str`, *optional*, defaults to `""`):
            A finer label, e.g. `"ambiguous"`.
        expect (`str`, *optional*, defaults to `""`):
            `"refuse"` or `"comply"`, for the judge `refusal`.
        secrets (`tuple[str, ...]`, *optional*, defaults to `()`):
            Strings that must not stand in the answer, for the judge `leak`.
        facts (`tuple[str, ...]`, *optional*, defaults to `()`):
            Strings of which one should stand in the answer, for the judge `tell`.
        options (`tuple[str, ...]`, *optional*, defaults to `()`):
            What to choose from, for the judge `choice`.
        target (`int`, *optional*, defaults to `-1`):
            Index of the right option.
        stereotype (`int`, *optional*, defaults to `-1`):
            Index of the option that follows the stereotype.
        expected (`str`, *optional*, defaults to `""`):
            The right number, for the judge `number`.
        plain (`bool`, *optional*, defaults to `False`):
            Ask without the chat template, and without listing options: `prompt` is text, and each option goes on from it
            as it is written, with its leading space. For published benchmarks that are scored so.
        length (`str`, *optional*, defaults to `"bytes"`):
            How options of different length are compared: `"bytes"`, log-probability per byte of UTF-8 (lm-eval's
            `acc_norm`), or `"sum"`, of the whole text (`acc`).
    """

    id: str
    dimension: str
    messages: tuple[dict[str, str], ...]
    judge: str
    family: str
    group: str = ""
    condition: str = ""
    expect: str = ""
    secrets: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    target: int = -1
    stereotype: int = -1
    expected: str = ""
    plain: bool = False
    length: str = "bytes"

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return self.messages[-1]["content"]


def _need(condition: Any, where: str, message: str) -> None:
    if not condition:
        raise ProbeError(f"{where}: {message}")


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, str) and v.strip() for v in value)


def _messages(row: dict[str, Any], where: str) -> tuple[dict[str, str], ...]:
    given = [key for key in ("prompt", "messages") if key in row]
    _need(len(given) == 1, where, "give either 'prompt' or 'messages'" + (", not both" if given else ""))
    if "messages" in row:
        turns = row["messages"]
        good = isinstance(turns, (list, tuple)) and len(turns) > 0
        good = good and all(isinstance(t, dict) and set(t) == {"role", "content"} for t in turns)
        _need(good, where, '\'messages\' must be a list of {"role", "content"}')
    else:
        turns = [{"role": "user", "content": row["prompt"]}]
    if "system" in row:
        _need(turns[0]["role"] != "system", where, "a system turn stands in both 'system' and 'messages'")
        turns = [{"role": "system", "content": row["system"]}, *turns]
    for turn in turns:
        _need(turn["role"] in ("system", "user", "assistant"), where, f"unknown role {turn['role']!r}")
        _need(isinstance(turn["content"], str) and turn["content"].strip(), where, "an empty prompt or turn")
    _need(turns[-1]["role"] == "user", where, "the last turn must be the user's")
    return tuple({"role": t["role"], "content": t["content"]} for t in turns)


def probe_from_row(row: Any, where: str = "probe") -> Probe:
    """
    Build a [`Probe`] from one row of a probe file.

    Args:
        row (`dict`):
            The fields of the module's table.
        where (`str`, *optional*, defaults to `"probe"`):
            What an error begins with, e.g. `"my.jsonl, line 3"`.

    Raises:
        ProbeError: A field is missing, unknown or out of range.
    """
    _need(isinstance(row, dict), where, 'expected an object with fields, e.g. {"id": ..., "prompt": ...}')
    for key in ("id", "dimension", "family", "judge"):
        _need(key in row, where, f"the field '{key}' is missing")
        _need(isinstance(row[key], str) and row[key].strip(), where, f"'{key}' must be a non-empty string")
    dimension, judge = row["dimension"], row["judge"]
    _need(dimension in DIMENSIONS, where, f"no dimension '{dimension}'{_meant(dimension, DIMENSIONS)}")
    _need(judge in JUDGES, where, f"no judge '{judge}'{_meant(judge, tuple(JUDGES))}")
    for key in JUDGES[judge]:
        _need(key in row, where, f"the judge '{judge}' needs the field '{key}'")
    known = {"id", "dimension", "family", "judge", "group", "condition", "prompt", "messages", "system"}
    known |= set(JUDGES[judge]) | ({"stereotype"} if judge == "choice" else set())
    for key in row:
        _need(key in known, where, f"unknown field '{key}'{_meant(key, tuple(sorted(known)))}")
    for key in ("group", "condition"):
        _need(isinstance(row.get(key, ""), str), where, f"'{key}' must be a string")

    extra: dict[str, Any] = {}
    if judge == "refusal":
        _need(row["expect"] in ("refuse", "comply"), where, "'expect' must be 'refuse' or 'comply'")
        extra["expect"] = row["expect"]
    elif judge in ("leak", "tell"):
        key = "secrets" if judge == "leak" else "facts"
        _need(_is_texts(row[key]), where, f"'{key}' must be a list of non-empty strings")
        extra[key] = tuple(row[key])
    elif judge == "choice":
        options = row["options"]
        _need(_is_texts(options) and len(options) > 1, where, "'options' must be a list of two or more strings")
        _need(len(set(options)) == len(options), where, "two options are the same")
        extra["options"] = tuple(options)
        for key in ("target", "stereotype"):
            if key in row:
                index = row[key]
                good = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(options)
                _need(good, where, f"'{key}' must be the index of an option, 0 to {len(options) - 1}, not {index!r}")
                extra[key] = index
    elif judge == "number":
        try:
            float(row["expected"])
        except (TypeError, ValueError):
            raise ProbeError(f"{where}: 'expected' must be a number in a string, not {row['expected']!r}") from None
        extra["expected"] = str(row["expected"])
    return Probe(
        id=row["id"],
        dimension=dimension,
        messages=_messages(row, where),
        judge=judge,
        family=row["family"],
        group=row.get("group", ""),
        condition=row.get("condition", ""),
        **extra,
    )


def _meant(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(names)}"


def read_probe_file(path: str | Path) -> list[Probe]:
    """
    Read a JSONL file of probes.

    Raises:
        ProbeError: In one line: the file, the line and the field that is wrong.
    """
    path = Path(path)
    probes: list[Probe] = []
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE + 1):
                number += 1
                where = f"{path}, line {number}"
                _need(len(raw) <= MAX_LINE, where, f"longer than {MAX_LINE:,} bytes; one probe a line is expected")
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise ProbeError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
                if not text:
                    continue
                try:
                    row = json.loads(text)
                except json.JSONDecodeError as error:
                    raise ProbeError(f"{where}: not JSON ({error.msg}); one JSON object a line is expected") from None
                probes.append(probe_from_row(row, where))
    except OSError as error:
        raise ProbeError(f"{path}: cannot be read ({error.strerror or error})") from None
    _need(probes, str(path), "holds no probe")
    return probes


def load_probes(sources: str | Path | Probe | Iterable[str | Path | Probe] = "core") -> list[Probe]:
    """
    The pool: every probe of the sources, in order.

    Args:
        sources (`str`, `Path`, `Probe` or an iterable of them, *optional*, defaults to `"core"`):
            `"core"` (all built-in probes), the name of a dimension (its built-in probes), the name or hub id of a
            published benchmark (see [`load_public`]), a path to a JSONL file, or probes themselves.

    Returns:
        `list[Probe]`, ids unique.

    Raises:
        ProbeError: A source is unknown, a file is wrong, or two probes share an id.

    Example:
    ```python
    >>> from alignguard import load_probes
    >>> pool = load_probes(["safety", "privacy", "my_probes.jsonl"])
    ```
    """
    if isinstance(sources, (str, Path, Probe)):
        sources = [sources]
    from .public import BENCHMARKS, find_benchmark, load_public  # which builds on Probe

    pool: list[Probe] = []
    here = Path(__file__).parent
    for source in sources:
        if isinstance(source, Probe):
            pool.append(source)
        elif source == "core":
            for dimension in DIMENSIONS:
                pool.extend(read_probe_file(here / f"{dimension}.jsonl"))
        elif source in DIMENSIONS:
            pool.extend(read_probe_file(here / f"{source}.jsonl"))
        elif isinstance(source, str) and find_benchmark(source):
            pool.extend(load_public(source))
        elif isinstance(source, Path) or Path(source).suffix or Path(source).exists():
            _need(Path(source).suffix == ".jsonl", str(source), "probe files are JSONL and end in .jsonl")
            pool.extend(read_probe_file(source))
        else:
            names = ("core", *DIMENSIONS, *(b.name for b in BENCHMARKS))
            raise ProbeError(f"no probe set '{source}'{_meant(str(source), names)}")
    seen: set[str] = set()
    for probe in pool:
        _need(probe.id not in seen, f"probe {probe.id!r}", "the id stands twice in the pool; ids must be unique")
        seen.add(probe.id)
    _need(pool, "probes", "the pool is empty; give at least one source, e.g. 'core'")
    return pool


def pool_hash(pool: Sequence[Probe]) -> str:
    """A hash over everything asked and how it is judged, for the record of a run (16 hexadecimal digits)."""
    text = json.dumps([asdict(probe) for probe in pool], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
