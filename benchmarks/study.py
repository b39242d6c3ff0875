"""What making a reasoner of an aligned model costs, by three ways of training, and whether drift is a witness of it.

    python benchmarks/study.py --model DIR [--only NAME ...] [--steps N] [--read] [-- OPTION ...]

One aligned start; SFT on traces, on-policy distillation from the reasoner that the first SFT made, and GRPO, each by its recipe
with AlignGuard watching, two or three seeds each, and the first of each once more held by a drift budget. The task is sums of
reasoning-gym; what is gained is measured on others of the same kind. A run that is whole is kept in `runs/study/`, and one that was
cut off goes on from its last checkpoint when the command is given again: `results/study.json` and the table hold what there is,
of a run that was cut off as far as it came.
Runs on file that are not here, as those of another machine, stay as they are. `--read` trains nothing, and draws the picture of
docs/study.md. Options after `--` go to the recipes.

Correlations of drift with drops are Spearman's, over the audits of all runs, with 95 % intervals by resampling whole runs.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import table, write
from scipy.stats import spearmanr

from alignguard.errors import RunError
from alignguard.probes.probe import SKILL, TRUST_DIMENSIONS
from alignguard.records.record import Record, read_record
from alignguard.verdicts.verdict import DimensionVerdict, SideVerdict

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "recipes"))
RUNS = ROOT / "runs" / "study"
MAX_KL = 0.05
TEACHER = "sft-0"  # whose model is the teacher of distillation
COLD = "cold-start"  # whose model is the student of a distillation that is warmed
COLD_STEPS = 6
TERMS, DIGITS, QUESTIONS = 5, 2, 64
BOOTSTRAPS = 2000
STEPS = {"sft": 96, "distill": 64, "grpo": 64}
COMMON = "--report_to none --answer_tokens 64 --trace_tokens 128 --save_strategy steps --save_total_limit 1"


@dataclass(frozen=True)
class Run:
    """
    One training run.

    Args:
        name (`str`):
            Its folder.
        recipe (`str`):
            The script in `recipes/`.
        seed (`int`):
            Of the training.
        held (`bool`):
            Whether a drift budget holds it.
        options (`str`):
            What else the recipe is given.
        warmed (`bool`):
            Whether it goes on from the [`cold_start`]; it is held against the aligned start all the same.
    """

    name: str
    recipe: str
    seed: int
    held: bool
    options: str
    warmed: bool = False

    @property
    def folder(self) -> Path:
        return RUNS / self.name

    @property
    def device(self) -> Path:
        """Where it is written what the run was taken on."""
        return self.folder / "device.txt"


def planned() -> list[Run]:
    """All runs, in the order in which they are taken."""
    sft = "--learning_rate 2e-5 --per_device_train_batch_size 8"
    # four questions a step
    grpo = "--learning_rate 2e-6 --per_device_train_batch_size 32 --num_generations 8 --max_completion_length 96"
    # gentler than SFT: the aligned start's completions are of a few tokens, which then learn all that a step teaches
    distill = "--learning_rate 1e-5 --warmup_steps 0.25 --per_device_train_batch_size 8 --max_completion_length 96"
    distill += f" --teacher_model_name_or_path {RUNS / TEACHER}"
    options = {"sft": sft, "distill": distill, "grpo": grpo}
    kinds = [(recipe, seed) for recipe in options for seed in range(3 if recipe == "sft" else 2)]
    free = [Run(f"{recipe}-{seed}", recipe, seed, False, options[recipe]) for recipe, seed in kinds]
    free.append(Run("distill-warm-0", "distill", 0, False, distill, warmed=True))
    held = [replace(run, name=f"{run.name}-held", held=True) for run in free if run.seed == 0]
    return [free[0], held[0], *free[1:], *held[1:]]


def cold_start(model: str) -> Path:
    """
    The start after a few steps of SFT, with traces of its own to learn from; trained once, and asked next to nothing.

    Raises:
        SystemExit: The recipe failed.
    """
    run = Run(COLD, "sft", 0, False, planned()[0].options)
    if not (run.folder / "model.safetensors").exists():
        train(run, model, COLD_STEPS, f"--audit_at {COLD_STEPS} --draw 1 --save_strategy no".split())
    return run.folder


def train(run: Run, model: str, steps: int, more: Sequence[str] = ()) -> None:
    """
    Take a run, or go on with it; `more` are options of the recipe.

    Raises:
        SystemExit: The recipe failed.
    """
    start = (
        f"--model_name_or_path {cold_start(model)} --reference {model}"
        if run.warmed
        else f"--model_name_or_path {model}"
    )
    audits = f"--audit_at {steps // 8} {steps // 4} {steps // 2} --audit_every 0 --draw 48 --save_steps {steps // 2}"
    command = [
        sys.executable,
        str(ROOT / "recipes" / f"{run.recipe}.py"),
        *f"--output_dir {run.folder} {start} --seed {run.seed} --max_steps {steps}".split(),
        *f"{COMMON} {run.options} {audits} --dataset_name {RUNS / 'task'}".split(),
        *("--probes", *TRUST_DIMENSIONS, str(RUNS / "questions.jsonl")),
        *(("--max_kl", str(MAX_KL)) if run.held else ()),
        *more,
    ]
    last = sorted(run.folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if last:
        command += ["--resume_from_checkpoint", str(last[-1])]
    print(f"{run.name}: {' '.join(command[1:])}", flush=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.device.write_text(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU", encoding="utf-8")
    if subprocess.run(command).returncode != 0:
        sys.exit(f"{run.name} failed; its message stands above")
    for checkpoint in run.folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    if run.name not in (TEACHER, COLD):  # the record is what is kept
        (run.folder / "model.safetensors").unlink(missing_ok=True)


def task() -> None:
    """The rows of every run, and questions that are in none of them; once."""
    from tasks import held_out, reasoning_rows

    RUNS.mkdir(parents=True, exist_ok=True)
    rows = reasoning_rows(2048, max_terms=TERMS, max_digits=DIGITS)
    answers = [row["completion"][0]["content"].rpartition("</think>")[2].strip() for row in rows]
    (RUNS / "task").mkdir(exist_ok=True)
    _lines(RUNS / "task" / "train.jsonl", [{**row, "answer": a} for row, a in zip(rows, answers, strict=True)])
    _lines(RUNS / "questions.jsonl", held_out(rows, QUESTIONS, max_terms=TERMS, max_digits=DIGITS))


def _lines(path: Path, rows: list[Any]) -> None:
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def taken(run: Run) -> Record | None:
    """The record of a run as far as it came; `None` where no audit has followed its start."""
    try:
        record = read_record(str(run.folder))
    except RunError:
        return None
    return record if record.audits[-1].step else None


def whole(run: Run) -> bool:
    """Whether a run has come to its end."""
    record = taken(run)
    return record is not None and record.audits[-1].step == record.about.max_steps


# what is found -----------------------------------------------------------------------------------------------------------


def found(run: Run, record: Record) -> dict[str, Any]:
    """The figures of a run."""
    verdict, last = record.verdict, record.audits[-1]
    drift = {name: last.figure(f"kl/{name}") for name in ("raw", "answer", "reverse", "answer_sum", "thinks")}
    skill = verdict.dimensions.get(SKILL)
    return {
        "run": run.name,
        "held": run.held,
        "device": run.device.read_text(encoding="utf-8") if run.device.exists() else None,
        "steps": last.step,
        "of": record.about.max_steps,
        "reasoning": _pair(skill) if skill is not None and skill.n else None,
        "drift": drift,
        # what is the change of format alone
        "format": None if drift["raw"] is None or drift["answer"] is None else drift["raw"] - drift["answer"],
        "dimensions": {name: _told(d) for name, d in verdict.dimensions.items() if name in TRUST_DIMENSIONS and d.n},
        "unjudged": [name for name, d in verdict.dimensions.items() if d.unjudged],
        "called": verdict.since,
        "warned": verdict.leans,
        "seconds": sum(audit.figure("cost/seconds") or 0.0 for audit in record.audits),
        "audits": [
            {"step": audit.step, "kl": audit.figure("kl/answer"), "reasoning": audit.figure("reasoning/score")}
            | {"toxicity": audit.figure("toxicity/mean")}
            | {name: [audit.figure(f"{name}/kl"), audit.figure(f"{name}/drop")] for name in TRUST_DIMENSIONS}
            for audit in record.audits
        ],
    }


def _pair(d: DimensionVerdict | SideVerdict) -> dict[str, Any]:
    figures = {
        "n": d.n,
        "unscored": getattr(d, "unscored", None),
        "start": d.baseline,
        "now": d.score,
        "drop": d.drop,
        "low": d.low,
        "high": d.high,
    }
    return {name: _finite(value) for name, value in figures.items()}


def _told(d: DimensionVerdict) -> dict[str, Any]:
    """A dimension and its sides, with what their evidence over the whole run says."""

    def with_evidence(part: DimensionVerdict | SideVerdict) -> dict[str, Any]:
        e = part.evidence
        run_wise = {"run_drop": e.drop, "run_low": e.low, "run_high": e.high, "p": e.p, "detectable": e.detectable}
        # of the side, where the evidence is strongest in one
        return _pair(part) | {name: _finite(value) for name, value in run_wise.items()} | {"part": e.part}

    return with_evidence(d) | {"sides": {name: with_evidence(side) for name, side in d.sides.items() if side.n}}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def correlations(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spearman's correlation of drift with drops: by dimension, and over all of them."""
    points = [
        [(name, *audit[name]) for audit in run["audits"] if audit["step"] for name in TRUST_DIMENSIONS] for run in runs
    ]
    points = [[p for p in of_run if p[1] is not None and p[2] is not None] for of_run in points]
    return {name: _correlation(points, name) for name in (*TRUST_DIMENSIONS, "all")}


def _correlation(points: list[list[tuple[str, float, float]]], name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    by_run = [np.array([(kl, drop) for d, kl, drop in run if name in (d, "all")]).reshape(-1, 2) for run in points]

    def rho(parts: list[np.ndarray]) -> float:
        whole = np.concatenate(parts)
        varies = len(whole) > 2 and all(len(set(column)) > 1 for column in whole.T)
        return float(spearmanr(whole[:, 0], whole[:, 1]).statistic) if varies else float("nan")

    again = [rho([by_run[i] for i in rng.integers(len(by_run), size=len(by_run))]) for _ in range(BOOTSTRAPS)]
    again = [value for value in again if math.isfinite(value)]
    few = len(by_run) < 3 or len(again) < BOOTSTRAPS / 2
    low, high = (None, None) if few else (float(q) for q in np.quantile(again, (0.025, 0.975)))
    return {"points": sum(map(len, by_run)), "rho": _finite(rho(by_run)), "low": low, "high": high}


def line(run: dict[str, Any]) -> dict[str, Any]:
    """A run's row of the table that is printed."""

    def both(pair: dict[str, Any] | None) -> str:
        return "-" if pair is None else f"{pair['start']:.2f} to {pair['now']:.2f}"

    return {
        "run": run["run"],
        "steps": run["steps"] if run["steps"] == run["of"] else f"{run['steps']} of {run['of']}",
        "reasoning": both(run["reasoning"]),
        "drift": run["drift"]["answer"],
        "raw": run["drift"]["raw"],
        **{name: both(run["dimensions"].get(name)) for name in TRUST_DIMENSIONS},
        "called": ", ".join(f"{name} {step}" for name, step in run["called"].items()) or "-",
    }


def picture(runs: list[dict[str, Any]], path: Path) -> None:
    """Drift against drops: a point an audit, a panel a dimension, a colour a way of training."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True, layout="constrained")
    way_of = {run["run"]: run["run"].partition("-")[0] + (", held" if run["held"] else "") for run in runs}
    ways = list(dict.fromkeys(way_of.values()))
    for axes, name in zip(panels.flat, TRUST_DIMENSIONS, strict=True):
        for run in runs:
            way = way_of[run["run"]]
            points = [audit[name] for audit in run["audits"] if audit["step"] and None not in audit[name]]
            xs, ys = zip(*points, strict=True) if points else ((), ())
            axes.plot(xs, ys, "o-", color=f"C{ways.index(way)}", markersize=4, linewidth=0.8, label=way)
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
    figure.supxlabel("drift of the dimension's answers, nats a token")
    figure.supylabel("drop of its score")
    shown = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))  # each way once
    panels[0, 2].legend(shown.values(), shown.keys(), frameon=False, fontsize=8)
    matplotlib.rcParams["svg.hashsalt"] = "study"  # the same figures give the same file
    figure.savefig(path, metadata={"Date": None})
    print(f"wrote {path}")


def report(model: str) -> None:
    """Figures of all runs, as far as they came, printed, drawn and written."""
    path = ROOT / "benchmarks" / "results" / "study.json"
    on_file = {run["run"]: run for run in json.loads(path.read_text("utf-8"))["runs"]} if path.exists() else {}
    here = {run.name: found(run, record) for run in planned() if (record := taken(run)) is not None}
    runs = [(on_file | here)[run.name] for run in planned() if run.name in on_file | here]
    if not runs:
        sys.exit(f"no run in {RUNS} has been audited after its start yet")
    drift = correlations(runs)
    print(table([line(run) for run in runs]))
    print(table([{"drift against drops": name, **figures} for name, figures in drift.items()]))
    picture(runs, ROOT / "docs" / "images" / "study.svg")
    write("study", {"model": Path(model).name, "runs": runs, "correlations": drift}, quick=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [run.name for run in planned()]
    parser.add_argument("--model", required=True, help="the aligned start: a folder, or an id on the hub")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--steps", type=int, help=f"of each run; {STEPS} by default")
    parser.add_argument("--read", action="store_true", help="train nothing")
    parser.add_argument("more", nargs="*", metavar="OPTION", help="of the recipes, after --")
    options = parser.parse_args()
    task()
    for run in planned():
        if options.read or run.name not in (options.only or names) or whole(run):
            continue
        if run.recipe == "distill" and not whole(planned()[0]):
            sys.exit(f"{run.name} learns from {TEACHER}, which is not whole yet; run that first")
        train(run, options.model, options.steps or STEPS[run.recipe], options.more)
    report(options.model)


if __name__ == "__main__":
    main()
