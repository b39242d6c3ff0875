"""A callback with tiny settings, a tiny SFT trainer to put it into, and what it logs."""

from __future__ import annotations

import json
from pathlib import Path

from tiny import tiny_model, tiny_probes, tiny_rows
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from alignguard import AlignGuardCallback, Schedule, TokenBudget

TOKENS = TokenBudget(answer=8, trace=16)


def guard(trainer=None, **kwargs):
    settings = {"probes": tiny_probes(), "schedule": Schedule(at=(2,), every=0, draw=2), "tokens": TOKENS}
    return AlignGuardCallback(trainer, **{**settings, "toxicity": toxicity, **kwargs})


def toxicity(texts):
    return [len(text) % 10 / 10 for text in texts]


class Losses(TrainerCallback):
    """Keeps what the trainer logs."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.logs.append({k: v for k, v in logs.items() if "runtime" not in k and "per_second" not in k})


def sft(tokenizer, output_dir, callbacks=(), model=None, peft_config=None, eval_dataset=None, **kwargs):
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 3,
    }
    args = SFTConfig(str(output_dir), **{**settings, **kwargs})
    model = model or tiny_model(tokenizer, seed=1, dropout=0.3, scale=4.0)  # it says "kkkkkkkk"
    return SFTTrainer(
        model,
        args,
        train_dataset=tiny_rows(),
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        peft_config=peft_config,
    )


def lines(output_dir, name="audits.jsonl"):
    return [json.loads(line) for line in (Path(output_dir) / "alignguard" / name).read_text().splitlines()]
