"""Answers and scores as parquet, one row a probe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..auditing.result import ProbeDrift, Result, Sample
from ..files import make_folder, write_whole
from ..given import shown
from ..judging.score import Score, Status
from ..model.chat import Answer
from ..probes.probe import Probe
from ..text import clean

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("dimension", pa.string()),
        ("family", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.string()),
        ("trace", pa.string()),
        ("answer", pa.string()),
        ("status", pa.string()),
        ("score", pa.float64()),
        ("degenerate", pa.bool_()),
        ("detail", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("thinks", pa.bool_()),
        ("closed", pa.bool_()),
        ("finished", pa.bool_()),
        ("forced", pa.bool_()),
        ("logprobs", pa.list_(pa.float64())),
        ("kl_raw", pa.list_(pa.float32())),
        ("kl_answer", pa.list_(pa.float32())),
        ("opens_trace", pa.float64()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("leaning", pa.float64()),
        ("opening", pa.string()),
        ("samples", pa.string()),
    ]
)


def _row(result: Result) -> dict[str, Any]:
    probe, answer, drift, score = result.probe, result.answer, result.drift, result.score
    return {
        "id": probe.id,
        "dimension": probe.dimension,
        "family": probe.family,
        "group": probe.group,
        "prompt": clean(probe.prompt),
        "trace": clean(answer.trace) if answer else None,
        "answer": clean(answer.answer) if answer else None,
        "status": score.status.value,
        "score": score.value,
        "degenerate": score.degenerate,
        "detail": json.dumps(score.detail),
        "tokens": list(answer.tokens) if answer else None,
        "thinks": answer.thinks if answer else None,
        "closed": answer.closed if answer else None,
        "finished": answer.finished if answer else None,
        "forced": answer.forced if answer else None,
        "logprobs": result.logprobs,
        "kl_raw": drift.raw if drift else None,
        "kl_answer": drift.answer if drift else None,
        "opens_trace": drift.thinks if drift else None,
        "prompt_ids": result.prompt,
        "leaning": result.leaning,
        "opening": clean(result.opening),
        "samples": json.dumps([_sample_row(sample) for sample in result.samples]) if result.samples else None,
    }


def _sample_row(sample: Sample) -> dict[str, Any]:
    answer = replace(sample.answer, trace=clean(sample.answer.trace), answer=clean(sample.answer.answer))
    return {"answer": asdict(answer), "score": asdict(sample.score)}


def _sample(row: dict[str, Any]) -> Sample:
    answer, score = row["answer"], row["score"]
    return Sample(
        Answer(**answer | {"tokens": tuple(answer["tokens"])}), Score(**score | {"status": Status(score["status"])})
    )


def _result(row: dict[str, Any], probe: Probe) -> Result:
    answer = None
    if row["tokens"] is not None:
        answer = Answer(
            tuple(row["tokens"]),
            row["trace"],
            row["answer"],
            row["thinks"],
            row["closed"],
            row["finished"],
            row["forced"],
        )
    drift = None
    if row["kl_raw"] is not None:
        drift = ProbeDrift(row["kl_raw"], row["kl_answer"], row["opens_trace"], 0, -1)
    value, detail = row["score"], json.loads(row["detail"])
    if not (value is None or 0 <= value <= 1) or not (detail is None or isinstance(detail, dict)):
        raise ValueError(f"the score of {probe.id!r} is {shown(value)}, of {shown(detail)}")
    score = Score(value, Status(row["status"]), detail, row["degenerate"])
    leaning, opening = row.get("leaning"), row.get("opening") or ""  # records of earlier versions have none
    samples = tuple(map(_sample, json.loads(row.get("samples") or "[]")))
    return Result(probe, score, answer, row["logprobs"], drift, row.get("prompt_ids"), leaning, opening, samples)


def write_results(path: Path, results: dict[str, Result]) -> None:
    """Write answers and scores as parquet, one row a probe."""
    table = pa.Table.from_pylist([_row(result) for result in results.values()], schema=_SCHEMA)
    make_folder(path.parent, private=True)
    write_whole(path, lambda beside: pq.write_table(table, beside), private=True)


def read_results(path: Path, pool: Sequence[Probe]) -> dict[str, Result]:
    """Read what [`write_results`] wrote; probes no longer in the pool are left out."""
    probes = {probe.id: probe for probe in pool}
    table = pq.read_table(path)
    table = table.select([name for name in _SCHEMA.names if name in table.column_names])  # earlier versions had fewer
    rows = table.cast(pa.schema([_SCHEMA.field(name) for name in table.column_names])).to_pylist()
    return {row["id"]: _result(row, probes[row["id"]]) for row in rows if row["id"] in probes}
