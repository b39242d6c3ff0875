"""Inspect's eval logs: one an audit, as JSON of its version 2, which needs no package to be written.

`inspect view` and `inspect_ai.log.read_eval_log` open them. What could not be judged has no score: Inspect's own mark for
it, NaN, is no JSON.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..auditing.audit import Audit
from ..auditing.prompts import turns
from ..auditing.result import Result, said
from ..files import make_folder, write_text
from ..records.record import Record, audits_of
from ..report.terminal import dumps
from .told import drawn, figures_of, heat, label, measured, right, step_name

_VERSION = 2
_REDUCER = "mean"
_ID = 22  # characters, as Inspect's own


def write_inspect_logs(record: Record, folder: Path, quote: bool) -> list[Path]:
    """
    Write a log for each audit, named as Inspect names them; the same record gives the same files.

    Args:
        record ([`Record`]):
            Of a run, or of a matched audit.
        folder (`Path`):
            Where they go.
        quote (`bool`):
            Whether they hold what was asked and said.
    """
    make_folder(folder)
    written = []
    for audit in audits_of(record):
        log = inspect_log(record, audit, quote)
        when = log["eval"]["created"].replace(":", "-")
        written.append(folder / f"{when}_{log['eval']['task']}_{log['eval']['task_id']}.json")
        write_text(written[-1], dumps(log), private=quote)
    return written


def inspect_log(record: Record, audit: Audit, quote: bool) -> dict[str, Any]:
    """
    An audit as an Inspect log.

    Args:
        record ([`Record`]):
            What it is of.
        audit ([`Audit`]):
            With its results.
        quote (`bool`):
            Whether it holds what was asked and said.
    """
    about, name = record.about, f"alignguard-{step_name(record, audit)}"
    run = _id(about.pool_hash, about.model_fingerprint, str(about.seed), str(record.audits[0].time))
    ended = _when(audit.time)
    sampling, results = about.sampling or {}, audit.results.values()
    epochs = sampling.get("samples", 1)
    samples = [
        _sample(answer, record, run + name, quote, epoch)
        for result in results
        for epoch, answer in enumerate(result.each, start=1)
    ]
    return {
        "version": _VERSION,
        "status": "success",
        "eval": {
            "eval_id": _id(run, name, "eval"),
            "run_id": run,
            "created": ended,
            "task": name,
            "task_id": _id(run, name),
            "task_version": about.alignguard or 0,
            "task_args": {"draw": about.draw, "seed": about.seed},
            "dataset": {
                "name": f"alignguard-{about.pool_hash}",
                "samples": len(results),
                "sample_ids": list(audit.results),
                "shuffled": False,
            },
            "model": about.model,
            "model_generate_config": heat(about),
            "config": {"epochs": epochs, **({"epochs_reducer": [_REDUCER]} if epochs > 1 else {})},
            "packages": {"alignguard-trl": about.alignguard} if about.alignguard else {},
            "metadata": {"step": audit.step, "held_against": about.held_against, **about.to_dict(), "quote": quote},
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}]},
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [_aggregate(name, figures, audit) for name, figures in figures_of(audit).items()],
        },
        "stats": {
            "started_at": _when(audit.time - (audit.figure("cost/seconds") or 0.0)),
            "completed_at": ended,
            "model_usage": {about.model: _total([sample["output"]["usage"] for sample in samples])},
        },
        "samples": samples,
        **({"reductions": _reductions(list(results))} if epochs > 1 else {}),
    }


def _aggregate(name: str, figures: dict[str, float], audit: Audit) -> dict[str, Any]:
    """A dimension, or drift."""
    there = [result.score.value for result in audit.results.values() if result.probe.dimension == name]
    scored = sum(value is not None for value in there)
    return {
        "name": name,
        "scorer": name,
        "scored_samples": scored,
        "unscored_samples": len(there) - scored,
        "metrics": {key: {"name": key, "value": value} for key, value in figures.items()},
    }


def _reductions(results: list[Result]) -> list[dict[str, Any]]:
    """Of each judge the scores of probes, as they come of all their samples."""
    judges = dict.fromkeys(result.probe.judge for result in results)
    return [
        {
            "scorer": judge,
            "reducer": _REDUCER,
            "samples": [
                {"sample_id": result.probe.id, "value": result.score.value, "explanation": result.score.status.value}
                for result in results
                if result.probe.judge == judge and result.score.value is not None
            ],
        }
        for judge in judges
    ]


def _sample(result: Result, record: Record, salt: str, quote: bool, epoch: int) -> dict[str, Any]:
    """A probe's answer, one of several where it is sampled: each is an epoch."""
    probe, answer, score = result.probe, result.answer, result.score
    start, model = record.baseline[probe.id], record.about.model
    asked = [{**turn, "source": "input"} for turn in turns(probe)] if quote else []
    found = measured(result, start, record.about)
    usage = _usage(len(start.prompt or ()), len(answer.tokens) if answer is not None else 0)
    said_now = said(result) if quote else ""
    message: dict[str, Any] = {"role": "assistant", "content": said_now, "source": "generate", "model": model}
    if answer is not None and answer.trace:
        message["content"] = [{"type": "reasoning", "reasoning": answer.trace}, {"type": "text", "text": said_now}]
    stop = "stop" if answer is None or answer.finished else "max_tokens"
    return {
        "id": probe.id,
        "epoch": epoch,
        "uuid": _id(salt, probe.id, *([str(epoch)] if epoch > 1 else [])),
        "input": asked or "",
        **({"choices": list(probe.options)} if quote and probe.options else {}),
        "target": right(probe, quote),
        "messages": [*asked, message] if quote else [],
        "output": {
            "model": model,
            "choices": [{"message": message, "stop_reason": stop}] if quote else [],
            "completion": said_now,
            "usage": usage,
        },
        "scores": {} if score.value is None else {
            probe.judge: {
                "value": score.value,
                **({"answer": said_now} if quote else {}),
                "explanation": score.status.value,
                "metadata": {"dimension": probe.dimension, **({"start": found["start"]} if "start" in found else {}), **(score.detail or {})},
            }
        },
        "metadata": {**label(probe), **found, **drawn(probe, record.about)},
        "model_usage": {model: usage},
    }  # fmt: skip


def _usage(asked: int, said: int) -> dict[str, int]:
    return {"input_tokens": asked, "output_tokens": said, "total_tokens": asked + said}


def _total(usages: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(usage[name] for usage in usages) for name in _usage(0, 0)}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _id(*parts: str) -> str:
    """An identifier that follows from what it is of."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:_ID]
