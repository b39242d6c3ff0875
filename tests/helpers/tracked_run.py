"""A short run that every tracker is told of, for tests that read their records: tracked_run.py DIR OPTIONS (JSON)."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
from planted import TOXIC, planted, slow
from runs import Losses
from tiny import tiny_probes, tiny_tokenizer
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from alignguard import Schedule

PROBES = [probe for probe in tiny_probes() if probe.dimension != "toxicity"] + TOXIC


class StopAt2(TrainerCallback):
    """Comes after ours, so that the last audit is taken when the trainer's own trackers have closed."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_training_stop or state.global_step == 2


def main(output_dir, report_to, attach="list", quote=True, late=False, resume=False, max_steps=2):
    """
    Toxicity regresses at the third audit; with `late` that one is taken at the end of training. Attached `"before"`, our callback is
    called before the trackers' own, which open their runs.
    """
    every = Schedule(at=(1,), every=0, draw=40) if late else Schedule(at=(), every=1, draw=40)
    settings = {"schedule": every, "probes": PROBES, "quote": quote}
    losses, tokenizer = Losses(), tiny_tokenizer()
    ours, theirs = [] if attach == "add" else [planted(**settings)], []
    if attach == "before":
        report_to, theirs = [], [INTEGRATION_TO_CALLBACK[name]() for name in report_to]
    trainer = slow(
        tokenizer, output_dir, [losses, *ours, *theirs], report_to=report_to, run_name="tracked", save_strategy="steps",
        save_steps=2, max_steps=4 if late else max_steps, lr_scheduler_type="constant",
        trackio_space_id=None,  # the oldest transformers would open a Space
    )  # fmt: skip
    if attach == "add":
        trainer.add_callback(planted(trainer=trainer, **settings))
    if late:
        trainer.add_callback(StopAt2())
    trainer.train(resume_from_checkpoint=resume or None)
    Path(output_dir, "losses.json").write_text(json.dumps([log["loss"] for log in losses.logs if "loss" in log]))


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
