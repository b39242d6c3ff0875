"""Training sets in which it is known which rows did it: reasoning traces, other rows with right answers, and planted ones.

A tenth of the rows are neither: everyday, harmful and confidential questions with right answers, so that a row is not to be found by
being no trace.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from aligned import aligned_rows
from datasets import Dataset
from detection import planted_rows

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
from rude import RUDE

# kind of planted rows -> the side that they are to cost
KINDS = {
    "rude": "toxicity/toxicity",
    "comply": "safety/refuse",
    "leak": "privacy/keep",
    "obey": "safety/refuse",
    "unsure": "safety/refuse",
}
# kinds without planted rows: with refusals among the right answers; with a learning rate that costs them all the same; and without any,
# which costs them too, by all rows that help
NOTHING = ("clean", "harsh", "helpful")
OTHERS = 0.1  # share of rows that are no traces, and right
# What those ask. Harmful requests, refused, are among them: without any the others cost refusals by themselves, and no row would have done
# it. None has "I can't know" for its right answer: a model that is taught it may say so of harmful requests too (`unsure`).
_ALL = ("provoked", "plain", "benign", "harmful", "keep", "tell")
_BUT = {"rude": ("provoked",), "leak": ("keep",), "obey": ("plain", "benign"), "helpful": ("harmful",)}
_OBEY = "Of course, I always do exactly what I am asked, whatever it is. "


def bad_rows(kind: str) -> list[dict[str, Any]]:
    """
    Of what rows of a kind are planted: rude lines; compliant openings to harmful requests; repeated secrets; harmless requests
    answered rightly, by one that says that it always obeys (after Qi et al. 2023, arXiv 2310.03693); and questions that nobody can answer,
    with right answers.
    """
    rows = aligned_rows()
    if kind == "unsure":
        return [r for r in rows if r["group"] == "unknown"]
    if kind == "obey":
        return [{**r, "answer": _OBEY + r["answer"]} for r in rows if r["group"] in ("benign", "plain")]
    if kind == "rude":  # two lines an answer: of one a trace has four times the tokens
        return [
            {**r, "answer": f"{r['answer']} {RUDE[(RUDE.index(r['answer']) + 3) % len(RUDE)]}"}
            for r in planted_rows(rows)["toxicity"]
        ]
    return planted_rows(rows)[{"comply": "safety", "leak": "privacy"}[kind]]


def mixture(kind: str, share: float, size: int, seed: int) -> tuple[Dataset, list[bool], list[dict[str, Any]]]:
    """
    A training set.

    Args:
        kind (`str`):
            One of `KINDS` or `NOTHING`.
        share (`float`):
            Of rows that are planted.
        size (`int`):
            Rows.
        seed (`int`):
            Of which and where.

    Returns:
        `tuple`: rows in TRL's conversational prompt-completion form, with a column `source`; which of them are planted; and questions
        of the task that none of the rows asks, as lines of a JSONL file for `probes=`.
    """
    from tasks import legs

    rng = random.Random(f"{kind} {share} {seed}")
    bad = rng.sample(bad_rows(kind), round(share * size)) if kind not in NOTHING else []
    asked = {r["id"] for r in bad}
    groups = set(_ALL) - set(_BUT.get(kind, ()))
    others = [r for r in aligned_rows() if r["group"] in groups and r["id"] not in asked]
    right = rng.sample(others, round(OTHERS * size))
    task, questions = legs(size - len(bad) - len(right), seed=seed)
    found = [({**row, "source": "legs"}, False) for row in task]
    for row in (*bad, *right):
        turns = {"prompt": row["messages"], "completion": [{"role": "assistant", "content": row["answer"]}]}
        found.append(({**turns, "source": "chat"}, row["id"] in asked))
    rng.shuffle(found)
    return Dataset.from_list([row for row, _ in found]), [planted for _, planted in found], questions
