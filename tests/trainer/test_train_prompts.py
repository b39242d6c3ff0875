"""Prompts of the training data, in the forms TRL's trainers keep them, and of no data that reading would change."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from runs import Losses, guard, lines, sft
from tiny import CHATML, tiny_model, tiny_tokenizer
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from alignguard import ProbeError, TokenBudget
from alignguard.model.chat import Chat
from alignguard.trainer.train_prompts import prompt_of, sample_prompts

TURNS = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


@pytest.fixture
def chat(tokenizer):
    return Chat(tokenizer)


def test_rows_tell_their_prompts(chat):
    expected = chat.prompt_ids(TURNS[:1])
    assert prompt_of({"prompt": TURNS[:1], "completion": TURNS[1:]}, chat) == expected
    assert prompt_of({"messages": TURNS}, chat) == expected
    assert prompt_of({"prompt": "2+2?"}, chat) == chat.encode("2+2?")
    assert prompt_of({"input_ids": [5, 6, 7, 8], "completion_mask": [0, 0, 1, 1]}, chat) == [5, 6]
    assert prompt_of({"input_ids": [5, 6, 7, 8], "labels": [-100, -100, -100, 8]}, chat) == [5, 6, 7]
    assert prompt_of({"prompt_ids": [5, 6]}, chat) == [5, 6]


@pytest.mark.parametrize(
    "row",
    [
        {"input_ids": [5, 6]},
        {"text": "x"},
        {},
        "x",
        {"messages": []},
        {"messages": TURNS[1:]},
        {"prompt_ids": []},
        {"input_ids": [5], "labels": [5]},
    ],
)
def test_rows_without_a_prompt_are_left_out_and_told(chat, row):
    with pytest.raises(ProbeError, match="do not tell where a prompt ends"):
        prompt_of(row, chat)
    told = []
    assert sample_prompts([row] * 3, chat, 4, 0, tell=told.append) == {}
    (line,) = told
    assert (
        "measured on 0; 3 were left out: 3 since they do not tell where a prompt ends, as a text alone does not" in line
    )


def test_turns_all_of_which_are_learnt_tell_their_prompt(chat, tokenizer, tmp_path):
    """The commonest form of SFT: TRL tokenises it, and masks nothing."""
    more = [*TURNS, {"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}]
    rows = Dataset.from_list([{"messages": turns} for turns in (TURNS, more)])
    options = SFTConfig(str(tmp_path), report_to=[], use_cpu=True, bf16=False)
    model = tiny_model(tokenizer)
    ready = SFTTrainer(model, options, train_dataset=rows, processing_class=tokenizer).train_dataset
    assert set(ready[0]["labels"]) == set(ready[0]["input_ids"])
    assert [prompt_of(row, chat) for row in ready] == [chat.prompt_ids(TURNS[:1]), chat.prompt_ids(more[:3])]
    both = {"prompt": "2+2?", "completion": "4", "input_ids": [5, 6, 7], "labels": [5, 6, 7]}
    assert prompt_of(both, chat) == chat.encode("2+2?", special=True)


def test_samples_are_seeded_and_short_enough(chat):
    rows = Dataset.from_list([{"prompt": f"what is {i}?" * (200 if i == 3 else 1)} for i in range(20)])
    found = sample_prompts(rows, chat, 5, 0)
    assert len(found) == 5 and found == sample_prompts(rows, chat, 5, 0) != sample_prompts(rows, chat, 5, 1)
    assert "train-3" not in sample_prompts(rows, chat, 20, 0)
    assert sample_prompts(iter([]), chat, 5, 0) == {} == sample_prompts(rows, chat, 0, 0)


class Crops(torch.utils.data.Dataset):
    """Windows of texts, cut by a generator of its own, as augmentation is often written; each time it is read it goes on."""

    def __init__(self, tokenizer):
        self.rng, self.read = np.random.default_rng(0), 0
        texts = [f"What is {i} + {i + 1}? The answer is {2 * i + 1}. The quick brown fox jumps" for i in range(16)]
        self.ids = [tokenizer(text)["input_ids"] for text in texts]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        self.read += 1
        start = int(self.rng.integers(0, 8))
        window = self.ids[index][start : start + 12]
        return {"input_ids": window, "labels": [-100] * 4 + window[4:]}


def transformed(tokenizer):
    """A table of `datasets` whose transform has such a generator."""
    crops = Crops(tokenizer)
    table = Dataset.from_list([{"row": i} for i in range(16)])

    def cut(rows):
        found = [crops[i] for i in rows["row"]]
        return {key: [row[key] for row in found] for key in found[0]}

    table.set_transform(cut)
    return table, crops


def trained(tokenizer, output_dir, data, callbacks):
    losses = Losses()
    args = TrainingArguments(
        str(output_dir), max_steps=4, per_device_train_batch_size=2, report_to=[], use_cpu=True, save_strategy="no",
        disable_tqdm=True, seed=3, logging_steps=1, remove_unused_columns=False,
    )  # fmt: skip
    model = tiny_model(tokenizer, seed=1, scale=4.0)

    def collate(rows):
        return {key: torch.tensor([row[key] for row in rows]) for key in ("input_ids", "labels")}

    Trainer(
        model,
        args,
        train_dataset=data,
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[losses, *callbacks],
    ).train()
    return [log["loss"] for log in losses.logs if "loss" in log]


@pytest.mark.parametrize("kind", ["a class", "a transform"])
def test_rows_that_are_drawn_as_they_are_read_are_left_to_the_training(kind, tokenizer, tmp_path, capsys):
    def data():
        return transformed(tokenizer) if kind == "a transform" else (crops := Crops(tokenizer), crops)

    (alone, mine), (watched, theirs) = data(), data()
    expected = trained(tokenizer, tmp_path / "alone", alone, [])
    assert trained(tokenizer, tmp_path / "watched", watched, [guard()]) == expected
    assert mine.read == theirs.read >= 8 and mine.rng.integers(10**9) == theirs.rng.integers(10**9)
    assert "alignguard/kl/train_prompts" not in lines(tmp_path / "watched")[-1]["metrics"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "drift on training prompts" in line]
    assert line.startswith("AlignGuard: drift on training prompts is not measured: the training set (")
    assert "a class or has a transform of its own" in line


class Reads(dict):
    """A row that says something else each time it is read."""

    reads = 0

    def get(self, key, default=None):
        Reads.reads += 1
        return f"What is {Reads.reads}?"


def test_only_plain_rows_are_read(chat):
    plain, told = {"prompt": "2+2?"}, []
    for rows in ([plain, Reads(plain)], (plain, Reads(plain))):
        assert sample_prompts(rows, chat, 5, 0, tell=told.append) == {"train-0": chat.encode("2+2?")}
        assert "1 were left out: 1 since they are of a class of their own (Reads)" in told.pop()
    assert Reads.reads == 0
    subset = torch.utils.data.Subset([plain], [0])
    assert sample_prompts(subset, chat, 5, 0, tell=told.append) == {} == sample_prompts(subset, chat, 0, 0)
    assert len(told) == 1 and "the training set (Subset) is a stream, a class" in told[0]


def test_of_starts_that_never_come_to_an_answer_no_drift_is_told(tmp_path):
    """All were cut off in their traces: there is no token of an answer, which is no drift of zero."""
    template = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
    assert template != CHATML
    callback = guard(tokens=TokenBudget(answer=8, trace=16, force_close=False))
    sft(tiny_tokenizer(template=template), tmp_path, [callback], learning_rate=3e-2).train()
    moved = callback.audits[-1].metrics
    assert moved["alignguard/kl/raw"] > 0.01 and "alignguard/kl/answer" not in moved
    assert callback.run.state.prompts and "alignguard/kl/train_prompts" not in moved
