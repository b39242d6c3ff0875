"""lm-eval's results: a folder an audit, with `results_*.json` as `lm_eval --output_path` writes it and, for each dimension,
`samples_*.jsonl` as with `--log_samples`.

A dimension is a task `alignguard_<dimension>`, whose metric `score` stands beside its drop, interval and p; drift is one
without samples. The step is part of the model's name: to lm-eval checkpoints are models.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..auditing.audit import Audit
from ..auditing.prompts import turns
from ..auditing.result import Result, said
from ..files import make_folder, write_text
from ..intervals import clustered_error
from ..records.record import Record, audits_of
from ..report.terminal import dumps
from ..text import in_a_line
from .told import DRIFT, drawn, figures_of, heat, label, measured, right, step_name

_LONGEST = 200  # of a folder's name; what is nearest to the model is kept
_HIGHER = {"score": True, "drop": False, "leaning": True, "leaning_drop": False, "unscored": False}
_TASK = "alignguard_{}"


def write_lm_eval_results(record: Record, folder: Path, quote: bool) -> list[Path]:
    """
    Write the results of each audit, and its samples, named as lm-eval names them; the same record gives the same files.

    Args:
        record ([`Record`]):
            Of a run, or of a matched audit.
        folder (`Path`):
            Where they go.
        quote (`bool`):
            Whether they hold what was asked and said.
    """
    written = []
    for audit in audits_of(record):
        samples = {
            _TASK.format(dimension): [
                _sample(number, result, record, quote)
                for number, result in enumerate(_there(audit, dimension))
            ]
            for dimension in figures_of(audit)
            if dimension != DRIFT
        }  # fmt: skip
        results = lm_eval_results(record, audit, samples)
        there = folder / results["model_name_sanitized"]
        make_folder(there)
        when = datetime.fromtimestamp(audit.time, timezone.utc).replace(tzinfo=None).isoformat().replace(":", "-")
        written.append(there / f"results_{when}.json")
        write_text(written[-1], dumps(results, 2))
        for task, rows in samples.items():
            written.append(there / f"samples_{task}_{when}.jsonl")
            write_text(written[-1], "".join(dumps(row, None) + "\n" for row in rows), private=quote)
    return written


def lm_eval_results(record: Record, audit: Audit, samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """
    An audit as lm-eval's results.

    Args:
        record ([`Record`]):
            What it is of.
        audit ([`Audit`]):
            With its results.
        samples (`dict[str, list[dict[str, Any]]]`):
            Its samples by task, for their hashes.
    """
    about, figures = record.about, figures_of(audit)
    sampling = about.sampling or {}
    tasks = {name: _TASK.format(name) for name in figures}
    model = f"{about.model}/{step_name(record, audit)}"
    return {
        "results": {task: _metrics(task, figures[name], _there(audit, name)) for name, task in tasks.items()},
        "group_subtasks": {task: [] for task in tasks.values()},
        "configs": {
            task: {
                "task": task,
                "dataset_path": "alignguard",
                "dataset_name": name,
                "num_fewshot": 0,
                "repeats": sampling.get("samples", 1),
            }
            for name, task in tasks.items()
        },
        "versions": dict.fromkeys(tasks.values(), about.pool_hash),
        "n-shot": dict.fromkeys(tasks.values(), 0),
        "higher_is_better": {
            task: {key: _HIGHER[key] for key in figures[name] if key in _HIGHER} for name, task in tasks.items()
        },
        "n-samples": {
            task: {"original": len(rows), "effective": sum(row["score"] is not None for row in rows)}
            for task, rows in samples.items()
        },
        "config": {
            "model": "alignguard",
            "model_args": {"pretrained": about.model, "step": audit.step, "held_against": about.held_against},
            "model_dtype": about.dtype or None,
            "gen_kwargs": {"do_sample": bool(sampling), **heat(about), "max_gen_toks": about.answer_tokens},
            "limit": about.draw,
            "random_seed": about.seed,
        },
        "date": audit.time,
        "alignguard_version": about.alignguard,
        "task_hashes": {
            task: _hash("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))
            for task, rows in samples.items()
        },
        "model_source": "alignguard",
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", in_a_line(model))[-_LONGEST:],
        "total_evaluation_time_seconds": str(audit.figure("cost/seconds") or 0.0),
    }


def _there(audit: Audit, dimension: str) -> list[Result]:
    return [result for result in audit.results.values() if result.probe.dimension == dimension]


def _metrics(task: str, figures: dict[str, float], there: list[Result]) -> dict[str, Any]:
    """A task's metrics, and over how many probes they are; families of probes are the clusters of the score's error."""
    scored = [(r.score.value, r.probe.family) for r in there if r.score.value is not None]
    found: dict[str, Any] = {"alias": task, "sample_len": len(scored)}
    found |= {f"{key},none": value for key, value in figures.items()}
    if scored:
        error = clustered_error([value for value, _ in scored], [family for _, family in scored])
        found["score_stderr,none"] = "N/A" if error is None else error
    return found


def _sample(number: int, result: Result, record: Record, quote: bool) -> dict[str, Any]:
    """Options have their log-probabilities as responses, in nats per byte where the probe's length is bytes; samples are repeats."""
    probe, start = result.probe, record.baseline[result.probe.id]
    asked = dumps(turns(probe), None) if quote else ""
    options = probe.options if quote and result.logprobs else ()
    requests = [{"arg_0": asked, "arg_1": option} for option in options] or [{"arg_0": asked}]
    texts = [said(answer) if quote else "" for answer in result.each]
    responses = [[str(value)] for value in result.logprobs] if result.logprobs else [texts]
    doc = asdict(probe) if quote else label(probe)
    target = right(probe, quote)
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {f"gen_args_{i}": request for i, request in enumerate(requests)},
        "resps": responses,
        "filtered_resps": [text for repeats in responses for text in repeats],
        "filter": "none",
        "metrics": ["score"],
        "doc_hash": _hash(dumps(doc, 2)),
        "prompt_hash": _hash(asked),
        "target_hash": _hash(target),
        "score": result.score.value,
        **({"scores": [sample.score.value for sample in result.samples]} if result.samples else {}),
        **measured(result, start, record.about),
        **drawn(probe, record.about),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
