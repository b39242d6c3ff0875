"""
People run short of memory in an audit: under `auto_find_batch_size=True`, in the first audit, and later in training.

Oracle: the run without us (its batch size), and the run with enough memory (our figures).
Before: taken for the trainer's own failure: its batch of 8 became 7, or the run ended; the failed forward's tensors lived on in
a cycle.
After: 8; we ask again with half of our batch, to single rows, and what still does not fit ends the run before step 1, and later
costs that audit alone.

A hook stands in for the card: a forward of more tokens than fit raises what torch raises.
"""

import contextlib
import gc
import logging
import weakref

import pytest
import torch
from accelerate.utils.memory import should_reduce_batch_size
from runs import guard, lines, sft
from tiny import tiny_model
from transformers import TrainerCallback

from alignguard import DriftBudget, StartError
from alignguard.distributed import OutOfMemory, Ranks

OUT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB."


class Card:
    """A model on it fails in forwards of more tokens than `fits`, while it is not trained."""

    def __init__(self, model, fits):
        self.fits, self.most, self.failed, self.held = fits, 0, 0, []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __deepcopy__(self, memo):
        return self  # start and policy are on one card

    def __call__(self, model, args, kwargs):
        if model.training:
            return
        activations = torch.zeros(8)
        tokens = kwargs["input_ids"].numel()
        if tokens > self.fits:
            self.failed += 1
            self.held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError(OUT)
        self.most = max(self.most, tokens)


class Sizes(TrainerCallback):
    """With how many rows a batch training began, each time."""

    def __init__(self):
        self.found = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.found.append(state.train_batch_size)


def run(tokenizer, output_dir, fits, later=None, ours=True, **kwargs):
    model, sizes = tiny_model(tokenizer, seed=1, scale=4.0), Sizes()
    card = Card(model, 10**9)  # the start is kept

    class Later(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            card.fits = fits if later is None else later

    callbacks = [guard(reference="copy", **kwargs)] if ours else []
    settings = {"auto_find_batch_size": True, "per_device_train_batch_size": 8}
    trainer = sft(tokenizer, output_dir, [*callbacks, sizes, Later()], model=model, **settings)
    card.fits = fits
    trainer.train()
    return card, sizes.found


def metrics(output_dir):
    return [{k: v for k, v in line["metrics"].items() if "/cost/" not in k} for line in lines(output_dir)]


@pytest.mark.parametrize("budget", [None, DriftBudget(max_kl=0.05, every=9, batch=1, anchors=["Name a colour."])])
def test_our_batch_is_halved_and_the_trainers_is_left_alone(budget, tokenizer, tmp_path):
    _, alone = run(tokenizer, tmp_path / "alone", 150, ours=False)
    _, enough = run(tokenizer, tmp_path / "enough", 10**9, budget=budget)
    card, short = run(tokenizer, tmp_path / "short", 150, budget=budget)
    assert set(alone) == set(enough) == set(short) == {8}
    assert card.failed and 75 < card.most <= 150
    for found, expected in zip(metrics(tmp_path / "short"), metrics(tmp_path / "enough"), strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_what_does_not_fit_row_by_row_is_one_line_before_step_1(tokenizer, tmp_path):
    with pytest.raises(StartError) as error:
        run(tokenizer, tmp_path, 10)
    text = str(error.value)
    assert "one row at a time (CUDA out of memory. Tried" in text and "lower TokenBudget(answer=, trace=)" in text
    assert "\n" not in text and error.value.__context__ is None


def test_a_start_that_cannot_be_kept_is_one_line_and_is_not_taken_for_the_trainers_batch(tokenizer, tmp_path):
    """A copy of a model with hooks is asked once, whether it stays where it is."""
    model = tiny_model(tokenizer, seed=1)
    Card(model, 10)
    with pytest.raises(StartError) as error:
        sft(tokenizer, tmp_path, [guard(reference="copy")], model=model)
    text = str(error.value)
    assert text.startswith("memory runs out as the start is kept (CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert text.endswith("; take reference='cache' or 'offload'") and not should_reduce_batch_size(error.value)


def test_later_it_costs_an_audit_and_training_goes_on(tokenizer, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="alignguard"):
        card, sizes = run(tokenizer, tmp_path, 10**9, later=10)
    assert [line["step"] for line in lines(tmp_path)] == [0] and sizes == [8] * 4 and card.failed
    (told,) = [r.getMessage() for r in caplog.records if "failed" in r.getMessage()]
    assert told.startswith("AlignGuard: the audit failed and training goes on (StartError: memory runs out")


def test_later_it_is_tried_again_with_less(tokenizer, tmp_path, caplog):
    card, sizes = run(tokenizer, tmp_path, 10**9, later=150)
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4] and sizes == [8] * 4 and card.failed


def test_nothing_of_a_failed_call_stays_alive():
    """Looked at without the collector, which would find the cycle some day."""
    held = []

    def fail(kind):
        activations = torch.zeros(8)
        held.append(weakref.ref(activations))
        raise kind(OUT)

    class Meeting(Ranks):
        def _exchange(self, value):
            return [value]

    gc.collect()
    gc.disable()
    try:
        for ranks in (Ranks(), Meeting(group="here")):
            for kind in (torch.OutOfMemoryError, ValueError):
                with contextlib.suppress(OutOfMemory, ValueError):
                    ranks.together(lambda kind=kind: fail(kind))
                assert ranks.short_of_memory(lambda: fail(torch.OutOfMemoryError)).endswith(OUT)
        assert len(held) == 8 and not [ref for ref in held if ref() is not None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "text",
    [
        OUT,
        "MPS backend out of memory (MPS allocated: 17 GB)",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
        "FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed",
    ],
)
def test_whatever_accelerate_takes_for_its_batch_is_ours_here(text):
    def fail():
        raise RuntimeError(text)

    assert should_reduce_batch_size(RuntimeError(text))
    with pytest.raises(OutOfMemory) as error:
        Ranks().together(fail)
    assert not should_reduce_batch_size(error.value)


@pytest.mark.parametrize(("others", "again"), [([(None, False, 1)], True), ([("ValueError: no", False, None)], False)])
def test_processes_try_again_all_or_none(others, again):
    class Meeting(Ranks):
        def _exchange(self, value):
            return [value, *others]

    ranks = Meeting(size=2, group="here")

    def fail():
        raise torch.OutOfMemoryError(OUT)

    if again:
        assert ranks.short_of_memory(fail).startswith("process 0 of 2 failed with OutOfMemory: CUDA out of memory.")
        assert ranks.together(lambda: 1) == [1, 1]
    else:
        with pytest.raises(ValueError, match="CUDA out of memory") as error:
            ranks.short_of_memory(fail)
        assert not isinstance(error.value, OutOfMemory)
