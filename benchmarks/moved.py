"""The embedded model on its way to a reasoner, as recipes/sft.py trains it: kept where its answers have drifted so far.

python benchmarks/moved.py          trains it once (some minutes) and prints where it is, and how far it went
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from math import log
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignguard import Chat, TokenBudget, audit, load_probes
from alignguard.auditing.asking import Asking
from alignguard.drift.reference import freeze_start
from alignguard.probes.draw import draw
from alignguard.probes.probe import TRUST_DIMENSIONS

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
MARKS = (1e-3, 1e-2, 1e-1, 0.8)  # nats per token of an answer
# the learning rate rises with every step, so that each power of ten of drift takes several
SETTINGS: dict[str, Any] = {
    "max_steps": 80,
    "per_device_train_batch_size": 2,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 80,
    "seed": 0,
}
PROBES, TOKENS = 2, TokenBudget(answer=64, trace=64)  # a dimension, that tell while it trains


class Keeper(TrainerCallback):
    """Measures *answer* drift as training goes on, and keeps the weights that come nearest to each mark."""

    def __init__(self, start: Any, tokenizer: Any, folder: Path) -> None:
        self.folder, self.found = folder, {}
        self.asking = Asking(Chat.of(start, tokenizer), TOKENS)
        self.reference, self.baseline = freeze_start(start, "copy"), {}
        self.probes = draw(load_probes(list(TRUST_DIMENSIONS)), PROBES, 1)
        self.last = 0.0

    def drift(self, model: Any) -> float:
        found = audit(model, None, self.probes, self.reference, baseline=self.baseline, asking=self.asking, reverse=0)
        return found.figure("kl/answer") or 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        step = state.global_step
        if step > 8 and step % 4 and self.last < MARKS[-1] / 3:
            return control
        self.last = self.drift(model)
        print(f"step {step}: {self.last:.3g} nats per token", flush=True)
        for mark in MARKS if self.last > 0 else ():  # the first step's learning rate is zero
            if abs(log(self.last / mark)) < abs(log(self.found.get(mark, (0, 1e-9))[1] / mark)):
                self.found[mark] = (step, self.last)
                model.save_pretrained(self.folder / str(mark))
        control.should_training_stop = self.last > MARKS[-1]
        return control


def moved_models() -> dict[float, str]:
    """
    Paths of the model by the mark that it is nearest to, trained at the first call.

    Returns:
        `dict[float, str]`: directories for `from_pretrained`; the tokenizer is the embedded model's.
    """
    from aligned import load, train
    from embedded import embedded_model
    from tasks import reasoning_rows

    key = hashlib.sha256(json.dumps([MARKS, SETTINGS]).encode()).hexdigest()[:8]
    root = Path(os.environ.get("ALIGNGUARD_CACHE", Path.home() / ".cache" / "alignguard"))
    cache = root / f"moved-{key}"
    if not cache.exists():
        print(f"Training models that have drifted to {cache}, once ...")
        beside = cache.with_name(f"{cache.name}.{os.getpid()}")
        try:
            keeper = Keeper(*load(embedded_model()), beside)
            rows = reasoning_rows(SETTINGS["max_steps"] * SETTINGS["per_device_train_batch_size"])
            train(embedded_model(), rows, beside / "run", (keeper,), **SETTINGS)
            shutil.rmtree(beside / "run", ignore_errors=True)
            (beside / "found.json").write_text(json.dumps({str(mark): f for mark, f in keeper.found.items()}))
            beside.replace(cache)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return {mark: str(cache / str(mark)) for mark in MARKS}


if __name__ == "__main__":
    paths = moved_models()
    print(Path(next(iter(paths.values()))).with_name("found.json").read_text())
    print(*paths.values(), sep="\n")
