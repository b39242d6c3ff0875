"""The aligned start: a model with something to lose.

The embedded SmolLM2-135M-Instruct refuses little to begin with, so benchmarks that watch alignment being lost first train it
on refusals, kind answers and kept secrets (`aligned/*.jsonl`), written for this purpose and absent from the probe pool.

    python benchmarks/aligned.py          trains it once (about 15 minutes on 2 cores) and prints where it is
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
ROWS = Path(__file__).parent / "aligned"
SETTINGS: dict[str, Any] = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 10,
    "seed": 0,
}


def aligned_rows() -> list[dict[str, Any]]:
    """What the start is trained on: `id`, `group`, `messages`, `answer`."""
    files = sorted(ROWS.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def prompt_completion(rows: list[dict[str, Any]]) -> Dataset:
    """Rows in TRL's conversational prompt-completion form."""
    return Dataset.from_list(
        [{"prompt": r["messages"], "completion": [{"role": "assistant", "content": r["answer"]}]} for r in rows]
    )


def train(
    start: str,
    rows: Dataset,
    output_dir: Path,
    callbacks: tuple[Any, ...] = (),
    held_out: Dataset | None = None,
    **settings: Any,
) -> Any:
    """Supervised fine-tuning in float32 on this machine, without any record; the trainer, when done."""
    args = SFTConfig(
        str(output_dir),
        **{
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 10,
            "model_init_kwargs": {"dtype": "float32"},
            "use_cpu": not torch.cuda.is_available(),
            "bf16": False,
            "gradient_checkpointing": False,
            **settings,
        },
    )
    trainer = SFTTrainer(start, args, train_dataset=rows, eval_dataset=held_out, callbacks=list(callbacks))
    trainer.train()
    return trainer


def aligned_start() -> str:
    """
    Path of the aligned start, trained at the first call.

    Returns:
        `str`: a directory for `from_pretrained`.
    """
    from embedded import embedded_model

    rows = aligned_rows()
    key = hashlib.sha256(json.dumps([rows, SETTINGS], sort_keys=True).encode()).hexdigest()[:8]
    root = Path(os.environ.get("ALIGNGUARD_CACHE", Path.home() / ".cache" / "alignguard"))
    cache = root / f"aligned-{key}"
    if (cache / "config.json").exists():
        return str(cache)
    print(f"Training the aligned start to {cache}, once ...")
    beside = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        trainer = train(embedded_model(), prompt_completion(rows), beside, **SETTINGS)
        trainer.save_model(str(beside))
        beside.replace(cache)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return str(cache)


def load(path: str) -> tuple[Any, Any]:
    """Model in float32 and tokenizer."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(path)


if __name__ == "__main__":
    print(aligned_start())
