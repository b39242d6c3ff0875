"""A run that can be stopped and taken up again, for tests that need a new process: resume_run.py DIR STEPS MODE KIND."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
from peft import LoraConfig
from runs import guard, sft
from tiny import tiny_tokenizer
from transformers import TrainerCallback

from alignguard import Schedule


class StopAt4(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_training_stop or state.global_step == 4


def main(output_dir, steps, mode, kind):
    guarded = guard(schedule=Schedule(at=(2, 4), every=0, draw=1), reference=kind)
    callbacks = [guarded, StopAt4()] if mode == "stop" else [guarded]
    settings = {"max_steps": int(steps), "save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "constant"}
    if kind == "adapter":
        settings["peft_config"] = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"])
    trainer = sft(tiny_tokenizer(), output_dir, callbacks, **settings)
    trainer.train(resume_from_checkpoint=mode == "resume" or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
