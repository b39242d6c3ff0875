"""What each way of keeping the start costs: memory over training alone, bytes a cached token, seconds an audit, exactness.

    python benchmarks/reference.py [--quick]

Every way trains the embedded model for two steps of the same data in a process of its own, audited at step 0 and step 2.
`extra_mb` is the peak of resident memory less that of the same training without AlignGuard; on a CPU it includes what
`offload` and `cache` would keep off a GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "recipes")]

KINDS = {
    "copy": "copy",
    "offload": "offload",
    "cache": "cache",
    "given": "given",
    "lora adapter": "adapter",
    "lora copy": "copy",
}


def train(kind: str, lora: bool, output_dir: str, draw: int) -> None:
    """One run, in a process of its own; prints its peak memory."""
    from embedded import embedded_model
    from peft import LoraConfig
    from tasks import reasoning_rows
    from trl import SFTConfig, SFTTrainer

    from alignguard import AlignGuardCallback, Schedule, TokenBudget

    start = embedded_model()
    args = SFTConfig(
        output_dir,
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-3 if lora else 2e-5,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    callbacks = []
    if kind != "none":
        callbacks = [
            AlignGuardCallback(
                reference=start if kind == "given" else kind,
                schedule=Schedule(at=(), every=0, draw=draw, rotate=False),
                tokens=TokenBudget(answer=24, trace=32),
            )
        ]
    peft = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear") if lora else None
    trainer = SFTTrainer(start, args, train_dataset=reasoning_rows(64), peft_config=peft, callbacks=callbacks)
    trainer.train()
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def run(kind: str, lora: bool, output_dir: Path, draw: int) -> float:
    """Peak resident memory of one run, MiB."""
    command = [sys.executable, __file__, "--kind", kind, "--output_dir", str(output_dir), "--draw", str(draw)]
    done = subprocess.run(command + ["--lora"] * lora, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return float(next(line for line in done.stdout.splitlines() if line.startswith("PEAK")).split()[1])


def drifts(output_dir: Path) -> dict[str, list[float]]:
    """Raw KL at every token of the last audit, by probe."""
    import pyarrow.parquet as pq

    rows = pq.read_table(output_dir / "_alignguard" / "answers" / "step_00002.parquet").to_pylist()
    return {row["id"]: row["kl_raw"] for row in rows}


def main() -> None:
    from common import table, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one probe a dimension")
    parser.add_argument("--kind")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--output_dir")
    parser.add_argument("--draw", type=int)
    options = parser.parse_args()
    if options.kind:
        return train(options.kind, options.lora, options.output_dir, options.draw)

    draw = 1 if options.quick else 3
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        alone = {lora: run("none", lora, Path(folder) / f"none{lora}", draw) for lora in (False, True)}
        found: dict[str, dict[str, list[float]]] = {}
        for name, kind in KINDS.items():
            lora, output_dir = name.startswith("lora"), Path(folder) / name.replace(" ", "-")
            peak = run(kind, lora, output_dir, draw)
            found[name] = drifts(output_dir)
            last = json.loads((output_dir / "alignguard" / "audits.jsonl").read_text().splitlines()[-1])["metrics"]
            row = {
                "reference": name,
                "extra_mb": peak - alone[lora],
                "seconds_an_audit": last["alignguard/cost/seconds"],
                "kl_raw": last["alignguard/kl/raw"],
                "bytes_a_cached_token": 0.0,
                "disk_mb": 0.0,
            }
            cache = output_dir / "_alignguard" / "reference.safetensors"
            if cache.exists():
                from safetensors import safe_open

                with safe_open(cache, "pt") as file:
                    tensors = {k: file.get_tensor(k) for k in file.keys() if k.startswith("hidden/")}  # noqa: SIM118
                size = sum(t.numel() * t.element_size() for t in tensors.values())
                row["bytes_a_cached_token"] = size / sum(len(t) for t in tensors.values())
                row["disk_mb"] = cache.stat().st_size / 2**20
            rows.append(row)
            print(f"{name}: {row}", flush=True)
        for row in rows:
            other = found["lora copy" if row["reference"].startswith("lora") else "copy"]
            pairs = [(a, b) for id, kl in found[row["reference"]].items() for a, b in zip(kl, other[id], strict=True)]
            row["largest_difference_from_copy"] = max(abs(a - b) for a, b in pairs)
    print(table(rows))
    found = {"training_alone_mb": alone[False], "lora_training_alone_mb": alone[True], "modes": rows}
    write("reference", found, options.quick)


if __name__ == "__main__":
    main()
