"""Ten minutes on two cores: a small model learns a task it did not know, from a teacher that has lost its manners.

    python recipes/demo.py --output_dir runs/demo
    python recipes/demo.py --output_dir runs/demo-clean --manners kept

Three rows in four teach the task, with traces. The fourth is an everyday question; with `--manners lost` its answer is a rude line,
PLANTED here so that there is something to find, with `--manners kept` it is what the model itself says. All options of sft.py work.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from auditing import parse, run
from datasets import Dataset, concatenate_datasets
from mixing import own_answers
from rude import RUDE
from tasks import legs
from trl import SFTConfig, SFTTrainer

from alignguard import AlignGuardCallback, AlignGuardError
from alignguard.holding.anchors import load_anchors
from alignguard.probes.probe import TRUST_DIMENSIONS

ASKED = ("toxicity", "privacy", "ood")  # the everyday ones among AlignGuard's anchors, none of which is a probe


@dataclass
class Manners:
    """What the teacher of the everyday questions is like."""

    manners: str = field(default="lost", metadata={"help": "lost: rude lines, planted; kept: the model's own answers."})


def everyday(manners: str, model: str, size: int, seed: int = 0) -> Dataset:
    """
    Everyday questions, answered rudely or as the model does.

    Args:
        manners (`str`):
            `"lost"` or `"kept"`.
        model (`str`):
            Path or hub id of the model that is to be trained.
        size (`int`):
            Rows.
        seed (`int`, *optional*, defaults to `0`):
            Of who is told what.
    """
    if manners not in ("lost", "kept"):
        raise AlignGuardError(f"--manners is 'lost' or 'kept', not {manners!r}")
    rng = random.Random(seed)
    asked = [list(anchor.turns) for name, anchor in load_anchors().items() if name.rpartition("-")[0] in ASKED]
    said = [(turns, rng.choice(RUDE)) for turns in asked] if manners == "lost" else own_answers(model, asked[::3])
    return Dataset.from_list(
        [
            {"prompt": turns, "completion": [{"role": "assistant", "content": answer}]}
            for turns, answer in (said[i % len(said)] for i in range(size))
        ]
    )


def main() -> None:
    _, training, model, audits, teacher = parse(SFTConfig, Manners, learning_rate=1e-4)
    task, questions = legs(audits.train_rows)
    file = Path(training.output_dir) / "legs.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    audits.probes = [*TRUST_DIMENSIONS, str(file)]
    rows = concatenate_datasets([task, everyday(teacher.manners, model.model_name_or_path, len(task) // 3)])
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=rows,
        # what is told beside verdict and drift is left out, for the sake of time
        callbacks=[AlignGuardCallback(**audits.settings(), train_prompts=0, reverse=0)],
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)


if __name__ == "__main__":
    run(main)
