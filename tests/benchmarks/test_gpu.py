"""The checks of `make gpu` run on a CPU and a bare machine: without TRL, datasets and wandb."""

import json
import os
import subprocess
import sys

import pytest
from places import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"
CHECKS = [
    "kl",
    "self_drift",
    "step0",
    "joined",
    "continuous",
    "audit_1_5b",
    "audit_7b",
    "bit_identical",
    "lora_budget",
    "out_of_memory",
    "offload",
    "decode",
    "audit_0_5b",
    "share",
    "syncs",
    "traced",
]
# run as a script, where some packages are not to be had
BARE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("trl", "datasets", "wandb")))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def gpu(*args, code=BARE):
    command = [sys.executable, "-c", code, SCRIPT, *args]
    path = str(SCRIPT.parent)  # where a script's own folder would be
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    )


@pytest.mark.slow
def test_every_check_runs_on_a_bare_cpu(tmp_path):
    output = tmp_path / "results" / "gpu.json"
    done = gpu("--tiny", "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    assert (
        list(results["checks"]) == CHECKS
        and results["tiny"]
        and not [c for c in results["checks"].values() if "error" in c]
    )
    assert (results["machine"]["card"], results["machine"]["trl"]) == (None, None) and results["machine"]["torch"]

    def value(check, figure):
        return results["checks"][check]["figures"][figure]["value"]

    assert 0 < value("kl", "relative_error") < 1e-3 and value("kl", "self_kl") == 0
    assert value("self_drift", "fused") is True and value("self_drift", "same_batches") == 0
    assert value("bit_identical", "trainer") == "Trainer"
    assert (
        value("bit_identical", "repeats")
        is value("bit_identical", "weights")
        is value("bit_identical", "losses")
        is True
    )
    assert value("lora_budget", "reference") == "adapter" and value("lora_budget", "start_kept") is False
    assert value("out_of_memory", "ended").startswith("OutOfMemory") and value("out_of_memory", "held_mib") == 0
    assert value("offload", "held_mib") == 0 and value("audit_7b", "kl") > 0 and value("step0", "answers") > 0
    assert 0 < value("traced", "relative_error") < 1e-3
    holds = [figure["holds"] for check in results["checks"].values() for figure in check["figures"].values()]
    assert True in holds and False not in holds
    table = done.stdout[done.stdout.index("        check") :]
    assert all(f"{name} " in table for name in CHECKS) and "FAILED" not in table


def test_a_check_that_fails_is_a_line_and_the_others_go_on(tmp_path):
    output = tmp_path / "gpu.json"
    code = BARE.replace('"wandb"', '"wandb", "peft"')  # what one check needs
    done = gpu("--tiny", "--output", str(output), "lora_budget", "offload", code=code)
    assert done.returncode == 1, done.stdout + done.stderr
    checks = json.loads(output.read_text())["checks"]
    assert "peft" in checks["lora_budget"]["error"] and checks["offload"]["figures"]["held_mib"]["holds"]
    (line,) = (line for line in done.stdout.splitlines() if "FAILED" in line)
    assert "lora_budget" in line and "peft" in line


def test_an_unknown_check_is_an_error_in_one_line():
    done = gpu("--tiny", "kl", "speed")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"no check 'speed'; there are {', '.join(CHECKS)}\n"
