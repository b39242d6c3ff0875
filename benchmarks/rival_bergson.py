"""Which rows move a weighted query loss, by EleutherAI's bergson (2.5.1), in process and on the CPU.

It looks at the weights of the base model's linear layers: no embedding, no norm, no bias and no LM head, so at nothing
of what tied embeddings share. All three methods work in process; the one file it writes is its count of tokens, into a
temporary folder. It is spared what it need not do, and asked for what the other side computes:

- the query gradient is one sum: a query's weight goes in as its `advantage`, by which bergson multiplies its loss;
- "dot" and "cosine" score rows as they stream: one pass over the rows, and one number a row that is held;
- "trackstar" takes bergson's second moments of the rows and the rows' projected gradients from one pass, where its own
  pipeline makes two, and holds `projection ** 2` floats a module and row. The second moments are of the rows alone, its
  `mix_hessians=False`, which it has for queries too few to estimate theirs from, and which spares it a pass over them;
- the loss is the mean over a row's tokens, bergson's `loss_reduction="mean"`, whose default is the sum.

All else is as it comes: damping by a tenth of the mean eigenvalue, Rademacher projections, and the input embedding as
the one parameter that asks for a gradient, as its own workers have it.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

Row = tuple[list[int], list[bool]]  # token ids, and of which of them the loss is taken

METHODS = ("dot", "cosine", "trackstar")
CHUNK = 256  # held rows that are preconditioned at once


def bergson_scores(
    model: PreTrainedModel,
    rows: Sequence[Row],
    queries: Sequence[Row],
    weights: Sequence[float],
    method: str = "cosine",
    projection: int = 16,
    batch_tokens: int = 1024,
) -> tuple[list[float], float]:
    """By row how far a gradient step on it raises the weighted query loss, higher for more, and the seconds that took.

    A gradient is projected to `projection` x `projection` a module, or not at all where that is 0. A row without a
    learnt token scores 0.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: one of {', '.join(METHODS)}")
    if method == "trackstar" and not projection:
        raise ValueError("trackstar's second moments are of projected gradients: projection is 0")
    try:
        with _logging_kept():
            from bergson import PreprocessConfig, Scorer
            from bergson.hessians.preconditioner import DensePreconditioner
            from bergson.process_grads import normalize_and_aggregate_grads
            from bergson.score.score_writer import InMemorySequenceScoreWriter
    except ImportError as error:
        raise ImportError(f"bergson cannot be imported, `pip install bergson`: {error}") from error

    start, unit = time.perf_counter(), method != "dot"
    with _ready(model), redirect_stdout(sys.stderr):
        asked = _dataset(queries).add_column("advantage", [float(weight) for weight in weights])
        # unprojected, a batch's gradients lie beside each other whole: one query at a time
        most, summed = (None if projection else 1), PreprocessConfig(aggregation="sum")
        query = _collect(model, asked, projection, batch_tokens, most, preprocess_cfg=summed).gradients
        data, held, transform = _dataset(rows), None, None
        if method == "trackstar":
            held = _collect(model, data, projection, batch_tokens, skip_hessians=False)
            preconditioner = DensePreconditioner.from_processor(held.processor, power=-0.5)
            query, transform = preconditioner.apply(query), preconditioner.apply
        device, names = model.device, list(query)
        scorer = Scorer(
            normalize_and_aggregate_grads(query, names, unit_normalize=unit, device=device),
            names,
            InMemorySequenceScoreWriter(len(rows), 1),
            device,
            model.dtype,
            unit_normalize=unit,
            index_transform=transform,
        )
        if held is None:
            _collect(model, data, projection, batch_tokens, scorer=scorer)
        else:
            for first in range(0, len(rows), CHUNK):
                part = range(len(rows))[first : first + CHUNK]
                scorer(list(part), {name: held.gradients[name][part.start : part.stop] for name in names})
    scores: Tensor = scorer.writer.scores[:, 0]
    return (0 - scores).tolist(), time.perf_counter() - start


def _dataset(rows: Sequence[Row]) -> Dataset:
    """What bergson's collectors read: labels where there is a loss, else -100. It shifts them itself."""
    labels = [[i if learn else -100 for i, learn in zip(ids, learnt, strict=True)] for ids, learnt in rows]
    return Dataset.from_dict({"input_ids": [list(ids) for ids, _ in rows], "labels": labels})


def _collect(
    model: PreTrainedModel, data: Dataset, projection: int, batch_tokens: int, most: int | None = None, **how: Any
) -> Any:
    """bergson's collector, once it has seen every row that has a loss: of others it would make nan."""
    from bergson import CollectorComputer, GradientProcessor, IndexConfig, InMemoryCollector
    from bergson.data import allocate_batches

    lengths = [len(y) if any(i != -100 for i in y[1:]) else 0 for y in data["labels"]]  # those below 2 it leaves out
    batches = allocate_batches(lengths, max(batch_tokens, *lengths), max_batch_size=most)
    with tempfile.TemporaryDirectory() as folder:
        cfg = IndexConfig(run_path=str(Path(folder) / "run"), projection_dim=projection, loss_reduction="mean")
        cfg.partial_run_path.mkdir()
        processor = GradientProcessor(projection_dim=projection)
        collector = InMemoryCollector(model=model.base_model, data=data, cfg=cfg, processor=processor, **how)
        CollectorComputer(model, data, collector=collector, batches=batches, cfg=cfg).run_with_collector_hooks()
    return collector


@contextmanager
def _logging_kept() -> Iterator[None]:
    """bergson takes the root logger's handlers away as it is imported, and has it write to stdout."""
    root = logging.getLogger()
    (handlers, root.handlers), level = (root.handlers, []), root.level
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level


@contextmanager
def _ready(model: PreTrainedModel) -> Iterator[None]:
    """As bergson's workers have it. All is put back: gradients too, which they drop, and `random`, which they seed."""
    training, state = model.training, random.getstate()
    kept = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        model.get_input_embeddings().requires_grad_(True)
        model.zero_grad()
        yield
    finally:
        model.train(training)
        random.setstate(state)
        for parameter, asks, grad in kept:
            parameter.requires_grad_(asks).grad = grad
