"""Reading rows by the trainer's own collator changes nothing of training, copies no model, and tells where it cannot be done."""

import copy
import functools
import json
import logging
import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import tiny_model, tiny_probes
from trainers import SETTINGS
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, default_data_collator
from transformers.trainer_utils import RemoveColumnsCollator
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from alignguard import AlignGuardCallback, Schedule, TokenBudget
from alignguard.records.rows import RowStore
from alignguard.trainer.copied import copied

GLOBAL, COUNT = random.Random(0), 0


def table(n=16):
    return Dataset.from_list(
        [{"input_ids": list(range(i, i + 12)), "labels": list(range(i, i + 12))} for i in range(n)]
    )


def guard(**more):
    return AlignGuardCallback(
        probes=tiny_probes(),
        schedule=Schedule(at=(1, 2), every=0, draw=1, overhead=None),
        tokens=TokenBudget(answer=2, trace=2),
        toxicity=lambda texts: [0.0] * len(texts),
        train_prompts=0,
        reverse=0,
        **more,
    )


def train(tokenizer, folder, collate, callbacks, model=None, data=None, **settings):
    args = TrainingArguments(str(folder), **{**SETTINGS, "max_steps": 4, **settings})
    model = model or tiny_model(tokenizer)
    trainer = Trainer(model, args, collate, data or table(), processing_class=tokenizer, callbacks=callbacks)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def cut(examples, ats):
    return [{k: v[at:] for k, v in row.items()} for row, at in zip(examples, ats, strict=True)]


def closure(tokenizer):
    rng, inner = random.Random(0), DataCollatorForSeq2Seq(tokenizer)
    return lambda examples: inner(cut(examples, [rng.choice((0, 6)) for _ in examples]))


def counting(tokenizer):
    count, inner = 0, DataCollatorForSeq2Seq(tokenizer)

    def collate(examples):
        nonlocal count
        count += 1
        return inner(cut(examples, [count % 7] * len(examples)))

    return collate


def counting_globally(tokenizer):
    inner = DataCollatorForSeq2Seq(tokenizer)

    def collate(examples):
        global COUNT
        COUNT += 1
        return inner(cut(examples, [COUNT % 7] * len(examples)))

    return collate


def drawing(examples, inner, choice):
    return inner(cut(examples, [choice((0, 6)) for _ in examples]))


def bound(tokenizer):
    """A partial around a bound method of a generator is copied, and its generator too."""
    return functools.partial(drawing, inner=DataCollatorForSeq2Seq(tokenizer), choice=random.Random(0).choice)


def builtin(tokenizer):
    draw = random.Random(0).random  # of C, which deepcopy shares
    return functools.partial(
        lambda examples, inner, draw: inner(cut(examples, [6 * (draw() < 0.5) for _ in examples])),
        inner=DataCollatorForSeq2Seq(tokenizer),
        draw=draw,
    )


class OfModule:
    """Draws from what stands in its module."""

    def __init__(self, tokenizer):
        self.inner = DataCollatorForSeq2Seq(tokenizer)

    def starts(self, examples):
        return [GLOBAL.choice((0, 6)) for _ in examples]

    def __call__(self, examples):
        return self.inner(cut(examples, self.starts(examples)))


class OfClass(DataCollatorForSeq2Seq):
    """Draws from what its class holds."""

    rng = random.Random(0)

    def __call__(self, examples):
        return super().__call__(cut(examples, [self.rng.choice((0, 6)) for _ in examples]))


class Itself(OfModule):
    """One that says how it is copied."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.rng = random.Random(0)

    def __deepcopy__(self, memo):
        return self

    def starts(self, examples):
        return [self.rng.choice((0, 6)) for _ in examples]


DRAWING = [closure, counting, counting_globally, builtin, OfModule, OfClass, Itself]


@pytest.mark.parametrize("make", DRAWING, ids=lambda make: make.__name__)
def test_a_collator_that_keeps_what_it_draws_from_where_no_copy_reaches_trains_as_without_us(tokenizer, tmp_path, make):
    losses = []
    for callbacks in ([], [guard()]):
        GLOBAL.seed(0)
        OfClass.rng.seed(0)
        globals()["COUNT"] = 0
        losses.append(train(tokenizer, tmp_path / str(len(losses)), make(tokenizer), callbacks))
    assert losses[0] == losses[1]
    store = RowStore(tmp_path / "1" / "_alignguard" / "rows")
    assert "its collator" in store.unread and store.unknown == "" and store.steps() == {1, 2, 3, 4}


def test_code_that_keeps_nothing_is_read_through(tokenizer, tmp_path):
    inner = DataCollatorForSeq2Seq(tokenizer)
    train(tokenizer, tmp_path, lambda examples: inner(examples), [guard()])
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.unread == "" and store.kept() == set(range(16))
    for collate in (
        default_data_collator,
        lambda examples: tokenizer.pad(examples, return_tensors="pt"),
        inner,
        DataCollatorForLanguageModeling(pad_token_id=0),
        functools.partial(default_data_collator, return_tensors="pt"),
        RemoveColumnsCollator(inner, ["input_ids"], logging.getLogger("x"), "m", "d"),
        OfModule(tokenizer).inner,
    ):
        assert copied(collate)[1] == "", collate


def test_what_cannot_be_copied_is_told_and_its_steps_are_kept(tokenizer, tmp_path, caplog):
    collate = DataCollatorForSeq2Seq(tokenizer)
    collate.lock = threading.Lock()
    train(tokenizer, tmp_path, collate, [guard()])
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert "its collator cannot be copied (" in store.unread and store.steps() == {1, 2, 3, 4}
    assert "failed" not in caplog.text


def test_no_model_is_copied_for_a_collator_that_holds_one(tokenizer, tmp_path, monkeypatch):
    model, made = tiny_model(tokenizer), []
    collate = DataCollatorForSeq2Seq(tokenizer, model=model)
    callback, plain = guard(), copy.deepcopy
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", lambda self, memo: made.append(1) or self)
    monkeypatch.setattr(
        torch.nn.Module, "__setstate__", lambda self, state: made.append(2) or self.__dict__.update(state)
    )
    plain(torch.nn.Linear(1, 1))
    assert made == [1, 1, 2]  # they would be counted
    before = len(made)
    taken, why = copied(collate)
    assert why == "" and taken is not collate and taken.model is model and len(made) == before
    monkeypatch.undo()
    seen = []
    monkeypatch.setattr("alignguard.trainer.copied.deepcopy", lambda *a: seen.append(plain(*a)) or seen[-1])
    train(tokenizer, tmp_path, collate, [callback], model)
    assert seen and all(copy.model is model for copy in seen)
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.unread == "" and store.kept() == set(range(16))


def test_code_of_ones_own_beside_a_model_is_not_read_through(tokenizer):
    """A forward pass may change a buffer."""

    class Own(DataCollatorForSeq2Seq):
        def __call__(self, examples):
            return super().__call__(examples)

    assert copied(Own(tokenizer))[1] == ""
    assert "holds a model" in copied(Own(tokenizer, model=tiny_model(tokenizer)))[1]


def test_neither_a_trainer_nor_what_is_large_is_copied(tokenizer, tmp_path):
    class Own(Trainer):
        def collate(self, examples):
            return default_data_collator(examples)

    args = TrainingArguments(str(tmp_path), **SETTINGS)
    assert "holds a Own" in copied(Own(tiny_model(tokenizer), args, processing_class=tokenizer).collate)[1]
    collate = DataCollatorForSeq2Seq(tokenizer)
    collate.index = np.zeros(2**22)
    assert "too much" in copied(collate)[1]


def test_a_generator_that_is_copied_is_found_to_draw_and_draws_as_without_us(tokenizer, tmp_path):
    losses = [train(tokenizer, tmp_path / str(i), bound(tokenizer), i * [guard()]) for i in range(2)]
    assert losses[0] == losses[1]
    assert "draws what is learnt" in RowStore(tmp_path / "1" / "_alignguard" / "rows").unread


@pytest.mark.parametrize("full", ["texts", "order"])
def test_steps_whose_rows_could_not_be_written_are_written_later(tokenizer, tmp_path, monkeypatch, caplog, full):
    plain, failed = RowStore._write, []

    def write(self, path, columns, schema):
        if path.name.startswith(full) and len(failed) < 2:
            failed.append(path)
            raise OSError("no space left on device")
        plain(self, path, columns, schema)

    monkeypatch.setattr(RowStore, "_write", write)
    train(tokenizer, tmp_path, DataCollatorForSeq2Seq(tokenizer), [guard()])
    assert len(failed) == 2 and "the rows' record failed and training goes on" in caplog.text
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.steps() == {1, 2, 3, 4} and store.kept() == set(range(16)) and store.unread == ""
    assert all(len(steps) == 1 for steps in store.rows(0, 4).values())


def test_a_row_that_cannot_be_read_again_costs_no_step(tokenizer, tmp_path):
    class Failing(DataCollatorForSeq2Seq):
        def __call__(self, examples):
            if len(examples) == 1:
                raise ValueError("batches alone")
            return super().__call__(examples)

    train(tokenizer, tmp_path, Failing(tokenizer), [guard()])
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.steps() == {1, 2, 3, 4} and "could not be read (ValueError: batches alone)" in store.unread


def test_each_row_is_read_once(tokenizer, tmp_path, monkeypatch):
    """But for a few of each time, by which it is seen that nothing is drawn."""
    read = []
    plain = DataCollatorForSeq2Seq.__call__

    def counted(self, examples, *args):
        read.extend([examples] if len(examples) == 1 else [])
        return plain(self, examples, *args)

    monkeypatch.setattr(DataCollatorForSeq2Seq, "__call__", counted)
    settings = {"max_steps": 40, "per_device_train_batch_size": 4}
    train(tokenizer, tmp_path, DataCollatorForSeq2Seq(tokenizer), [guard()], data=table(160), **settings)
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.kept() == set(range(160)) and len(read) <= 160 + 3 * 8


class Slow(DataCollatorForSeq2Seq):
    """A collator that takes its time where a row is read by itself."""

    def __call__(self, examples):
        time.sleep(0.05 * (len(examples) == 1))
        return super().__call__(examples)


def test_the_time_that_rows_take_is_counted_and_is_none_of_trainings(tokenizer, tmp_path):
    """Eight rows at each of two checkpoints, each read twice: 0.8 s at each."""
    callback = guard()
    callback.settings = replace(callback.settings, schedule=Schedule(at=(4,), every=0, draw=1, overhead=0.9))
    settings = {"max_steps": 5, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2}
    train(tokenizer, tmp_path, Slow(tokenizer), [callback], data=table(20), **settings)
    pace, last = callback.run.pace, callback.audits[-1]
    decided = json.loads((tmp_path / "alignguard" / "pace.jsonl").read_text().splitlines()[-1])
    assert decided["step"] == 4 and decided["looked"] >= 0.8 > decided["trained"]
    assert 1.6 <= pace.looked < 2.6 and pace.audit < 0.8
    spent, seconds = callback.run.clock.spent, sum(audit.figure("cost/seconds") for audit in callback.audits)
    assert spent >= seconds + 2.0 and last.figure("cost/overhead") == pytest.approx(pace.share, abs=0.05)
