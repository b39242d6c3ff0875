"""Which rows of the data set that people have were trained on, by their texts alone."""

import json

import pytest
from datasets import Dataset

from alignguard.errors import RunError
from alignguard.tracing.data import columns_to_tell_by, load_data
from alignguard.tracing.match import Said, find_rows


def turns(asked, said, **more):
    return {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}],
        **more,
    }


ROWS = [
    turns("What is 1 + 2?", "It is 3."),
    turns("What is 1 + 2?", "It is 3. Of course."),
    turns("Who are you?", "I am the\n night  porter of a long, long hotel."),
    turns("Who are you?", "I am the\n night  porter of a long, long hotel."),
    {
        "messages": [
            {"role": "system", "content": "You are a clerk of the office, and never tell."},
            *turns("PIN?", "No.")["messages"],
        ]
    },
    {
        "messages": [
            {"role": "system", "content": "You are a clerk of the office, and never tell."},
            *turns("PIN?", "1234.")["messages"],
        ]
    },
]


def as_trained(row):
    """As a chat template writes it."""
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in row["messages"])


def said(row, at=-1, text=None):
    text = as_trained(row) if text is None else text
    return Said(at if at >= 0 else 10**6, text, row["messages"][-1]["content"])


@pytest.mark.parametrize(("index", "right"), [(0, [0]), (1, [1]), (2, [2, 3]), (4, [4]), (5, [5])])
def test_a_row_is_found_by_all_of_its_texts(index, right):
    assert find_rows(Dataset.from_list(ROWS), [said(ROWS[index])]) == [right]


def test_a_row_at_its_own_place_is_that_row_alone():
    assert find_rows(Dataset.from_list(ROWS), [said(ROWS[3], at=3), said(ROWS[3], at=0)]) == [[3], [2, 3]]


def test_a_document_that_no_row_is_in_is_found_nowhere():
    other = turns("What is 1 + 2?", "It is four.")
    assert find_rows(Dataset.from_list(ROWS), [said(other)]) == [[]]


def test_of_a_document_that_was_cut_off_no_other_row_is_taken():
    short, long = turns("Hi", "This"), turns("What is this?", "This is a long answer, which goes on and on and on.")
    cut = as_trained(long)[:60]
    assert find_rows(Dataset.from_list([long, short]), [Said(9, cut, "This is a long answer, which")]) == [[]]


def test_of_two_rows_in_one_document_none_is_taken_for_it():
    one, two = {"text": "The first row of two."}, {"text": "The other row of two."}
    both = "The first row of two. The other row of two."
    assert find_rows(Dataset.from_list([one, two]), [Said(9, both, both)]) == [[]]


def test_a_row_that_is_all_learnt_is_found_beneath_its_template():
    whole = as_trained(ROWS[2])
    assert find_rows(Dataset.from_list(ROWS), [Said(9, whole, whole)]) == [[2, 3]]


def test_columns_of_few_values_are_those_to_tell_by():
    rows = [{"prompt": f"{i}", "source": "ab"[i % 2], "split": "train", "n": i % 2} for i in range(8)]
    assert columns_to_tell_by(Dataset.from_list(rows)) == ["source"]


def test_a_data_set_is_read_from_a_file_or_a_folder(tmp_path):
    data = Dataset.from_list(ROWS)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data.to_parquet(str(tmp_path / "a.parquet"))
    data.save_to_disk(str(tmp_path / "saved"))
    for name in ("a.jsonl", "a.parquet", "saved"):
        assert [row["messages"] for row in load_data(str(tmp_path / name))] == [row["messages"] for row in ROWS]


def test_a_data_set_that_is_not_there_is_told_of(tmp_path):
    with pytest.raises(RunError, match=r"nothing\.jsonl: no such file"):
        load_data(str(tmp_path / "nothing.jsonl"))
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RunError, match=r"empty\.jsonl: is empty; give the data set that the run was trained on$"):
        load_data(str(tmp_path / "empty.jsonl"))
    with pytest.raises(RunError, match=r"broken\.jsonl: cannot be loaded"):
        load_data(str(tmp_path / "broken.jsonl"))


def test_of_rows_that_go_on_from_each_other_the_longest_is_taken_whatever_its_number():
    """One row a turn; the trainer has left out the first one, so that its numbers are others."""
    asked = [
        turns(
            f"Question {i}: why is it {i * 7}, of all numbers?", f"Answer {i}: because of {i * i}, as everybody says."
        )["messages"]
        for i in range(6)
    ]
    data = [{"messages": [turn for part in asked[: i + 1] for turn in part]} for i in range(6)]
    for learnt in (as_trained, lambda row: "".join(t["content"] for t in row["messages"] if t["role"] == "assistant")):
        trained = [Said(i, as_trained(row), learnt(row)) for i, row in enumerate(data[1:])]
        assert find_rows(Dataset.from_list(data), trained) == [[i + 1] for i in range(5)]


def test_a_document_that_has_no_number_is_not_the_last_row():
    data = Dataset.from_list(ROWS)
    assert find_rows(data, [Said(-1, as_trained(row), row["messages"][-1]["content"]) for row in ROWS[4:]]) == [
        [4],
        [5],
    ]
