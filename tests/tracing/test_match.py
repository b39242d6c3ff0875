"""Rows of plain columns, written into documents by a template: the row itself is found, or none, and never another."""

import random
import time

import pytest
from datasets import Dataset

from alignguard.tracing import match
from alignguard.tracing.match import Said, find_rows

ONE = "Classify the sentiment of the following sentence from a movie review as positive or negative. Answer with one word."
WORDS = [
    "good",
    "bad",
    "fine",
    "slow",
    "film",
    "plot",
    "actor",
    "loved",
    "hated",
    "dull",
    "bright",
    "funny",
    "sad",
    "cast",
    "music",
    "scene",
    "end",
    "start",
]


def alpaca(row):
    own = f"### Input:\n{row['input']}\n" if row["input"] else ""
    return f"Below is an instruction.\n### Instruction:\n{row['instruction']}\n{own}### Response:\n{row['output']}"


def plain_rows(n, rng, shared):
    """Rows with columns of few values, whose words stand in the instruction, in the template, or in other rows' texts."""
    return [
        {
            "id": str(i),
            "instruction": ONE if rng.random() < shared else f"{ONE} Say it {rng.choice(WORDS)}ly.",
            "input": " ".join(rng.sample(WORDS, rng.randint(0, 4))),
            "output": rng.choice(["positive", "negative", "positive, not negative"]),
            "category": rng.choice(["sentiment", "Instruction", "Response", "film", "imdb"]),
            "tags": rng.sample(["movies", "Input", "web"], 2),
            "meta": {"source": rng.choice(["positive", "web"])},
        }
        for i in range(n)
    ]


def told(data, said, write=alpaca):
    """How many documents have their row, or one that says the same, and how many another."""
    right = wrong = 0
    for said_of, found in zip(said, find_rows(Dataset.from_list(data), [s for s, _ in said]), strict=True):
        same = [write(data[i]) == said_of[0].text for i in found]
        right, wrong = right + (bool(found) and all(same)), wrong + (not all(same))
    return right, wrong


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shared", [1.0, 0.3])
@pytest.mark.parametrize("learnt", ["all", "output"])
def test_of_plain_columns_no_other_row_is_taken_and_almost_all_are_found(seed, shared, learnt):
    """The file is in another order than the trainer's, so that numbers tell nothing."""
    rng = random.Random(seed)
    rows = plain_rows(120, rng, shared)
    data = rng.sample(rows, len(rows))
    said = [(Said(i, alpaca(r), alpaca(r) if learnt == "all" else r["output"]), r) for i, r in enumerate(rows)]
    right, wrong = told(data, said)
    assert wrong == 0 and right >= 0.95 * len(rows)


def test_of_one_document_alone_no_other_row_is_taken():
    """Of one it is not known which columns are written: where a template's words may be a row's, that cannot be told."""
    rng = random.Random(9)
    rows = plain_rows(60, rng, 1.0)
    data = rng.sample(rows, len(rows))
    each = [told(data, [(Said(i, alpaca(row), alpaca(row)), row)]) for i, row in enumerate(rows)]
    assert sum(wrong for _, wrong in each) == 0


@pytest.mark.parametrize("topic", ["restart", "reviews", "helpful assistant"])
def test_of_one_document_alone_its_row_is_found_though_anothers_topic_is_in_it(topic):
    system = "You are Max, a helpful assistant of Example Corp. Be brief, be kind, and never give medical advice."
    rows = [
        {"system": system, "question": "How do I fix it?", "answer": "Sure, restart it.", "topic": topic},
        {"system": system, "question": "How?", "answer": "Sure, restart it.", "topic": "helpful assistant"},
        {"system": system, "question": "Who?", "answer": "Max.", "topic": "restart"},
    ]
    text = f"{system}\nHow do I fix it?\nSure, restart it."
    assert find_rows(Dataset.from_list(rows), [Said(2, text, text)]) == [[0]]


def test_rows_that_are_beside_each_other_in_all_but_where_they_are_from_say_the_same():
    rows = [{"text": f"Row {i // 2}, and what it tells of.", "id": f"x{i}", "tags": [f"t{i}"]} for i in range(8)]
    said = [Said(-1, row["text"], row["text"]) for row in rows]
    assert find_rows(Dataset.from_list(rows), said) == [[i - i % 2, i - i % 2 + 1] for i in range(8)]


def test_of_rows_with_one_beginning_whose_rest_is_not_in_the_document_none_is_taken():
    rows = [{"instruction": ONE, "input": f"word {i}", "output": f"answer {i}"} for i in range(20)]
    cut = ONE + "### Input:"
    assert find_rows(Dataset.from_list(rows), [Said(-1, cut, cut)]) == [[]]


def test_a_row_with_turns_is_found_whatever_else_is_kept_of_it():
    turns = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "The porter, as ever."}]
    rows = [{"messages": turns, "tags": ["a", "b"], "meta": {"url": "http://there"}, "prompt": "Who are you?"}]
    text = "user Who are you? assistant The porter, as ever."
    assert find_rows(Dataset.from_list(rows), [Said(-1, text, "The porter, as ever.")]) == [[0]]


def seconds(n, row, write):
    rows = [row(i) for i in range(n)]
    said = [Said(i, write(r), write(r)) for i, r in enumerate(rows)]
    begun = time.perf_counter()
    assert find_rows(Dataset.from_list(rows), said) == [[i] for i in range(n)]
    return time.perf_counter() - begun


KINDS = {
    "one opening": lambda i: {
        "instruction": f"{ONE} {'blah ' * 40} {i} and more.",
        "input": "",
        "output": f"It is {i}.",
    },
    "one instruction": lambda i: {"instruction": ONE, "input": f"number {i * i}", "output": f"It is {i}."},
    "one instruction, few answers": lambda i: {"instruction": ONE, "input": f"n{i * i};", "output": "ab"[i % 2] * 9},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_time_goes_with_the_rows(kind):
    """Four times as many rows take four times as long, and not sixteen times."""
    few, many = (min(seconds(n, KINDS[kind], alpaca) for _ in range(2)) for n in (200, 800))
    assert many < 10 * few


def test_progress_is_told_of_rows_read_and_of_documents():
    rows, ticks = [{"text": f"Row {i}, and what it tells of."} for i in range(5)], []
    find_rows(Dataset.from_list(rows), [Said(-1, row["text"], row["text"]) for row in rows[:3]], ticks.append)
    assert sum(ticks) == 2 * 5 + 3


def test_rows_with_one_opening_are_not_all_tried_of_each_document(monkeypatch):
    tried, plain = [], match._Index.needed
    monkeypatch.setattr(match._Index, "needed", lambda self, index: tried.append(index) or plain(self, index))
    rows = [{"text": f"<think>\nOkay, so I need to work out number {i}. {'blah ' * 50}"} for i in range(300)]
    said = [Said(-1, row["text"], row["text"]) for row in rows]
    assert find_rows(Dataset.from_list(rows), said) == [[i] for i in range(300)]
    assert len(tried) < 5 * 300
