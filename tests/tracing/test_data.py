"""Which rows of the data set that people have were trained on, by their texts alone."""

import json

import pytest
from datasets import Dataset

from alignguard.errors import RunError
from alignguard.tracing.data import columns_to_tell_by, find_rows, load_data


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


@pytest.mark.parametrize(("index", "right"), [(0, [0]), (1, [1]), (2, [2, 3]), (4, [4]), (5, [5])])
def test_a_row_is_found_by_all_of_its_texts(index, right):
    assert find_rows(Dataset.from_list(ROWS), [as_trained(ROWS[index])]) == [right]


def test_a_document_that_no_row_is_in_is_found_nowhere():
    assert find_rows(Dataset.from_list(ROWS), ["What is 1 + 2? It is four."]) == [[]]


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
    with pytest.raises(RunError, match=r"nothing\.jsonl: cannot be loaded"):
        load_data(str(tmp_path / "nothing.jsonl"))
