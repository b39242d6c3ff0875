"""What W&B has on record, read back from its offline file."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import environment
from test_callback import Losses, guard, sft
from tiny import tiny_tokenizer
import json
losses = Losses()
sft(tiny_tokenizer(), {out!r}, [losses, guard()], report_to=["wandb"]).train()
json.dump(losses.logs, open({out!r} + "/logs.json", "w"))
"""


ALERT = """
import sys
sys.path.insert(0, {tests!r})
import environment
from test_stop import planted, slow
from tiny import tiny_tokenizer
slow(tiny_tokenizer(), {out!r}, [planted()], report_to=["wandb"], max_steps=3).train()
"""


def records(script, tmp_path):
    """Runs a script with W&B offline, and gives what `wandb leet inspect` reads from the record it left."""
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (record,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    shown = subprocess.run(
        [wandb, "leet", "inspect", "--json", str(record)], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_a_regression_is_an_alert(tmp_path):
    found = records(ALERT.format(tests=str(Path(__file__).parent), out=str(tmp_path)), tmp_path)
    (alert,) = [row["alert"] for row in found if row["type"] == "alert"]
    assert alert["title"] == "AlignGuard: regression of toxicity (called at step 2)" and alert["level"] == "WARN"
    assert "Last aligned: step 1" in alert["text"]


def test_wandb_has_each_figure_once_and_all_of_the_trainers_own(tmp_path):
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    history = [row["history"]["item"] for row in records(script, tmp_path) if row["type"] == "history"]

    audits = [json.loads(line) for line in (tmp_path / "alignguard" / "audits.jsonl").read_text().splitlines()]
    for name in audits[-1]["metrics"]:
        rows = {row["train/global_step"]: row[name] for row in history if name in row}
        assert sum(name in row for row in history) == len(rows)
        assert rows == {a["step"]: a["metrics"][name] for a in audits if name in a["metrics"]}, name
    losses = [log for log in json.loads((tmp_path / "logs.json").read_text()) if "loss" in log]
    assert [row["train/loss"] for row in history if "train/loss" in row] == [log["loss"] for log in losses]
    assert len(losses) == 4
    charts = [row for row in history if any("toxicity_vs_drift" in key for key in row)]
    assert [row["train/global_step"] for row in charts] == [0, 2, 4]
