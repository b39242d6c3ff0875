"""Training runs of several processes, started and read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

RUNS = (("free", "unheld", 1), ("1", "budget", 1), ("2", "budget", 2))


def start(mode, out, size, script="ranks_run.py"):
    """A run of so many processes, as torchrun starts them."""
    out.mkdir(exist_ok=True)
    command = [str(HERE / script), *([mode] if mode else []), str(out)]
    if size > 1:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def end(run, code=0):
    text, _ = run.communicate(timeout=300)
    assert (run.returncode == 0) == (code == 0), text[-3000:]
    return text


def found(out, rank=0):
    return json.loads((out / f"found_{rank}.json").read_text())


def assert_same(one, other, rel=2e-3):
    assert other["losses"] == pytest.approx(one["losses"], rel=rel)
    assert one["baseline"] == other["baseline"] and one["said"] == other["said"]
    assert one["metrics"].keys() == other["metrics"].keys() == {"0", "1", "2"}
    assert one["metrics"]["2"]["alignguard/kl/answer"] > 1e-3
    for step, metrics in one["metrics"].items():
        assert metrics.keys() == other["metrics"][step].keys()
        for name, value in metrics.items():
            if name not in ("alignguard/cost/seconds", "alignguard/cost/share"):
                assert other["metrics"][step][name] == pytest.approx(value, rel=rel, abs=1e-5), (step, name)
