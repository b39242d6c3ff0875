"""Every trainer on a tiny model: what each is built with, from one table."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import trl
from datasets import Dataset
from tiny import tiny_model, tiny_probes
from transformers import DataCollatorForSeq2Seq, LlamaForCausalLM, TrainerCallback

from alignguard import AlignGuardCallback, Schedule, TokenBudget

SETTINGS = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
    "disable_tqdm": True,
    "seed": 3,
}
ONLINE = {"num_generations": 4, "max_completion_length": 12, "disable_dropout": False}
SHORT = {"max_completion_length": 12, "disable_dropout": False}
DROPOUT = {"disable_dropout": False}  # TRL switches it off in these trainers, and with it most use of the generators


def reward(completions, **kwargs):
    """Differs from answer to answer, so that there is an advantage."""
    return [sum(map(ord, str(completion))) % 7 / 7 for completion in completions]


def plain(tokenizer, start):
    return {}


def rewarded(tokenizer, start):
    return {"reward_funcs": reward}


def taught(tokenizer, start):
    return {"teacher_model": LlamaForCausalLM.from_pretrained(start / "teacher")}


def collated(tokenizer, start):
    return {"data_collator": DataCollatorForSeq2Seq(tokenizer)}


@dataclass(frozen=True)
class Case:
    """
    How one trainer is built.

    Args:
        name (`str`):
            Of its class; its config is named after it.
        columns (`str`):
            Of the rows, those it reads.
        settings (`dict`), more (`Callable`):
            For its config, and for the trainer itself.
        module (`str`):
            Where it lives.
        note (`str`):
            For the README.
    """

    name: str
    columns: str
    settings: dict = field(default_factory=dict)
    more: Callable = plain
    module: str = "trl"
    note: str = ""

    @property
    def full_name(self):
        return f"{self.module}.{self.name}"

    @property
    def id(self):
        return "-".join(
            [self.full_name.removeprefix("trl."), *(f"beta{v}" for k, v in self.settings.items() if k == "beta")]
        )

    def build(self, tokenizer, start, output_dir, callbacks, wrap=lambda model: model, **settings):
        """The trainer on a fresh copy of the start, in what is put around it."""
        module = import_module(self.module)
        name = "TrainingArguments" if self.name == "Trainer" else self.name.replace("Trainer", "Config")
        config = getattr(module, name, None) or getattr(trl, name)
        return getattr(module, self.name)(
            model=wrap(LlamaForCausalLM.from_pretrained(start)),
            args=config(str(output_dir), **{**SETTINGS, **self.settings, **settings}),
            train_dataset=rows(self.columns, tokenizer),
            processing_class=tokenizer,
            callbacks=callbacks,
            **self.more(tokenizer, start),
        )


experimental = "trl.experimental.{}".format
CASES = [
    Case("SFTTrainer", "prompt completion"),
    Case("GRPOTrainer", "prompt", {**ONLINE, "beta": 0.0}, rewarded, note="`beta=0`: no reference of its own"),
    Case("GRPOTrainer", "prompt", {**ONLINE, "beta": 0.1}, rewarded, note="`beta=0.1`"),
    Case("RLOOTrainer", "prompt", ONLINE, rewarded),
    Case("DPOTrainer", "prompt chosen rejected", DROPOUT),
    Case("KTOTrainer", "prompt completion label", DROPOUT),
    Case("DistillationTrainer", "prompt", SHORT, taught, note="drift is from the start, not from the teacher"),
    Case("Trainer", "input_ids labels", more=collated, module="transformers"),
    Case("A2POTrainer", "prompt", {"max_completion_length": 12}, rewarded, experimental("a2po")),
    Case("CPOTrainer", "prompt chosen rejected", DROPOUT, module=experimental("cpo")),
    Case("DPOTrainer", "prompt chosen rejected", DROPOUT, module=experimental("bema_for_ref_model")),
    Case("GKDTrainer", "messages", {**DROPOUT, "max_new_tokens": 12}, taught, experimental("gkd")),
    Case("GMPOTrainer", "prompt", ONLINE, rewarded, experimental("gmpo")),
    Case("GOLDTrainer", "messages", SHORT, taught, experimental("gold")),
    Case("IWOPDTrainer", "messages", SHORT, taught, experimental("iw_opd")),
    Case("OnlineDPOTrainer", "prompt", {**DROPOUT, "max_new_tokens": 12}, rewarded, experimental("online_dpo")),
    Case("ORPOTrainer", "prompt chosen rejected", DROPOUT, module=experimental("orpo")),
    Case("SDFTTrainer", "prompt privileged_context", ONLINE, module=experimental("sdft")),
    Case("SDPOTrainer", "prompt", {**ONLINE, "success_reward_threshold": 0.3}, rewarded, experimental("sdpo")),
    Case("TPOTrainer", "prompt chosen rejected reference", DROPOUT, module=experimental("tpo")),
]
SERVER = "not tried: it needs a vLLM server"
OTHERS = {
    "trl.RewardTrainer": "an error at once: a reward model says nothing that could be audited",
    "trl.experimental.async_distillation.AsyncDistillationTrainer": SERVER,
    "trl.experimental.async_grpo.AsyncGRPOTrainer": SERVER,
    "trl.experimental.server_distillation.ServerDistillationTrainer": SERVER,
}


def rows(columns, tokenizer):
    """All that any trainer reads, of which each takes its columns."""

    def turn(role, content):
        return [{"role": role, "content": content}]

    def row(i):
        asked, right, wrong = turn("user", f"What is {i} + {i + 1}?"), f"{2 * i + 1}", f"I cannot help with {i}."
        answered = asked + turn("assistant", right)
        before = len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"])
        ids = tokenizer.apply_chat_template(answered, return_dict=True)["input_ids"]
        return {
            "prompt": asked,
            "completion": turn("assistant", right if i % 2 else wrong),
            "label": bool(i % 2),
            "chosen": turn("assistant", right),
            "rejected": turn("assistant", wrong),
            "reference": turn("assistant", f"The answer is {right}."),
            "messages": answered,
            "privileged_context": right,
            "input_ids": ids,
            "labels": [-100] * before + ids[before:],
        }

    return Dataset.from_list([{name: row(i)[name] for name in columns.split()} for i in range(16)])


def save_start(tokenizer, folder):
    """A model with dropout, so that every draw of a generator counts, and a teacher."""
    tiny_model(tokenizer, seed=1, dropout=0.3, scale=4.0).save_pretrained(folder)
    tiny_model(tokenizer, seed=2, scale=4.0).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder)
    tokenizer.save_pretrained(folder / "teacher")
    return folder


def draw_all():
    """From every generator that a run may use."""
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def toxicity(texts):
    draw_all()  # as a scorer that samples would
    return [len(text) % 10 / 10 for text in texts]


def guard(trainer=None, **kwargs):
    """A callback that asks little, before the first step, after it and at the end."""
    settings = {"probes": tiny_probes(), "schedule": Schedule(at=(1,), every=0, draw=1), "toxicity": toxicity}
    short = {"tokens": TokenBudget(answer=4, trace=6), "reverse": 2, "train_prompts": 2}
    return AlignGuardCallback(trainer, **{**settings, **short, **kwargs})


class Logs(TrainerCallback):
    """Keeps what the trainer logs, but for times."""

    def __init__(self):
        self.kept = []

    def on_log(self, args, state, control, logs, **kwargs):
        times = ("runtime", "per_second", "step_time")
        # as text: a figure that is not a number equals none
        self.kept.append({name: str(value) for name, value in logs.items() if not name.endswith(times)})


def trained(build, attach, **resume):
    """
    What a run logged, and its final weights.

    `build` takes the callbacks, and `attach` is how ours is put on: "alone" (it is not), "list" or "add"; or a callback.
    """
    logs = Logs()
    torch.manual_seed(0)  # TRL 1.0 draws new adapters before the trainer sets its seed
    ours = {"alone": [], "add": [], "list": [guard()]}[attach] if isinstance(attach, str) else [attach]
    trainer = build(callbacks=[logs, *ours])
    if attach == "add":
        trainer.add_callback(guard(trainer))
    trainer.train(**resume)
    return logs.kept, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def same(run, other):
    """Bit-identical logs and weights."""
    (logs, weights), (other_logs, other_weights) = run, other
    return (
        logs == other_logs
        and weights.keys() == other_weights.keys()
        and all(torch.equal(weights[name], other_weights[name]) for name in weights)
    )


def audits(output_dir):
    """The record: steps, and the drifts of each audit."""
    path = Path(output_dir) / "alignguard" / "audits.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def drifts(line):
    names = ("raw", "answer", "train_prompts", "reverse")
    return {
        name: line["metrics"][f"alignguard/kl/{name}"] for name in names if f"alignguard/kl/{name}" in line["metrics"]
    }
