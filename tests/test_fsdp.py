import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_model_sharded_by_fsdp2_is_audited_as_a_whole_one(tmp_path):
    script = str(Path(__file__).parent / "fsdp_run.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    runs = [
        subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE, text=True)
        for name, command in (("one", [sys.executable, script]), ("two", torchrun))
    ]
    for run in runs:
        _, errors = run.communicate(timeout=240)
        assert run.returncode == 0, errors[-2000:]
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one", "two"))
    assert one["metrics"]["alignguard/kl/raw"] > 1e-3
    for key, value in one["metrics"].items():
        if "/cost/seconds" not in key:
            assert two["metrics"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    for id, said in one["said"].items():
        assert two["said"][id] == pytest.approx(said, rel=1e-4), id
