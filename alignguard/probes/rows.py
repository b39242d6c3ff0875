"""The form of people's own probes: rows of a JSONL file, of a `datasets.Dataset` or of a list.

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
| judge | always | refusal, toxicity, leak, tell, choice, abstain, number or own (your callable, `judge=`) |
| expect | refusal | "refuse" or "comply" |
| secrets | leak | strings that must not appear in the answer |
| facts | tell | strings of which any one should appear in the answer |
| options, target | choice | the options, and the index of the right one |
| stereotype | no (choice) | the index of the option that follows the stereotype |
| listed | no (choice) | false where the prompt names the options itself |
| expected | number | the right number, as a string |
| kind, rude | no (toxicity) | two ways to begin the answer, of one length and shape: its leaning is how much likelier the kind one is |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

from ..errors import ProbeError, one_line
from ..given import meant, shown
from .probe import DIMENSIONS, JUDGES, Probe

_OPTIONAL = {"choice": {"stereotype", "listed"}, "toxicity": {"kind", "rude"}}  # fields, by judge
_LIKE = '{"id": ..., "dimension": ..., "family": ..., "judge": ..., "prompt": ...}'
MAX_SECRET = 2_000  # characters: each becomes a pattern
MAX_LINE = 1_000_000  # characters; a longer line is no probe but the wrong file


def need(condition: Any, where: str, message: str) -> None:
    if not condition:
        raise ProbeError(f"{where}: {message}")


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, str) and v.strip() for v in value)


def is_seen(text: str) -> bool:
    """Whether anything of a text can be looked for: not of blanks, controls, invisible characters and marks that stand on none."""
    return any(not c.isspace() and category(c)[0] != "M" and category(c) not in ("Cc", "Cf") for c in text)


def need_seen(key: str, texts: Iterable[str], where: str) -> None:
    """
    Hold secrets or facts against what can be looked for in an answer.

    Raises:
        ProbeError: Of one of them nothing can.
    """
    for text in texts:
        told = f"'{key}' hold {text!a}, of which nothing can be seen in an answer; give strings with something to read"
        need(is_seen(text), where, told)


def _is_figure(value: Any) -> bool:
    """Whether it is a finite number, or a text that is one."""
    try:
        return not isinstance(value, bool) and isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def turns_of(row: dict[str, Any], where: str) -> tuple[dict[str, str], ...]:
    """Chat turns of a row with `prompt` or `messages`, and perhaps `system`."""
    given = [key for key in ("prompt", "messages") if key in row]
    need(len(given) == 1, where, "give either 'prompt' or 'messages'" + (", not both" if given else ""))
    if "messages" in row:
        turns = row["messages"]
        good = isinstance(turns, (list, tuple)) and len(turns) > 0 and all(isinstance(t, dict) for t in turns)
        turns = [{key: value for key, value in t.items() if value is not None} for t in turns] if good else []
        good = good and all(set(t) == {"role", "content"} for t in turns)
        need(good, where, '\'messages\' must be a list of {"role", "content"}')
    else:
        turns = [{"role": "user", "content": row["prompt"]}]
    if "system" in row:
        need(turns[0]["role"] != "system", where, "a system turn stands in both 'system' and 'messages'")
        turns = [{"role": "system", "content": row["system"]}, *turns]
    for turn in turns:
        role = turn["role"]
        need(role in ("system", "user", "assistant"), where, f"a role is system, user or assistant, not {role!r}")
        need(
            isinstance(turn["content"], str) and turn["content"].strip(),
            where,
            "an empty prompt or turn; give the question",
        )
    need(turns[-1]["role"] == "user", where, "the last turn must be the user's")
    return tuple({"role": t["role"], "content": t["content"]} for t in turns)


def probe_from_row(row: Any, where: str = "probe") -> Probe:
    """
    Build a [`Probe`] from one row of a probe file. A field that is `None` counts as absent: tables give every row every column.

    Args:
        row (`dict`):
            The fields of the module's table.
        where (`str`, *optional*, defaults to `"probe"`):
            What an error begins with, e.g. `"my.jsonl, line 3"`.

    Raises:
        ProbeError: A field is missing, unknown or out of range.
    """
    need(isinstance(row, dict), where, f"expected an object with fields, e.g. {_LIKE}")
    row = {key: value for key, value in row.items() if value is not None}
    for key in ("id", "dimension", "family", "judge"):
        need(key in row, where, f"the field '{key}' is missing; a probe is an object {_LIKE}")
        need(isinstance(row[key], str) and row[key].strip(), where, f"'{key}' must be a non-empty string")
    dimension, judge = row["dimension"], row["judge"]
    need(dimension in DIMENSIONS, where, f"no dimension '{dimension}'{meant(dimension, DIMENSIONS)}")
    need(judge in JUDGES, where, f"no judge '{judge}'{meant(judge, JUDGES)}")
    for key in JUDGES[judge]:
        need(key in row, where, f"the judge '{judge}' needs the field '{key}'")
    known = {"id", "dimension", "family", "judge", "group", "condition", "prompt", "messages", "system"}
    known |= set(JUDGES[judge]) | _OPTIONAL.get(judge, set())
    for key in row:
        need(key in known, where, f"unknown field '{key}'{meant(key, sorted(known))}")
    for key in ("group", "condition"):
        need(isinstance(row.get(key, ""), str), where, f"'{key}' must be a string")

    extra: dict[str, Any] = {}
    if judge == "refusal":
        need(row["expect"] in ("refuse", "comply"), where, "'expect' must be 'refuse' or 'comply'")
        extra["expect"] = row["expect"]
    elif judge in ("leak", "tell"):
        key = "secrets" if judge == "leak" else "facts"
        need(_is_texts(row[key]), where, f"'{key}' must be a list of non-empty strings")
        longest = max(len(normalize("NFKC", text)) for text in row[key])  # as it is looked for
        need(longest <= MAX_SECRET, where, f"'{key}' are of {MAX_SECRET:,} characters at most, not {longest:,}")
        need_seen(key, row[key], f"{where}, probe {row['id']!r}")
        extra[key] = tuple(row[key])
    elif judge == "choice":
        options = row["options"]
        need(_is_texts(options) and len(options) > 1, where, "'options' must be a list of two or more strings")
        need(len(set(options)) == len(options), where, "two options are the same")
        extra["options"] = tuple(options)
        for key in ("target", "stereotype"):
            if key in row:
                index = row[key]
                good = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(options)
                need(good, where, f"'{key}' must be the index of an option, 0 to {len(options) - 1}, not {index!r}")
                extra[key] = index
        need(isinstance(row.get("listed", True), bool), where, "'listed' must be true or false")
        extra["listed"] = row.get("listed", True)
    elif judge == "number":
        expected = row["expected"]
        need(_is_figure(expected), where, f"'expected' must be a number in a string, not {shown(expected)}")
        extra["expected"] = str(expected)
    elif judge == "toxicity" and ("kind" in row or "rude" in row):
        for key in ("kind", "rude"):
            need(key in row, where, f"'kind' and 'rude' are a pair; '{key}' is missing")
            need(isinstance(row[key], str) and row[key].strip(), where, f"'{key}' must be a non-empty string")
            extra[key] = row[key]
    return Probe(
        id=row["id"],
        dimension=dimension,
        messages=turns_of(row, where),
        judge=judge,
        family=row["family"],
        group=row.get("group", ""),
        condition=row.get("condition", ""),
        **extra,
    )


def read_jsonl(path: Path, hint: str = "; give a JSONL file, one object a line") -> Iterator[tuple[str, Any]]:
    """
    The rows of a JSONL file, each after the place where it stands, which errors begin with.

    Args:
        path (`Path`):
            The file, in UTF-8; empty lines are passed over.
        hint (`str`, *optional*):
            What would be right, for a file that cannot be read.

    Raises:
        ProbeError: In one line: the file and the line that is wrong.
    """
    need("\0" not in str(path), str(path), f"cannot be read (a null byte in its name){hint}")
    need(not path.is_dir(), str(path), f"cannot be read (a folder){hint}")
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE + 1):
                number += 1
                where = f"{path}, line {number}"
                need(len(raw) <= MAX_LINE, where, f"longer than {MAX_LINE:,} bytes; one probe a line is expected")
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    raise ProbeError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
                if not text:
                    continue
                try:
                    yield where, json.loads(text)
                except (ValueError, RecursionError) as error:  # also of a number too long, of brackets too deep
                    what = getattr(error, "msg", one_line(error))
                    raise ProbeError(f"{where}: not JSON ({what}); one JSON object a line is expected") from None
    except OSError as error:
        raise ProbeError(f"{path}: cannot be read ({error.strerror or error}){hint}") from None


def read_probe_file(path: str | Path) -> list[Probe]:
    """
    Read a JSONL file of probes.

    Raises:
        ProbeError: In one line: the file, the line and the field that is wrong.
    """
    probes = [probe_from_row(row, where) for where, row in read_jsonl(Path(path))]
    need(probes, str(path), "holds no probe")
    return probes


def probes_from_rows(rows: Iterable[Any], name: str = "rows") -> list[Probe]:
    """
    Probes from rows that are in memory: a `datasets.Dataset`, or a list of dictionaries.

    Raises:
        ProbeError: In one line: the row and the field that is wrong.
    """
    probes = []
    for number, row in enumerate(rows):
        where = f"{name}, row {number}"
        probes.append(probe_from_row(row, where))
    need(probes, name, "holds no probe")
    return probes
