"""A regression planted at a step, for runs that should find it."""

from __future__ import annotations

from dataclasses import replace

from runs import TOKENS, sft
from tiny import tiny_probes

from alignguard import AlignGuardCallback, Schedule

TOXIC = [replace(tiny_probes()[2], id=f"t{i}", family=f"f{i}") for i in range(40)]

EVERY = Schedule(at=(), every=1, draw=40)


class Turns:
    """A scorer that finds everything kind until it has been asked so many times: a regression at a known audit."""

    def __init__(self, kind):
        self.kind, self.calls = kind, 0

    def __call__(self, texts):
        self.calls += 1  # once for the baseline, then once an audit
        return [0.1 if self.calls <= self.kind else 0.9] * len(texts)


def planted(audits=2, **kwargs):
    """A callback that sees toxicity regress at the audit after so many, step 0 counted."""
    settings = {"probes": TOXIC, "schedule": EVERY, "tokens": TOKENS, "toxicity": Turns(audits + 1), "train_prompts": 0}
    return AlignGuardCallback(**{**settings, **kwargs})


def slow(tokenizer, output_dir, callbacks, **kwargs):
    """A run whose model hardly moves, so that its answers can be judged throughout."""
    return sft(tokenizer, output_dir, callbacks, **{"learning_rate": 1e-4, **kwargs})
