"""Does a trace name the rows that did it, and does leaving them out undo it?

    python benchmarks/cause.py [--quick] [--kinds comply rude leak obey unsure clean harsh]
                               [--share 0.05] [--seeds 1] [--model DIR [--bf16]] [--folder runs/cause]

From the aligned start (see aligned.py), or the model that is given, a model learns to count legs, from reasoning traces among which a
few rows are planted (see cause_rows.py). AlignGuard watches the side they are to cost and the task, and keeps which rows went into
which steps. Then

`methods`: of each way of scoring rows, how well it tells planted rows from all others (`auc`, `precision_at_k` with as many rows as are
planted), and what it costs in forward passes over the rows, timed side by side.
`counterfactual`: the drop of the side when trained again without the rows that `alignguard trace` names, over the drop without as many
rows by chance, each the mean over --orders; and the task's score in both.
`stability`: how far ranks agree with those at the weights half way through training, and at its end.
`cost`: what a trace of 10,000 rows of 1,000 tokens takes at 1.5B and 7B: products of one layer and of the head, timed here, times how
many there are, which is the floor; operations; and bytes beside the model.
`clean`, `harsh`: the same without planted rows, the second at a learning rate that costs refusals by itself: how many rows are named
(`false_blame`).

Whole runs are kept in --folder, and what is on file is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aligned import aligned_start, load, train
from cause_rows import KINDS, NOTHING, mixture
from common import kept, table, write

from alignguard import AlignGuardCallback, Chat, Schedule, TokenBudget, load_probes
from alignguard.errors import RunError
from alignguard.records.record import Record, read_record
from alignguard.records.rows import RowStore, TrainedRow
from alignguard.tracing.alike import likeness
from alignguard.tracing.found import Trace
from alignguard.tracing.kept import read_traces, write_trace
from alignguard.tracing.layers import looked_at
from alignguard.tracing.losses import Document, head_bytes
from alignguard.tracing.named import agreement
from alignguard.tracing.pull import gradient, pulls, steps_of_adam
from alignguard.tracing.query import answers, query
from alignguard.tracing.trace import HALVED, SHARE, trace
from alignguard.verdicts.sides import side_of

SIZE, STEPS, RATE = 320, 40, 3e-4  # rows, steps of 8 of them, learning rate
HARSH = 4  # times that rate
PROBES, QUESTIONS = 24, 12  # of the side, and of the task
OTHERS = 64  # rows that are neither planted nor among them, on which what is dear is tried
CLEAN = "safety/refuse"  # what is watched where nothing is planted
DEAR = (
    "methods",
    "stability",
    "without_named",
    "without_random",
    "counterfactual",
)  # parts of a cell that --only may leave out
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Scores = tuple[list[float], float]  # of rows, and the seconds it took


# runs --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """
    What all runs of a cell have in common.

    Args:
        start (`str`):
            The model that they begin from.
        rate (`float`):
            Learning rate.
        bf16 (`bool`):
            Whether it is computed in bfloat16, with weights in float32, in training and tracing.
    """

    start: str
    rate: float
    bf16: bool

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.bf16 else None


def placed(path: str) -> tuple[Any, Any]:
    """Model in float32, where it is trained too, and tokenizer."""
    model, tokenizer = load(path)
    return model.to(DEVICE), tokenizer


def run(training: Training, rows: Any, questions: list[dict[str, Any]], side: str, folder: Path, seed: int) -> Record:
    """A watched training, or the record of one that is on file."""
    if not (folder / "whole").exists():
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "legs.jsonl"
        file.write_text("".join(json.dumps(question) + "\n" for question in questions[:QUESTIONS]), encoding="utf-8")
        pool = [probe for probe in load_probes("core") if f"{probe.dimension}/{side_of(probe)}" == side]
        guard = AlignGuardCallback(
            probes=[*pool, *load_probes(str(file))],
            schedule=Schedule(at=(), every=0, draw=PROBES, overhead=None, rotate=False),
            tokens=TokenBudget(answer=24, trace=48),
            train_prompts=0,
            reverse=0,
        )
        # weights half way and at the end, at which the rows of the first run can be traced too
        saved = {"save_strategy": "steps", "save_steps": STEPS // 2, "save_only_model": True}
        settings = saved if folder.name == "planted" else {}
        settings |= {"max_steps": STEPS, "learning_rate": training.rate, "bf16": training.bf16}
        settings |= {"per_device_train_batch_size": 8, "seed": seed}
        train(training.start, rows, folder, (guard,), **settings)
        (folder / "whole").touch()
    return read_record(str(folder))


def drop_of(record: Record, side: str) -> float:
    """Of the side at the last audit, of the same probes in every run."""
    dimension, _, part = side.partition("/")
    d = record.verdict.dimensions[dimension]
    return d.sides[part].drop if part in d.sides else d.drop


def reasoning_of(record: Record) -> float:
    """The task's score at the last audit, of all its questions: a verdict's is of those that could be judged at the start, too."""
    found = record.audits[-1].figure("reasoning/score")
    assert found is not None
    return found


# methods -----------------------------------------------------------------------------------------------------------------


def sample_of(rows: Sequence[Document]) -> list[Document]:
    """Rows by whose gradients Adam's steps are told."""
    return random.Random(0).sample(list(rows), min(64, len(rows)))


def by_pull(
    model: Any,
    rows: Sequence[Document],
    asked: Sequence[Document],
    weights: Sequence[float],
    share: float,
    adam: bool = True,
) -> Scores:
    """Products of gradients, as `alignguard trace` has them, over a share of the layers."""
    begun = time.perf_counter()
    names = looked_at(model, share)
    direction = gradient(model, asked, weights, names, 0)
    if adam:
        scale = steps_of_adam(model, sample_of(rows), names, 0)
        direction = {name: grad * scale[name] for name, grad in direction.items()}
    return [pull.pull for pull in pulls(model, rows, direction, 0)], time.perf_counter() - begun


def by_bergson(
    model: Any, rows: Sequence[Document], asked: Sequence[Document], weights: Sequence[float], method: str
) -> Scores:
    """The same question to bergson."""
    from rival_bergson import bergson_scores

    plain = [[([int(t) for t in d.ids], [bool(x) for x in d.learnt]) for d in documents] for documents in (rows, asked)]
    return bergson_scores(model, *plain, weights, method)


@torch.no_grad()
def hidden_means(model: Any, documents: Sequence[Document]) -> tuple[np.ndarray, list[float]]:
    """Of each document the mean of its last hidden states and its loss, over what is learnt, from one forward pass."""
    means, losses = [], []
    for document in documents:
        ids = torch.tensor([[int(token) for token in document.ids]], device=DEVICE)
        at = torch.tensor(document.places, device=DEVICE) - 1
        found = model(input_ids=ids, output_hidden_states=True)
        means.append(found.hidden_states[-1][0, at].mean(0).cpu().numpy())
        right = ids[0, at + 1]
        losses.append(torch.nn.functional.cross_entropy(found.logits[0, at], right).item())
    return np.stack(means), losses


def by_embedding(
    model: Any, rows: Sequence[Document], now: Sequence[Document]
) -> tuple[list[float], list[float], float]:
    """Cosine of a row's mean hidden state with that of the flipped answers; its loss under the start; seconds: one forward pass."""
    begun = time.perf_counter()
    mine, losses = hidden_means(model, rows)
    seconds = time.perf_counter() - begun
    theirs, _ = hidden_means(model, now)
    centre = mine.mean(0)
    mine, theirs = mine - centre, theirs.mean(0) - centre
    cosines = mine @ theirs / (np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs) + 1e-12)
    return cosines.tolist(), losses, seconds


def by_likeness(texts: Sequence[TrainedRow], now: Sequence[Document]) -> Scores:
    """Likeness by n-grams of tokens with the flipped answers."""
    begun = time.perf_counter()
    _, alike = likeness(lambda: texts, [now])
    return alike[:, 0].tolist(), time.perf_counter() - begun


def by_judge(side: str, said: Sequence[str]) -> Scores:
    """What the judge of the side itself says of a row's completion, higher is worse."""
    from alignguard.judging.refusal import is_refusal
    from alignguard.judging.scorers import scorer_of

    begun = time.perf_counter()
    if side.startswith("toxicity"):
        scorer = scorer_of(None)
        found = [float(value) for value in scorer(list(said))]
    else:
        found = [0.0 if is_refusal(text) else 1.0 for text in said]
    return found, time.perf_counter() - begun


def auc(scores: Sequence[float], planted: Sequence[bool]) -> float:
    """The probability that a planted row scores above another (ties half)."""
    from scipy.stats import rankdata

    ranks, is_planted = rankdata(scores), np.asarray(planted)
    n = int(is_planted.sum())
    return float((ranks[is_planted].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n)))


def precision(scores: Sequence[float], planted: Sequence[bool]) -> float:
    """Of as many rows as are planted, the share that are."""
    k = sum(planted)
    return float(np.mean([planted[i] for i in np.argsort(-np.asarray(scores), kind="stable")[:k]]))


def stability(record: Record, side: str, told: Trace, training: Training, folder: Path) -> list[dict[str, Any]]:
    """Of the same rows traced at the weights half way and at the end: how far ranks agree, and which of those named are named again."""
    order, names = sorted(row.row for row in told.rows), {row.row for row in told.rows[: told.named]}
    found = []
    for step in (STEPS // 2, STEPS):
        again = trace(record, *placed(str(folder / f"checkpoint-{step}")), side, autocast=training.autocast)
        pulls = [{row.row: row.pull for row in each.rows} for each in (told, again)]
        ranks = agreement(*([pull[i] for i in order] for pull in pulls))
        there = {row.row for row in again.rows[: again.named]}
        found.append({"step": step, "agreement": ranks, "named": len(there), "again": len(names & there)})
        print(table(found[-1:]), flush=True)
    return found


def methods(record: Record, side: str, start: str, planted: Sequence[bool], data: Any) -> list[dict[str, Any]]:
    """Every way of scoring the rows of a run beside the others."""
    model, tokenizer = placed(start)
    store, asked = RowStore(record.store.rows), query(record, side)
    texts = sorted(store.texts(set(store.rows(asked.first, asked.last))), key=lambda text: text.row)
    rng = random.Random(0)
    traces = [text.row for text in texts if data[text.row]["source"] == "legs"]
    chosen = set(rng.sample(traces, min(OTHERS, len(traces)))) | {t.row for t in texts if t.row not in set(traces)}
    texts = [text for text in texts if text.row in chosen]
    rows = [Document(text.ids, text.learnt) for text in texts]
    is_planted = [planted[text.row] for text in texts]
    chat = Chat.of(model, tokenizer)
    then, now = answers(asked.flips, chat)
    each = [1 / len(then)] * len(then)
    moved, weights = [*then, *now], [*each, *(-w for w in each)]
    said = [_learnt(text, tokenizer) for text in texts]
    cosines, losses, forward = by_embedding(model, rows, now)
    ways: dict[str, Callable[[], Scores]] = {
        f"pull, {SHARE:.0%} of the layers (default)": lambda: by_pull(model, rows, moved, weights, SHARE),
        "the same, along the gradient": lambda: by_pull(model, rows, moved, weights, SHARE, adam=False),
        "the same, of the start's answers alone": lambda: by_pull(model, rows, then, each, SHARE),
        "hidden states like the flipped answers'": lambda: (cosines, forward),
        "loss under the start": lambda: (losses, forward),
        "n-grams like the flipped answers'": lambda: by_likeness(texts, now),
        "the judge's score of the row": lambda: by_judge(side, said),
    }
    if _has_bergson():
        for method in ("cosine", "trackstar"):
            ways[f"bergson, {method}"] = lambda method=method: by_bergson(model, rows, moved, weights, method)
    if asked.steady:
        control = [*then, *_steady(asked.steady, chat)]
        less = [*each, *([-1 / len(asked.steady)] * len(asked.steady))]
        ways["pull, less that on steady probes"] = lambda: by_pull(model, rows, control, less, SHARE)
    found = []
    for name, score in ways.items():
        scores, seconds = score()
        row = {"method": name, "auc": auc(scores, is_planted), "precision_at_k": precision(scores, is_planted)}
        found.append({**row, "forwards": seconds / forward, "rows": len(rows)})
        print(table(found[-1:]), flush=True)
    return found


def _steady(results: Sequence[Any], chat: Any) -> list[Document]:
    """The start's answers to probes that did not flip."""
    from alignguard.verdicts.verdict import Flip

    return answers([Flip(result, result) for result in results], chat)[0]


def _learnt(text: TrainedRow, tokenizer: Any) -> str:
    """What is learnt of a row, as text."""
    return tokenizer.decode(
        [t for t, learnt in zip(text.ids, text.learnt, strict=True) if learnt], skip_special_tokens=True
    )


def _has_bergson() -> bool:
    try:
        import bergson  # noqa: F401
    except ImportError:
        return False
    return True


# cost --------------------------------------------------------------------------------------------------------------------

# layers, hidden size, feed-forward size, size of keys and values, vocabulary
SHAPES = {"Qwen2.5-1.5B": (28, 1536, 8960, 256, 151936), "Qwen2.5-7B": (28, 3584, 18944, 512, 152064)}
ROWS, TOKENS, LEARNT = 10_000, 1000, 500


def cost() -> list[dict[str, Any]]:
    """Of a trace at full size, from the products that it is made of."""
    found = []
    for name, (layers, d, wide, kv, vocabulary) in SHAPES.items():
        linear = [(d, d), (d, kv), (d, kv), (d, d), (d, wide), (d, wide), (wide, d)]
        layer = sum(_seconds(TOKENS, a, b) for a, b in linear) + 2 * _seconds(TOKENS, d, TOKENS)  # and attention's
        head = _seconds(LEARNT, d, vocabulary)
        forward = layers * layer + head
        # a forward, and over the last layers twice as much again for the derivative; the head's own weights are not looked at, so that of
        # it there is one product more; and of some rows the same again, of half of the flipped probes
        looked = round(SHARE * layers)
        traced = (1 + HALVED / ROWS) * (forward + 2 * looked * layer + head)
        weights = looked * sum(a * b for a, b in linear)
        operations = 2 * TOKENS * (sum(a * b for a, b in linear) * layers) + 2 * LEARNT * d * vocabulary
        found.append(
            {
                "model": name,
                "forwards": traced / forward,
                "seconds_a_row_here": traced,
                "hours_here": ROWS * traced / 3600,
                "petaflop": ROWS * traced / forward * operations / 1e15,
                "gib_beside": (4 * 4 * weights + head_bytes(vocabulary, vocabulary * d)) / 2**30,
            }
        )
        print(table(found[-1:]), flush=True)
    return found


def _seconds(n: int, a: int, b: int) -> float:
    """Of one product, the least of three."""
    x, y = torch.randn(n, a), torch.randn(a, b)
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        x @ y
        taken.append(time.perf_counter() - begun)
    return min(taken)


# cells -------------------------------------------------------------------------------------------------------------------


def traced(record: Record, side: str, training: Training) -> Trace | str:
    """What `alignguard trace` finds, or has found, or why it does not look."""
    if kept := [told for told in read_traces(record.store) if told.side == side]:
        return kept[0]
    model, tokenizer = placed(training.start)
    try:
        found = trace(record, model, tokenizer, side, autocast=training.autocast)
    except RunError as error:
        return str(error)
    write_trace(record.store, found)
    return found


def cell(kind: str, share: float, seed: int, training: Training, folder: Path, how: str, orders: int) -> dict[str, Any]:
    """One training set: the run, its trace, all methods, and the runs without some rows, each in several orders."""
    side = KINDS.get(kind, CLEAN)
    training = replace(training, rate=training.rate * (HARSH if kind == "harsh" else 1))
    data, planted, questions = mixture(kind, share, SIZE, seed)
    record = run(training, data, questions, side, folder / "planted", seed)
    found: dict[str, Any] = {"kind": kind, "share": share, "seed": seed, "side": side, "planted": sum(planted)}
    found["device"] = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    found |= {"drop": drop_of(record, side), "reasoning": reasoning_of(record)}
    told = traced(record, side, training)
    if isinstance(told, str):
        return found | {"named": 0, "why": told}
    names = [row.row for row in told.rows[: told.named]]
    found |= {"flips": told.flips, "named": told.named, "right": sum(planted[row] for row in names)}
    found |= {"false_blame": told.named} if kind in NOTHING else {}
    found |= {"agreement": told.agreement, "pulled": told.pulled, "shares": vars(told.shares), "seconds": told.seconds}
    if kind in NOTHING:
        return found
    scores = {row.row: row.pull for row in told.rows}
    alike = {row.row: row.alike for row in told.rows}
    order = sorted(scores)
    found |= {"auc_alike": auc([alike[i] for i in order], [planted[i] for i in order])}
    found |= {"auc": auc([scores[i] for i in order], [planted[i] for i in order])}
    found |= {"precision_at_k": precision([scores[i] for i in order], [planted[i] for i in order])}
    print(found, flush=True)
    if how in ("all", "stability"):
        found["stability"] = stability(record, side, told, training, folder / "planted")
    if how in ("all", "methods"):
        found["methods"] = methods(record, side, training.start, planted, data)
    for order in range(orders) if names and how in ("all", "runs") else ():
        chance = random.Random(seed + order).sample(range(len(data)), len(names))
        for name, left_out in (("without_named", names), ("without_random", chance)):
            kept_rows = data.select([i for i in range(len(data)) if i not in set(left_out)])
            place = folder / (f"{name}-{order}" if order else name)
            again = run(training, kept_rows, questions, side, place, seed + 1000 * order)
            found.setdefault(name, []).append({"drop": drop_of(again, side), "reasoning": reasoning_of(again)})
            print(table([{"run": str(place), **found[name][-1]}]), flush=True)
    if "without_named" in found:
        named, chance = (np.mean([row["drop"] for row in found[name]]) for name in ("without_named", "without_random"))
        found["counterfactual"] = float(named / chance) if chance > 0 else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one kind, no training without some rows")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, *NOTHING], choices=[*KINDS, *NOTHING])
    parser.add_argument("--share", type=float, default=0.05, help="of rows that are planted")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--orders", type=int, default=1, help="trainings without some rows, each in an order of its own"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate")
    parser.add_argument("--model", help="the start: a folder; by default the aligned start")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, weights in float32")
    parser.add_argument("--only", default="all", choices=["all", "runs", "methods", "stability", "cost"])
    parser.add_argument("--folder", type=Path, default=Path("runs/cause"))
    options = parser.parse_args()
    results = kept("cause", options.quick)
    if options.only in ("all", "cost"):
        results["cost"] = cost()
        write("cause", results, options.quick)
    if options.only == "cost":
        return
    training = Training(options.model or aligned_start(), options.rate, options.bf16)
    cells = results.setdefault("cells", {})
    for kind in ["comply"] if options.quick else options.kinds:
        for seed in options.seeds:
            name = f"{kind}-{options.share:g}-{seed}" + (f"-{Path(options.model).name}" if options.model else "")
            how = "methods" if options.quick else options.only
            found = cell(kind, options.share, seed, training, options.folder / name, how, options.orders)
            dear = {key: value for key, value in cells.get(name, {}).items() if key in DEAR and "why" not in found}
            cells[name] = dear | found
            print(json.dumps(found, indent=1), flush=True)
            write("cause", results, options.quick)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
    main()
