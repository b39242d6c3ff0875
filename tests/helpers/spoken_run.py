"""One process of a GRPO run under audit: spoken_run.py OUT. It tells what its loss was given, step by step."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
from datasets import Dataset
from runs import guard
from tiny import tiny_model, tiny_probes, tiny_tokenizer
from trainers import ONLINE, SETTINGS, reward
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from alignguard import Schedule

RANK = int(os.environ.get("RANK", 0))


class Given(TrainerCallback):
    """What the loss is given: tokens said, and their advantage."""

    steps, now = {}, []

    def on_step_end(self, args, state, control, **kwargs):
        self.steps[state.global_step], self.now = self.now, []


def main(out):
    tokenizer, given = tiny_tokenizer(), Given()
    asked = Dataset.from_list([{"prompt": [{"role": "user", "content": f"What is {i} + {i}?"}]} for i in range(16)])
    more = {"gradient_accumulation_steps": 2, "steps_per_generation": 1, "beta": 0.0}
    args = GRPOConfig(out, **{**SETTINGS, **ONLINE, **more})
    callback = guard(probes=tiny_probes()[:4], schedule=Schedule(at=(2,), every=0, draw=1))
    trainer = GRPOTrainer(
        tiny_model(tokenizer),
        reward,
        args=args,
        train_dataset=asked,
        processing_class=tokenizer,
        callbacks=[callback, given],
    )
    compute = trainer._compute_loss

    def watched(model, inputs):
        for said, there, advantage in zip(
            inputs["completion_ids"], inputs["completion_mask"], inputs["advantages"].tolist(), strict=True
        ):
            given.now.append([said[there > 0].tolist(), advantage])
        return compute(model, inputs)

    trainer._compute_loss = watched
    trainer.train()
    (Path(out) / f"found_{RANK}.json").write_text(json.dumps(given.steps))


if __name__ == "__main__":
    main(*sys.argv[1:])
