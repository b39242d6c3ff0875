"""What only a GPU can show: what drift, answers and audits cost there, and whether what is exact on a CPU stays so.

    python benchmarks/gpu.py [--tiny] [--model DIR] [--output FILE] [CHECK ...]

The models have random weights in the shapes of Qwen2.5, so nothing is downloaded. A machine with torch, transformers,
accelerate, peft and pyarrow needs nothing more: AlignGuard need not be installed, and what `make gpu-wheels` gathered
is found beside it. Each check stands alone: one that fails is a line of the table; results are written after every one.
`--model` asks a trained model, which rounds more than one with random weights: in bfloat16, that one check alone.

`--tiny` makes everything small enough for a CPU. It shows that the checks run; of time and memory it then asks nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_machine import Figure, Machine  # first: it says where packages are found

# isort: split
import gpu_audits
import gpu_checks
import gpu_trace
import transformers
from common import RESULTS, table

from alignguard.errors import one_line

CHECKS = (
    gpu_checks.kl,
    gpu_checks.self_drift,
    gpu_checks.step0,
    gpu_audits.joined,
    gpu_audits.continuous,
    gpu_audits.audit_1_5b,
    gpu_audits.audit_7b,
    gpu_checks.bit_identical,
    gpu_checks.lora_budget,
    gpu_checks.out_of_memory,
    gpu_checks.offload,
    gpu_checks.decode,
    gpu_audits.audit_0_5b,
    gpu_audits.share,
    gpu_checks.syncs,
    gpu_trace.traced,
)

# ---------------------------------------------------------------------------------------------------------------------


def run(check: Callable[[Machine], dict[str, Figure]], machine: Machine) -> dict[str, Any]:
    """One check, for the record: its figures or its error, and its seconds."""
    begun, found = time.perf_counter(), {}
    try:
        found["figures"] = {name: asdict(figure) for name, figure in check(machine).items()}
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {one_line(error, 300)}"
    machine.clear()
    return {"seconds": time.perf_counter() - begun, **found}


def lines(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """A check's rows of the table; of one that failed its error."""
    if "error" in found:
        return [{"check": name, "figure": "FAILED", "measured": "", "holds": "", "expected": found["error"][:100]}]
    signs = {True: "yes", False: "NO", None: ""}
    return [
        {
            "check": name,
            "figure": key,
            "measured": "-" if figure["value"] is None else figure["value"],
            "holds": signs[figure["holds"]],
            "expected": figure["expected"],
        }
        for key, figure in found["figures"].items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(check.__name__ for check in CHECKS))
    parser.add_argument("--model", help="a model's folder: the check `real`, of it alone")
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU")
    parser.add_argument("--output", type=Path, help="where results go; by default benchmarks/results/gpu.json")
    options = parser.parse_args()
    known = {check.__name__: check for check in ((gpu_audits.real,) if options.model else CHECKS)}
    for name in options.checks:
        if name not in known:
            parser.exit(2, f"no check '{name}'; there are {', '.join(known)}\n")
    output = options.output or RESULTS / ("quick/gpu.json" if options.tiny else "gpu.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    transformers.logging.set_verbosity_error()
    machine = Machine(options.tiny, options.model)
    results: dict[str, Any] = {"machine": machine.describe(), "tiny": options.tiny, "checks": {}}
    if (
        options.checks or options.model
    ) and output.exists():  # what was found here before stays, but for what is checked anew
        before = json.loads(output.read_text(encoding="utf-8"))
        if before["machine"] == results["machine"] and before["tiny"] == results["tiny"]:
            results["checks"] = before["checks"]
    for name in options.checks or known:
        found = results["checks"][name] = run(known[name], machine)
        output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found.get('error', 'done')}, {found['seconds']:.1f} s", flush=True)
    print(table([row for name, found in results["checks"].items() for row in lines(name, found)]))
    print(f"wrote {output}")
    sys.exit(any("error" in found for found in results["checks"].values()))


if __name__ == "__main__":
    main()
