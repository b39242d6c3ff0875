"""Turn an instruct model into a reasoner by SFT on traces, and watch what that does to its alignment.

    python recipes/sft.py --output_dir runs/sft
    python recipes/sft.py --output_dir runs/sft --model_name_or_path Qwen/Qwen2.5-1.5B-Instruct --use_peft
    python recipes/sft.py --output_dir runs/sft --dataset_name open-r1/Mixture-of-Thoughts --dataset_config math

All options of TRL's SFTConfig, ModelConfig and ScriptArguments work. Without --model_name_or_path the embedded
SmolLM2-135M-Instruct is trained, without --dataset_name on arithmetic with traces.
"""

import os
import sys
from dataclasses import dataclass, field

import torch
import wandb
from datasets import load_dataset
from embedded import NAME, embedded_model
from tasks import reasoning_rows
from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, TrlParser, get_peft_config

from alignguard import AlignGuardCallback, AlignGuardError, Schedule, StopRule, TokenBudget


@dataclass
class AuditArguments:
    """How often, and how much, is asked."""

    probes: list[str] = field(default_factory=lambda: ["core"], metadata={"help": "core, dimensions, JSONL files."})
    reference: str = field(default="auto", metadata={"help": "auto, copy, adapter, offload, cache, or a path."})
    audit_at: list[int] = field(default_factory=lambda: [5, 10, 20, 40, 80], metadata={"help": "Early audits."})
    audit_every: int = field(default=100, metadata={"help": "After those, an audit every so many steps."})
    draw: int = field(default=48, metadata={"help": "Probes a dimension and audit."})
    rotate: bool = field(default=True, metadata={"help": "Draw afresh at each audit."})
    answer_tokens: int = field(default=64, metadata={"help": "Budget of an answer."})
    trace_tokens: int = field(default=512, metadata={"help": "Budget of a trace."})
    stop: bool = field(default=False, metadata={"help": "Save and stop on a proven regression."})
    restore: bool = field(default=False, metadata={"help": "Stop, and put the last aligned weights back."})
    alpha: float = field(default=0.05, metadata={"help": "Chance of a false stop in a run."})
    train_rows: int = field(default=4096, metadata={"help": "Rows of the built-in task."})


def main() -> None:
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, AuditArguments))
    parser.set_defaults(model_name_or_path=NAME, learning_rate=2e-5, logging_steps=1, save_strategy="no")
    if not torch.cuda.is_available():
        parser.set_defaults(use_cpu=True, bf16=False, dtype="float32")
    script, training, model, audits = parser.parse_args_and_config()
    if "wandb" in training.report_to and "WANDB_MODE" not in os.environ and not wandb.login(prompt=False):
        wandb.setup(wandb.Settings(mode="offline"))  # no API key: the run is kept on disk, `wandb sync` uploads it

    if script.dataset_name:
        dataset = load_dataset(script.dataset_name, script.dataset_config)[script.dataset_train_split]
    else:
        dataset = reasoning_rows(audits.train_rows)
    path = embedded_model() if model.model_name_or_path == NAME else model.model_name_or_path
    training.model_init_kwargs = {"dtype": model.dtype, "revision": model.model_revision}

    trainer = SFTTrainer(
        model=path,
        args=training,
        train_dataset=dataset,
        peft_config=get_peft_config(model),
        callbacks=[
            AlignGuardCallback(
                probes=audits.probes,
                reference=audits.reference,
                schedule=Schedule(audits.audit_at, audits.audit_every, audits.draw, audits.rotate),
                tokens=TokenBudget(audits.answer_tokens, audits.trace_tokens),
                stop=StopRule(audits.alpha, restore=audits.restore) if audits.stop or audits.restore else None,
            )
        ],
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)


if __name__ == "__main__":
    try:
        main()
    except (AlignGuardError, OSError) as error:  # a mistake to mend: one line, no traceback
        sys.exit(f"{type(error).__name__}: {error}")
