"""Runs a training run in a process of its own, and reads back what each tracker has on record of it."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from runs import lines

PACKAGES = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard", "mlflow": "mlflow"}
INSTALLED = [name for name, package in PACKAGES.items() if find_spec(package)]


@dataclass
class Record:
    """What one tracker has of one run."""

    figures: list[tuple[str, int, float]] = field(default_factory=list)  # name, step, value; as often as it was logged
    losses: list[float] = field(default_factory=list)
    alerts: list[tuple[str, str]] = field(default_factory=list)  # title, text
    tables: dict[str, list[dict]] = field(default_factory=dict)  # rows, of all audits
    about: dict = field(default_factory=dict)
    more: dict = field(default_factory=dict)


@dataclass
class Tracked:
    """One run: what is on disk, and what trackers have of it."""

    root: Path
    audits: list[dict]
    losses: list[float]
    said: str
    records: dict[str, Record]


def failures(text):
    """What was said of trackers that failed."""
    return re.findall(r"AlignGuard: ((?:W&B|Trackio|TensorBoard|MLflow|Broken|Well|the \w*tracker\w*) failed .*)", text)


def track(root, name="run", **options):
    """Runs tracked_run.py in a process of its own, with every tracker's files below `root`."""
    script, out = Path(__file__).with_name("tracked_run.py"), root / name
    env = {
        **os.environ,
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(root),
        "WANDB_DATA_DIR": str(root / "wandb-data"),
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(root / "trackio"),
        "MLFLOW_TRACKING_URI": (root / "mlruns").as_uri(),
        "MLFLOW_RUN_ID": options.pop("mlflow_run", ""),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    env = {key: value for key, value in env.items() if value}
    options = json.dumps({"report_to": INSTALLED, **options})
    done = subprocess.run(
        [sys.executable, script, out, options], capture_output=True, text=True, env=env, cwd=root, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not failures(done.stderr)
    read = {"wandb": read_wandb, "trackio": read_trackio, "tensorboard": read_tensorboard, "mlflow": read_mlflow}
    losses = json.loads((out / "losses.json").read_text())
    return Tracked(root, lines(out), losses, done.stdout, {name: read[name](root) for name in INSTALLED})


def read_wandb(root):
    """Of the latest run, as `wandb leet inspect` reads it."""
    (path,) = sorted((root / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)[-1:]
    wandb = Path(sys.executable).with_name("wandb")
    shown = subprocess.run([wandb, "leet", "inspect", "--json", str(path)], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    record = Record(more={"history": [], "summary": {}, "artifacts": [], "files": path.parent / "files"})
    for row in rows:
        if row["type"] == "history":
            item = row["history"]["item"]
            record.more["history"].append(item)
            record.losses += [item["train/loss"]] if "train/loss" in item else []
            record.figures += [
                (name, item["train/global_step"], value)
                for name, value in item.items()
                if name.startswith("alignguard/") and isinstance(value, float | int) and "." not in name
            ]
            for name in ("flips", "answers"):
                if f"alignguard/{name}.path" in item:
                    table = json.loads((record.more["files"] / item[f"alignguard/{name}.path"]).read_text())
                    record.tables.setdefault(name, []).extend(
                        dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]
                    )
        elif row["type"] == "alert":
            record.alerts.append((row["alert"]["title"], row["alert"]["text"]))
        elif row["type"] == "summary":
            record.more["summary"] |= row["summary"].get("update", {})
            for gone in row["summary"].get("remove", ()):
                record.more["summary"].pop(gone["key"], None)
        elif row["type"] == "artifact":
            artifact = row["artifact"]
            files = {file["path"]: Path(file["local_path"]) for file in artifact["manifest"]["contents"]}
            record.more["artifacts"].append({**artifact, "files": files})
        elif row["type"] == "config":
            record.more.setdefault("config", []).append(row["config"])
    return record


def read_trackio(root):
    record = Record()
    with sqlite3.connect(root / "trackio" / "huggingface.db") as db:
        for (text,) in db.execute("SELECT metrics FROM metrics ORDER BY id"):
            logged = json.loads(text)
            record.losses += [logged["train/loss"]] if "train/loss" in logged else []
            for name, value in logged.items():
                if name in ("alignguard/flips", "alignguard/answers"):
                    record.tables.setdefault(name.removeprefix("alignguard/"), []).extend(value["_value"])
                elif name.startswith("alignguard/"):
                    record.figures.append((name, logged["train/global_step"], value))
        record.alerts = db.execute("SELECT title, text FROM alerts ORDER BY id").fetchall()
        record.about = json.loads(db.execute("SELECT config FROM configs").fetchone()[0])["alignguard"]
    return record


def read_tensorboard(root):
    """Of all runs; `more` names the folder each of our figures is in, and its event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = Record(more={"folders": set(), "files": {}})
    for folder in sorted({path.parent for path in root.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        record.more["files"][folder.name] = len(list(folder.glob("events.out.tfevents.*")))
        for name in events.Tags()["scalars"]:
            values = [(event.step, event.value) for event in events.Scalars(name)]
            if name.startswith("alignguard/"):
                record.more["folders"].add(folder.name)
                record.figures += [(name, step, value) for step, value in values]
            elif name == "train/loss":
                record.losses += [value for _, value in values]
        for name in events.Tags()["tensors"]:
            texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors(name)]
            if name.startswith("alignguard/regression"):
                record.alerts += [(text.splitlines()[0].strip(), text) for text in texts]
            elif name.startswith("alignguard/about"):
                record.about = json.loads(texts[-1])
    return record


def read_mlflow(root):
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=(root / "mlruns").as_uri())
    (run,) = client.search_runs(["0"])
    folder = Path(run.info.artifact_uri.removeprefix("file://")) / "alignguard"
    record = Record(more={"run": run.info.run_id, "status": run.info.status})
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        if name.startswith("alignguard/"):
            record.figures += [(name, metric.step, metric.value) for metric in history]
        elif name == "loss":
            record.losses = [metric.value for metric in history]
    record.about = json.loads((folder / "about.json").read_text())
    for path in folder.glob("regression_step_*.txt"):
        record.alerts.append((run.data.tags["alignguard.regression"], path.read_text()))
    for name in ("flips", "answers"):
        table = json.loads((folder / f"{name}.json").read_text())
        record.tables[name] = [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]
    return record
