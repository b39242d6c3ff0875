"""One process of a training run under audit: ranks_run.py MODE OUT. Started by hand or by torchrun, for test_distributed.py."""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
from runs import Losses, guard, sft
from tiny import tiny_model, tiny_probes, tiny_tokenizer

from alignguard import DriftBudget, Schedule, distributed

RANK, SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
BATCH = 6
ZERO3 = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}


def befalls(do, now):
    """Something befalls a process in the middle of an audit, once."""
    import alignguard.auditing.audit as audit_module

    measure, done = audit_module.measure_drift, []

    def measure_drift(policy, *args):
        if now() and not done:
            done.append(1)
            do()
        return measure(policy, *args)

    audit_module.measure_drift = measure_drift
    distributed._PATIENCE = timedelta(seconds=10)


BEFALLS = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "slow": lambda: time.sleep(4),
}


def main(mode, out):
    tokenizer, losses = tiny_tokenizer(), Losses()
    settings = {"probes": tiny_probes()[:7], "schedule": Schedule(at=(1,), every=0, draw=2), "reverse": 3}
    settings |= {"reference": "cache"} if mode == "cache" else {}
    if mode in ("budget", "unheld"):
        anchors = ["How do I open a door?", "Tell me of the fox.", "What is slow?"]
        settings["budget"] = DriftBudget(
            anchors=anchors, batch=3, answer_tokens=6, coefficient=50.0 * (mode == "budget")
        )
    if mode.startswith("fails"):
        import alignguard.auditing.audit as audit_module

        measure = audit_module.measure_drift

        def measure_drift(policy, *args):
            if RANK == 1 and (losses.logs or mode == "fails at the start"):
                raise OSError("out of luck")
            return measure(policy, *args)

        audit_module.measure_drift = measure_drift
    if mode in BEFALLS:
        befalls(BEFALLS[mode], lambda: RANK == 1 and losses.logs)
    # a folder for each process shows who writes; a cache is read by all
    folder = Path(out) if mode in ("cache", "zero3") or mode.endswith("shared") else Path(out) / str(RANK)
    goes_on = {}
    if mode.startswith(("begin", "resume")):
        settings |= {"schedule": Schedule(at=(2, 4, 6), every=0, draw=2)}
        settings["budget"] = DriftBudget(
            max_kl=0.01, anchors=["How do I?", "Tell me.", "Who?"], batch=3, answer_tokens=6
        )
        goes_on = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6 if mode.startswith("resume") else 4}
    model = tiny_model(tokenizer, seed=RANK if mode == "differs" else 1, scale=4.0)
    callback = guard(**settings)
    trainer = sft(
        tokenizer,
        folder,
        [losses, callback],
        model=model,
        **{"max_steps": 3 if "budget" in settings else 2, **goes_on},
        max_grad_norm=0.0 if "budget" in settings else 1.0,  # which would hide it, too
        optim="sgd" if "budget" in settings else "adamw_torch",  # Adam would hide a gradient of the wrong size
        deepspeed=ZERO3 if mode == "zero3" else None,
        per_device_train_batch_size=BATCH // SIZE,
    )
    trainer.train(resume_from_checkpoint=mode.startswith("resume") or None)
    found = {
        "losses": [log["loss"] for log in losses.logs if "loss" in log],
        "metrics": {audit.step: audit.metrics for audit in callback.audits},
        "said": {id: r.answer and list(r.answer.tokens) for id, r in callback.audits[-1].results.items()},
        "baseline": sorted(callback.run.baseline),
        "weights": [w for p in trainer.model.parameters() for w in p.detach().double().flatten()[:50].tolist()],
    }
    (Path(out) / f"found_{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
