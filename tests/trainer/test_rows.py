"""Which rows went into which step, held against what the model itself was given."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from tiny import tiny_model, tiny_probes
from trainers import CASES, ONLINE, SETTINGS, reward
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

from alignguard import AlignGuardCallback, Schedule, TokenBudget
from alignguard.records.rows import RowStore, TrainedRow
from alignguard.tracing.layers import looked_at
from alignguard.trainer.completions import documents
from alignguard.trainer.learnt import trained
from alignguard.trainer.order import Order, batches_to_skip
from alignguard.trainer.seen import Seen


class Watched(TrainerCallback):
    """Oracle: the documents that a model is given in training, step by step, as sets of token ids."""

    def __init__(self, model):
        self.steps, self.now = {}, set()
        model.register_forward_pre_hook(self.given, with_kwargs=True)

    def given(self, model, args, kwargs):
        if not torch.is_grad_enabled():
            return
        ids, at, mask = (kwargs.get(key) for key in ("input_ids", "position_ids", "attention_mask"))
        for i, row in enumerate(ids):
            row = row[mask[i] > 0] if mask is not None else row
            starts = [*(at[i] == 0).nonzero().flatten().tolist(), len(row)] if at is not None else [0, len(row)]
            self.now |= {tuple(row[a:b].tolist()) for a, b in itertools.pairwise(starts)}

    def on_step_end(self, args, state, control, **kwargs):
        self.steps[state.global_step], self.now = self.now, set()


def rows(n, long=False):
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"What is {i} + {i}?"}],
                "completion": [{"role": "assistant", "content": f"{2 * i} " * (1 + i % 5 if long else 1)}],
            }
            for i in range(n)
        ]
    )


def guard(**more):
    return AlignGuardCallback(
        probes=tiny_probes(),
        schedule=Schedule(at=(2,), every=0, draw=1, overhead=None),
        tokens=TokenBudget(answer=2, trace=2),
        toxicity=lambda texts: [0.0] * len(texts),
        train_prompts=0,
        reverse=0,
        **more,
    )


def sft(tokenizer, tmp_path, data, callbacks=(), model=None, **settings):
    model = model or tiny_model(tokenizer)
    args = SFTConfig(str(tmp_path), **{**SETTINGS, "max_steps": -1, "num_train_epochs": 1, **settings})
    return SFTTrainer(model, args, train_dataset=data, processing_class=tokenizer, callbacks=list(callbacks))


def on_record(tmp_path):
    """Step by step the documents on record."""
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.unknown == ""
    where = store.rows(0, 10**6)
    documents = {}
    for text in store.texts(set(where)):
        documents.setdefault(text.row, set()).add(tuple(text.ids))
    steps = {step: set() for step in store.steps()}
    for row, at in where.items():
        for step in at:
            steps[step] |= documents[row]
    return steps


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 3, "num_train_epochs": 2},
        {"dataloader_num_workers": 2},
        {"max_steps": 5, "num_train_epochs": 3},
        {"packing": True, "max_length": 64, "padding_free": True},
        {"packing": True, "max_length": 64, "packing_strategy": "wrapped"},
        {"padding_free": True, "max_length": None},
        {"train_sampling_strategy": "sequential"},
        {"train_sampling_strategy": "group_by_length"},
        {"dataloader_drop_last": True, "gradient_accumulation_steps": 2},
        {"shuffle_dataset": True},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_the_rows_on_record_are_those_the_model_was_given(tokenizer, tmp_path, settings):
    model = tiny_model(tokenizer)
    if settings.get("padding_free"):
        model.config._attn_implementation = "eager"
    oracle = Watched(model)
    trainer = sft(tokenizer, tmp_path, rows(22, long=True), [guard(), oracle], model, **settings)
    sampler = trainer.get_train_dataloader().batch_sampler
    trainer.train()
    assert oracle.steps and on_record(tmp_path) == oracle.steps
    assert type(sampler) is type(trainer.get_train_dataloader().batch_sampler)


def test_a_resumed_run_goes_on_with_its_rows(tokenizer, tmp_path):
    settings = {"gradient_accumulation_steps": 2, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 4}
    trainer = sft(tokenizer, tmp_path, rows(22), [guard()], **settings)
    trainer.train()
    whole = on_record(tmp_path)
    assert len(whole) == 6
    model = tiny_model(tokenizer)
    oracle = Watched(model)
    sft(tokenizer, tmp_path, rows(22), [guard(), oracle], model, **settings).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-4")
    )
    assert set(oracle.steps) == {5, 6}
    found = on_record(tmp_path)
    assert {step: found[step] for step in oracle.steps} == oracle.steps
    assert found == whole


class Interrupted(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.step = None
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["copy", "cache"])
def test_a_second_attempt_has_the_rows_of_none_but_itself(tokenizer, tmp_path, kind):
    """A cell that was interrupted and is run again, on other rows: the start need not be asked again."""
    model = tiny_model(tokenizer)
    watched = Watched(model)
    seldom = AlignGuardCallback(
        reference=kind,
        probes=tiny_probes(),
        schedule=Schedule(at=(), every=0, draw=1),
        tokens=TokenBudget(answer=2, trace=2),
        toxicity=lambda texts: [0.0] * len(texts),
    )
    settings = {"save_strategy": "steps", "save_steps": 1}  # rows are written down at each
    trainer = sft(tokenizer, tmp_path, rows(16), [watched, seldom, Interrupted(3)], model, **settings)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert set(RowStore(tmp_path / "_alignguard" / "rows").steps()) == {1, 2}
    watched.steps, trainer.train_dataset = {}, trainer.train_dataset.select(range(15, -1, -1))
    trainer.train()
    assert on_record(tmp_path) == watched.steps and len(watched.steps) == 4


def test_a_folder_of_texts_that_was_left_behind_is_no_part_of_a_new_record(tokenizer, tmp_path, capsys):
    """Who removes the folder that is seen leaves the other: its rows, in an order of their own, and answers."""
    model = tiny_model(tokenizer)
    sft(tokenizer, tmp_path, rows(16), [guard()], **{"num_train_epochs": 2}).train()
    left = sorted(path.name for path in (tmp_path / "_alignguard" / "answers").iterdir())
    shutil.rmtree(tmp_path / "alignguard")
    watched = Watched(model)
    sft(tokenizer, tmp_path, rows(16), [watched, guard()], model, seed=11).train()
    assert on_record(tmp_path) == watched.steps
    aside = tmp_path / "_alignguard.1"
    assert sorted(path.name for path in (aside / "answers").iterdir()) == left
    assert f"holds the record of another run; it was moved to {aside}\n" in capsys.readouterr().out


def test_a_resumed_run_writes_over_nothing(tmp_path):
    store = RowStore(tmp_path / "rows")
    store.add([(step, [step]) for step in range(1, 9)], [TrainedRow(step, [step], [True]) for step in range(1, 9)])
    store.rewind(6)
    store.add([(7, [70]), (8, [80])], [TrainedRow(70, [70], [True]), TrainedRow(80, [80], [True])])
    assert store.rows(0, 8) == {**{step: [step] for step in range(1, 7)}, 70: [7], 80: [8]}
    assert store.kept() == {*range(1, 9), 70, 80}


def test_tokens_that_are_learnt_are_those_of_the_labels(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, rows(8), [guard()])
    trainer.train()
    for text in RowStore(tmp_path / "_alignguard" / "rows").texts(set(range(8))):
        labels = trainer.train_dataset[text.row]["labels"]
        assert list(text.ids) == trainer.train_dataset[text.row]["input_ids"]
        assert list(text.learnt) == [label != -100 for label in labels]
        assert 0 < sum(text.learnt) < len(text.ids)


def test_the_sampler_is_what_it_was_after_training(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, rows(8), [guard()])
    loader = trainer.get_train_dataloader()
    before = type(loader.batch_sampler)
    trainer.get_train_dataloader = lambda: loader
    trainer.train()
    assert type(loader.batch_sampler) is before


def test_a_run_that_keeps_no_rows_says_so(tokenizer, tmp_path):
    sft(tokenizer, tmp_path, rows(8), [guard(rows=False)]).train()
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert "rows=False" in store.unknown and not store.folder.exists()


def test_a_stream_is_counted_by_its_order(tokenizer, tmp_path):
    settings = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    sft(tokenizer, tmp_path, rows(40).to_iterable_dataset(), [guard()], **settings).train()
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.rows(0, 3) == {row: [1 + row // 4] for row in range(12)}


def test_a_stream_that_a_trainer_repeats_has_no_order(tokenizer, tmp_path):
    """Four completions of each prompt: what was taken for 16 rows were 4."""
    settings = {**SETTINGS, **ONLINE, "beta": 0.0, "accelerator_config": {"dispatch_batches": False}}
    trainer = GRPOTrainer(
        tiny_model(tokenizer), reward, args=GRPOConfig(str(tmp_path), **settings), processing_class=tokenizer,
        train_dataset=rows(16).select_columns("prompt").to_iterable_dataset(), callbacks=[guard()],
    )  # fmt: skip
    trainer.train()
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert "a stream, which its trainer reads by a loader of its own" in store.unknown and not store.rows(0, 3)
    assert all(said_on_record(tmp_path, 3).values())  # what was said is kept all the same


def test_a_loader_that_cannot_be_listened_to_is_told_of():
    class Loader:
        pass

    assert "no data loader" in Order(Loader()).unknown
    assert "no data loader" in Order(None).unknown


def test_of_batches_without_labels_nothing_is_kept():
    assert list(trained(0, {"prompt": "x"}, lambda examples: examples)) == []


def test_a_trainer_of_transformers_own_is_listened_to_as_well(tokenizer, tmp_path):
    model = tiny_model(tokenizer)
    oracle = Watched(model)
    data = Dataset.from_list([{"input_ids": list(range(i, i + 6)), "labels": list(range(i, i + 6))} for i in range(9)])
    args = TrainingArguments(str(tmp_path), **{**SETTINGS, "max_steps": -1, "num_train_epochs": 2})
    Trainer(model, args, train_dataset=data, processing_class=tokenizer, callbacks=[guard(), oracle]).train()
    assert on_record(tmp_path) == oracle.steps


class Learning(TrainerCallback):
    """Oracle: what the loss is given of completions, step by step: what was asked, said and learnt of it, and its advantage."""

    def __init__(self, trainer):
        self.steps, self.now, self.masked = {}, [], 0
        compute = trainer._compute_loss

        def watched(model, inputs):
            if model.training:
                for i, advantage in enumerate(inputs["advantages"].tolist()):
                    mask = inputs["completion_mask"][i] > 0
                    asked = inputs["prompt_ids"][i][inputs["prompt_mask"][i] > 0].tolist()
                    said = inputs["completion_ids"][i][mask].tolist()
                    self.masked += not said
                    if said:
                        self.now.append((tuple(asked), tuple(said), pytest.approx(advantage)))
            return compute(model, inputs)

        trainer._compute_loss = watched

    def on_step_end(self, args, state, control, **kwargs):
        self.steps[state.global_step], self.now = self.now, []


def said_on_record(folder, steps):
    """Step by step the completions on record, as [`Learning`] has them."""
    store = RowStore(folder / "_alignguard" / "said")
    where = store.rows(0, steps)
    found = {step: [] for step in range(1, steps + 1)}
    for text in sorted(store.texts(set(where)), key=lambda text: text.row):
        n = len(text.ids) - int(np.sum(text.learnt))
        assert not any(text.learnt[:n]) and all(text.learnt[n:])
        for step in where[text.row]:
            found[step].append((tuple(text.ids[:n]), tuple(text.ids[n:]), text.weight))
    return found


@pytest.mark.parametrize("kind", [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)], ids=["grpo", "rloo"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 4, "steps_per_generation": 1},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 3},
        {"steps_per_generation": 2, "num_iterations": 2},
        {"mask_truncated_completions": True, "max_completion_length": 3},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_of_what_the_model_said_in_training_completions_are_kept(tokenizer, tmp_path, kind, settings):
    more = {**SETTINGS, **ONLINE, "beta": 0.0, "chat_template_kwargs": {"custom": "x"}, **settings}
    model, args = tiny_model(tokenizer), kind[1](str(tmp_path), **more)
    trainer = kind[0](
        model,
        reward,
        args=args,
        train_dataset=rows(16).select_columns("prompt"),
        processing_class=tokenizer,
        callbacks=[guard()],
    )
    oracle = Learning(trainer)
    trainer.add_callback(oracle)
    trainer.train()
    assert set(oracle.steps) == {1, 2, 3} and (any(oracle.steps.values()) or oracle.masked)
    found = said_on_record(tmp_path, 3)
    for step, right in oracle.steps.items():
        assert len(found[step]) == len(right) and all(completion in found[step] for completion in right)
    assert bool(oracle.masked) is bool(settings.get("mask_truncated_completions"))
    prompts = RowStore(tmp_path / "_alignguard" / "rows")
    assert prompts.unknown == "" and prompts.steps() == {1, 2, 3} and not list(prompts.texts(set(prompts.rows(0, 3))))


def test_completions_of_several_processes_have_numbers_of_their_own(tmp_path):
    other = [TrainedRow(0, [7, 8], [False, True])], [(1, [0]), (2, [0])]
    seen = object.__new__(Seen)
    seen.ranks = SimpleNamespace(size=2, together=lambda do: [do(), other])
    seen.console, seen.said, seen._first = SimpleNamespace(writes=True), RowStore(tmp_path / "said"), 10
    seen._unsaid, seen._untold = ({}, []), ""
    seen._given = [TrainedRow(0, [1, 2], [False, True]), TrainedRow(1, [3, 4], [False, True])]
    seen._answered = [(1, [0]), (2, [1])]
    seen._keep_said()
    assert seen.said.rows(0, 9) == {10: [1], 11: [1, 2], 12: [2]}
    assert {text.row: list(text.ids) for text in seen.said.texts({10, 11, 12})} == {10: [1, 2], 11: [7, 8], 12: [3, 4]}


def test_of_completions_what_tools_say_is_not_learnt_and_images_are_not_told():
    batch = {
        "prompt_ids": torch.tensor([[0, 5, 6], [7, 8, 9]]),
        "prompt_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]),
        "completion_ids": torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]]),
        "completion_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "tool_mask": torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1]]),
        "advantages": torch.tensor([0.5, -0.5]),
    }
    one, two = documents(3, batch)
    assert (one.row, list(one.ids), one.weight) == (3, [5, 6, 1, 2, 3, 4], 0.5)
    assert list(one.learnt) == [False, False, True, False, False, True]
    assert (two.row, list(two.ids)) == (4, [7, 8, 9, 1, 2]) and list(two.learnt) == [False] * 3 + [True] * 2
    assert list(documents(0, {**batch, "pixel_values": torch.zeros(1)})) == []


class Drawing(torch.utils.data.Sampler):
    """A batch sampler of anybody's, which hands out what it is told."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


class Keyed(torch.utils.data.Dataset):
    """Rows by any key."""

    def __getitem__(self, key):
        return {"input_ids": [5, 6, 7], "labels": [5, 6, 7]}

    def __len__(self):
        return 4


def given(batches):
    loader = torch.utils.data.DataLoader(Keyed(), batch_sampler=Drawing(batches), collate_fn=lambda examples: examples)
    return loader, Order(loader)


@pytest.mark.parametrize("batches", [[torch.tensor([2, 3]), torch.tensor([0, 1])], [(2, 3), (0, 1)]])
def test_batches_of_any_kind_are_noted(batches):
    loader, order = given(batches)
    order.begin_pass()
    assert len(list(loader)) == 2
    assert [order.take(), order.take()] == [[2, 3], [0, 1]] and order.unknown == ""


def test_a_sampler_that_draws_no_places_goes_on_and_is_told_of():
    loader, order = given([["a", "b"], ["c"]])
    order.begin_pass()
    assert [len(batch) for batch in loader] == [2, 1]
    assert "draws no places in the data set" in order.unknown


def test_who_looks_at_the_rows_before_training_or_within_it_changes_no_attribution():
    loader, order = given([[0, 1], [2, 3]])
    next(iter(loader))  # before an epoch
    order.begin_pass()
    training = iter(loader)
    next(training)
    assert order.take() == [0, 1]
    list(loader)  # somebody's statistics
    next(training)
    assert order.take() == [2, 3] and order.unknown == ""


def test_who_looks_at_the_rows_as_an_epoch_begins_makes_them_unknown():
    loader, order = given([[0, 1], [2, 3]])
    order.begin_pass()
    next(iter(loader))
    next(iter(loader))
    assert "somebody else" in order.unknown


def test_a_loader_of_anybodys_own_ends_no_run():
    class Loader:
        dataset = Keyed()
        sampler = Drawing([[0]])

        def __len__(self):
            raise NotImplementedError

    loader = Loader()
    order = Order(loader)
    assert isinstance(order.unknown, str)
    assert batches_to_skip(loader, TrainingArguments("x", use_cpu=True, gradient_accumulation_steps=2), 3) == 6


class Masking:
    """A collator that draws what is learnt, from a generator of its own."""

    def __init__(self, tokenizer):
        self.inner, self.generator = DataCollatorForSeq2Seq(tokenizer), torch.Generator().manual_seed(0)

    def __call__(self, examples):
        batch = self.inner(examples)
        keep = torch.rand(batch["labels"].shape, generator=self.generator) < 0.5
        batch["labels"] = torch.where(keep, batch["labels"], -100)
        return batch


def test_a_collator_that_draws_draws_as_without_us_and_its_rows_are_not_kept(tokenizer, tmp_path):
    data = Dataset.from_list(
        [{"input_ids": list(range(i, i + 12)), "labels": list(range(i, i + 12))} for i in range(16)]
    )
    losses = []
    for callbacks in ([], [guard()]):
        args = TrainingArguments(str(tmp_path / str(len(losses))), **{**SETTINGS, "max_steps": 4})
        model = tiny_model(tokenizer)
        trainer = Trainer(model, args, Masking(tokenizer), data, processing_class=tokenizer, callbacks=callbacks)
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert losses[0] == losses[1]
    store = RowStore(tmp_path / "1" / "_alignguard" / "rows")
    assert "draws what is learnt" in store.unread and store.steps() == {1, 2, 3, 4} and not store.kept()


class Cutting:
    """A collator that leaves out the beginning of one row in five."""

    def __init__(self, tokenizer):
        self.inner = DataCollatorForSeq2Seq(tokenizer)

    def __call__(self, examples):
        starts = [6 if torch.rand(()).item() < 0.2 else 0 for _ in examples]
        return self.inner([{k: v[at:] for k, v in row.items()} for row, at in zip(examples, starts, strict=True)])


@pytest.mark.parametrize("seed", range(3))
def test_a_collator_that_draws_for_some_rows_alone_is_found_out(tokenizer, tmp_path, seed):
    data = Dataset.from_list(
        [{"input_ids": list(range(i, i + 12)), "labels": list(range(i, i + 12))} for i in range(16)]
    )
    args = TrainingArguments(str(tmp_path), **{**SETTINGS, "max_steps": 4, "seed": seed})
    Trainer(
        tiny_model(tokenizer), args, Cutting(tokenizer), data, processing_class=tokenizer, callbacks=[guard()]
    ).train()
    assert "draws what is learnt" in RowStore(tmp_path / "_alignguard" / "rows").unread


def without(data, row):
    return data.select([i for i in range(len(data)) if i != row])


def edited(data, row):
    """The set of as many rows, of which one that was trained on says something else."""
    return Dataset.from_list([{**rows(99)[98 if i == row else i]} for i in range(len(data))])


@pytest.mark.parametrize(
    "change",
    [
        lambda data, settings: (data.select(range(21, -1, -1)), settings),
        lambda data, settings: (data.select(range(20)), settings),
        lambda data, settings: (without(data, 13), settings),
        lambda data, settings: (concatenate_datasets([data, rows(1)]), settings),
        lambda data, settings: (edited(data, 13), settings),
        lambda data, settings: (data, {**settings, "max_length": 22}),
    ],
    ids=["another-order", "fewer-rows", "one-removed", "one-more", "one-edited", "cut-shorter"],
)
def test_rows_of_another_set_are_not_taken_for_those_of_the_same_number(tokenizer, tmp_path, caplog, change):
    settings = {"num_train_epochs": 1, "save_strategy": "steps", "save_steps": 4}
    sft(tokenizer, tmp_path, rows(22), [guard()], **settings).train()
    data, others = change(rows(22), settings)
    sft(tokenizer, tmp_path, data, [guard()], **others).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert "are others than before this run was resumed" in caplog.text
    store = RowStore(tmp_path / "_alignguard" / "rows")
    assert store.steps() == {1, 2, 3, 4} and store.unknown == store.unread == ""


def test_workers_that_hand_out_batches_as_they_are_ready_are_told_of():
    loader = torch.utils.data.DataLoader(Keyed(), num_workers=2, in_order=False)
    assert "as they are ready" in Order(loader).unknown


def test_the_weights_that_train_are_on_record(tokenizer, tmp_path):
    model = tiny_model(tokenizer)
    for name, p in model.named_parameters():
        p.requires_grad_("layers.0." in name)
    sft(tokenizer, tmp_path, rows(8), [guard()], model).train()
    store = RowStore(tmp_path / "_alignguard" / "rows")
    found = looked_at(tiny_model(tokenizer), 0.5, store.trained)
    assert found and all("layers.0." in name for name in found)
    assert not any("layers.0." in name for name in looked_at(tiny_model(tokenizer), 0.5))


class Thawing(TrainerCallback):
    """Of each step the weights that train in it, by a part of their names."""

    def __init__(self, *parts):
        self.parts = parts

    def on_step_begin(self, args, state, control, model, **kwargs):
        for name, p in model.named_parameters():
            p.requires_grad_(self.parts[min(state.global_step, len(self.parts) - 1)] in name)


def thawed(tokenizer, folder, *parts, resume=None, **settings):
    """The weights that are on record as trained, and those that moved."""
    model = tiny_model(tokenizer)
    for name, p in model.named_parameters():
        p.requires_grad_(parts[0] in name)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = sft(tokenizer, folder, rows(16), [guard(), Thawing(*parts)], model, **settings)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    trainer.train(resume_from_checkpoint=resume)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    return RowStore(folder / "_alignguard" / "rows").trained, moved


def test_weights_that_train_later_on_are_on_record_too(tokenizer, tmp_path):
    """Oracle: the weights that have moved when training is over; the second step's train in no other, and no audit is taken there."""
    found, moved = thawed(tokenizer, tmp_path / "one", "layers.0.", "layers.1.mlp", "layers.0.")
    assert set(found) == moved and any("layers.1.mlp" in name for name in moved) and len(found) == len(moved)
    found, moved = thawed(tokenizer, tmp_path / "all", "layers.0.", "")
    assert found is None and moved == {name for name, _ in tiny_model(tokenizer).named_parameters()}


def test_what_trained_before_a_run_was_resumed_stays_on_record(tokenizer, tmp_path):
    thawed(tokenizer, tmp_path, "layers.0.", max_steps=4, save_strategy="steps", save_steps=2)
    found, moved = thawed(tokenizer, tmp_path, "layers.1.", max_steps=4, resume=str(tmp_path / "checkpoint-2"))
    assert set(found) == moved and {name.split(".")[2] for name in moved} == {"0", "1"}


def test_what_is_said_in_an_evaluation_nothing_was_learnt_of(tokenizer, tmp_path):
    more = {"eval_strategy": "steps", "eval_steps": 1, "steps_per_generation": 2, "max_steps": 4}
    args = GRPOConfig(str(tmp_path), **{**SETTINGS, **ONLINE, **more, "per_device_eval_batch_size": 4})
    asked = [{"prompt": [{"role": "user", "content": "Who asks this, Quentin?"}]}]
    trainer = GRPOTrainer(
        tiny_model(tokenizer),
        reward,
        args=args,
        train_dataset=rows(16).select_columns("prompt"),
        eval_dataset=Dataset.from_list(asked),
        processing_class=tokenizer,
        callbacks=[guard()],
    )
    trainer.train()
    assert trainer._logs["prompt"][0] == asked[0]["prompt"]  # the latest was an evaluation
    store = RowStore(tmp_path / "_alignguard" / "said")
    where = store.rows(0, 4)
    assert {step for steps in where.values() for step in steps} == {1, 2, 3, 4}
    assert all(len(steps) == 1 for steps in where.values()) and len(where) == 16  # each in the one batch it came to
    said = [tokenizer.decode(list(text.ids), skip_special_tokens=True) for text in store.texts(set(where))]
    assert said and not any("Quentin" in text for text in said)


def test_losses_of_another_kind_are_known_by_their_rows_alone(tokenizer, tmp_path):
    tiny_model(tokenizer).save_pretrained(tmp_path / "start")
    case = next(case for case in CASES if case.name == "DPOTrainer")
    case.build(tokenizer, tmp_path / "start", tmp_path / "run", [guard()]).train()
    store = RowStore(tmp_path / "run" / "_alignguard" / "rows")
    assert store.steps() == {1, 2, 3} and "DPOTrainer" in store.unread and not store.kept()
