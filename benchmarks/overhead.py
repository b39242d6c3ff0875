"""What watching costs a training run: recipes/sft.py's training with AlignGuard and without it, in turn.

    python benchmarks/overhead.py [--quick] [--steps 200] [--draw 6] [--batch 8]

`share` is of the time between the audits of step 0 and of the last step, by a clock of its own: what passes between two steps, less
what passes there in runs without AlignGuard, before and after. `share_by_us` is what the run itself tells
(`alignguard/cost/overhead`). `extra_peak_mb` is the process's largest memory beyond that of the run alone: a copy of the start, and
what an audit takes.

The floor is worked out, not measured: tokens that a default audit reads and decodes, counted on the core probes, and what a card's
arithmetic and memory would take for them at the size of larger models.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from common import table, write

from alignguard import AlignGuardCallback, Chat, Schedule, TokenBudget, load_probes
from alignguard.auditing.leaning import likelihood_rows
from alignguard.auditing.manner import Manner
from alignguard.auditing.prompts import encode_prompt
from alignguard.model.forward import Row
from alignguard.model.trees import grow
from alignguard.probes.draw import draw

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
TOKENS = TokenBudget(answer=48, trace=64)
# Qwen2.5: parameters, layers, vocabulary times width of the head; and an H100: dense bfloat16 operations and bytes a second
SHAPES = {"1.5B": (1.54e9, 151_936 * 1536), "7B": (7.62e9, 152_064 * 3584), "32B": (32.8e9, 152_064 * 5120)}
OPERATIONS, BYTES = 989e12, 3.35e12


def train(watched: bool, steps: int, draw_size: int, batch: int, folder: str) -> dict[str, Any]:
    """One run, in a process of its own: seconds of each step, and its peak of memory."""
    import torch
    from embedded import embedded_model
    from tasks import reasoning_rows
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        """When each step begins and ends; before AlignGuard's own look."""

        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.times.append((self.begun, time.perf_counter()))

    clock, callbacks = Clock(), []
    if watched:
        callbacks = [AlignGuardCallback(schedule=Schedule(draw=draw_size), tokens=TOKENS)]
    config = SFTConfig(
        folder,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=2e-5,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        model_init_kwargs={"dtype": "float32"},
        disable_tqdm=True,
    )
    trainer = SFTTrainer(embedded_model(), config, train_dataset=reasoning_rows(4096), callbacks=[clock, *callbacks])
    begun = time.perf_counter()
    trainer.train()
    # from the first step to the end of the last one: the audits of both ends are outside
    between, steps_took = clock.times[-1][1] - clock.times[0][0], [end - start for start, end in clock.times]
    found: dict[str, Any] = {
        "seconds": time.perf_counter() - begun,
        "step": median(steps_took),
        "between": between,
        "outside": 1 - sum(steps_took) / between,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if watched:
        audits = callbacks[0].audits
        lines = [json.loads(line) for line in (Path(folder) / "alignguard" / "pace.jsonl").read_text().splitlines()]
        did = [*{line["step"]: line["did"] for line in lines}.values()]  # a step at which something was done has two
        found |= {
            "share_by_us": audits[-1].metrics["alignguard/cost/overhead"],
            "ends": audits[0].metrics["alignguard/cost/seconds"] + audits[-1].metrics["alignguard/cost/seconds"],
            "audits": did.count("audit"),
            "pulses": did.count("pulse"),
            "planned": len(Schedule().planned(steps)) - 2,
            "audit_seconds": [audit.metrics["alignguard/cost/seconds"] for audit in audits],
        }
    return found


def in_turn(steps: int, draw_size: int, batch: int) -> dict[str, Any]:
    """Alone, watched, and alone again, each in its own process."""
    runs = []
    for watched in (False, True, False):
        with tempfile.TemporaryDirectory() as folder:
            options = [
                "--run",
                "watched" if watched else "alone",
                "--steps",
                str(steps if watched else max(10, steps // 4)),
            ]
            options += ["--draw", str(draw_size), "--batch", str(batch), "--folder", folder]
            command = [sys.executable, __file__, *options]
            subprocess.run(command, check=True)
            runs.append(json.loads((Path(folder) / "found.json").read_text()))
    before, watched, after = runs
    step = (before["step"] + after["step"]) / 2
    return {
        "share": watched["outside"] - (before["outside"] + after["outside"]) / 2,
        "share_by_us": watched["share_by_us"],
        "step_watched_over_alone": watched["step"] / step,
        "extra_peak_mb": watched["peak_mb"] - max(before["peak_mb"], after["peak_mb"]),
        "runs": {"alone": before, "watched": watched, "alone again": after},
    }


def counted(size: int = 48) -> dict[str, int]:
    """Tokens of an audit: read by the policy, beside how often without trees; read by the start; decoded if every answer is another."""
    from embedded import embedded_model
    from transformers import AutoTokenizer

    chat, budget = Chat(AutoTokenizer.from_pretrained(embedded_model())), TokenBudget()
    found = {"probes": 0, "read": 0, "read_apart": 0, "answers": 0, "prompts": 0, "looked_up": 0}
    for probe in draw(load_probes("core"), size, 0):
        prompt, length = encode_prompt(probe, chat)[0], 16 if probe.judge == "choice" else budget.answer
        answer = Row(
            prompt, range(10_000_000, 10_000_000 + length)
        )  # tokens of no text: it shares none with an opening
        rows = [answer, Row(prompt, chat.open_ids()), *likelihood_rows(probe, chat, False, Manner(chat.form))]
        found["probes"] += 1
        found["read"] += sum(len(tree.tokens) for tree in grow(rows))
        found["read_apart"] += sum(row.length for row in rows)
        found["prompts"] += len(prompt)
        found["looked_up"] += sum(len(row.target) for row in rows)
        found["answers"] += probe.judge != "choice"
    return found


def floor(tokens: dict[str, int]) -> list[dict[str, Any]]:
    """What an H100 would take at least, by arithmetic and memory traffic, in seconds."""
    rows = []
    for name, (parameters, head) in SHAPES.items():
        body = parameters - head
        reading = 2 * body * tokens["read"] + 2 * 2 * head * tokens["looked_up"]  # policy's body; both heads
        asking = 2 * body * tokens["prompts"] + 2 * body * 64 * tokens["answers"]
        steps = 64  # one batch
        rows.append(
            {
                "model": name,
                "unmoved: operations": reading,
                "unmoved: seconds": reading / OPERATIONS,
                "all answers anew: seconds": (reading + asking) / OPERATIONS + steps * 2 * parameters / BYTES,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--draw", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8, help="rows a step")
    parser.add_argument("--run", choices=("alone", "watched"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        found = train(options.run == "watched", options.steps, options.draw, options.batch, options.folder)
        (Path(options.folder) / "found.json").write_text(json.dumps(found))
        return
    tokens = counted()
    print(table([tokens]))
    print(table(floor(tokens)))
    steps, size, batch = (12, 1, 2) if options.quick else (options.steps, options.draw, options.batch)
    found = in_turn(steps, size, batch)
    print(table([{key: value for key, value in found.items() if key != "runs"}]))
    write(
        "overhead",
        {"steps": steps, "draw": size, "batch": batch, **found, "tokens": tokens, "floor": floor(tokens)},
        options.quick,
    )


if __name__ == "__main__":
    main()
