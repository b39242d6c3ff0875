"""A data set without some of its rows: the others are those that the user has, to the byte."""

import csv
import json

import pytest
from datasets import Dataset

from alignguard.errors import RunError
from alignguard.tracing.data import load_data
from alignguard.tracing.without import check_copied, name_without, write_without

LINES = [
    '{"text": "one",  "created": "2023-01-02 10:00:00", "reward": 0.12345678901234567}\n',
    " \t\n",
    '{"reward":2e0,"text":"zw\\u00f6lf\u2028\u00e9", "created": "2023-01-03 10:00:00"}\r\n',
    "\n",
    '{"text": "three", "created": "2023-01-04 10:00:00", "reward": 3}\n',
    '{"text": "four", "created": "2023-01-05 10:00:00", "reward": 4.0}',
]
RECORDS = [
    "prompt,completion,code\n",
    "one,None,0001\n",
    '"two,\n\nof ""two"" lines",NA,0002\n',
    "\n",
    "  \n",
    'a 5" nail,"",0003\r\n',
    f"{'long ' * 40_000},1.10,0004",
]


def without(path, dropped, output):
    data = load_data(str(path))
    check_copied(str(path), data, output)
    assert write_without(str(path), data, dropped, output) == len(data) - len(dropped)
    return output.read_bytes()


@pytest.mark.parametrize(
    ("name", "lines", "rows"), [("a.jsonl", LINES, [0, 2, 4, 5]), ("a.csv", RECORDS, [1, 2, 5, 6])]
)
@pytest.mark.parametrize("dropped", [{0}, {1, 2}, {3}, set()])
def test_rows_of_a_file_of_lines_are_copied(tmp_path, name, lines, rows, dropped):
    path, output = tmp_path / name, tmp_path / f"out-{name}"
    path.write_bytes("".join(lines).encode())
    assert len(load_data(str(path))) == len(rows)
    head = lines[: rows[0]]
    kept = [lines[row] for i, row in enumerate(rows) if i not in dropped]
    limit = csv.field_size_limit()
    assert without(path, dropped, output) == "".join([*head, *kept]).encode()
    assert csv.field_size_limit() == limit


def test_a_file_of_lines_is_written_as_parquet_where_that_is_asked(tmp_path):
    path, output = tmp_path / "a.jsonl", tmp_path / "out.parquet"
    path.write_bytes("".join(LINES).encode())
    without(path, {1}, output)
    assert load_data(str(output)).to_list() == [row for i, row in enumerate(load_data(str(path))) if i != 1]


def test_what_is_no_file_of_lines_is_written_as_parquet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": text, "reward": 1 / 3} for text in "abc"]
    Dataset.from_list(rows).save_to_disk("sft-v1.5")
    (tmp_path / "list.json").write_text(json.dumps(rows))
    for name, right in {"sft-v1.5": "sft-v1.5-without.parquet", "list.json": "list-without.parquet"}.items():
        assert name_without(name) == right
        without(tmp_path / name, {0}, tmp_path / right)
        assert load_data(right).to_list() == load_data(name).to_list()[1:]
    assert name_without("trl-lib/Capybara-2.1") == "Capybara-2.1-without.parquet"
    (tmp_path / "a.jsonl").touch()
    assert name_without(str(tmp_path / "a.jsonl")) == "a-without.jsonl"


@pytest.mark.parametrize("output", ["out.5", "out", "out.csv", "out.json"])
def test_another_format_is_refused(tmp_path, output):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(LINES))
    with pytest.raises(RunError, match=r"a\.jsonl is written as \.jsonl or \.parquet; give FILE\.jsonl or FILE\.par"):
        without(path, {0}, tmp_path / output)
    with pytest.raises(RunError, match=r"is written as \.parquet; give FILE\.parquet"):
        check_copied("trl-lib/Capybara", load_data(str(path)), tmp_path / output)


@pytest.mark.parametrize(
    "text", ['[{"a": 1},\n{"a": 2}]', '{"a": 1}{"a": 2}\n', '{"a":\n1}\n{"a":\n 2}\n'], ids=["list", "beside", "over"]
)
def test_rows_that_are_not_one_a_line_are_not_copied(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    data = Dataset.from_list([{"a": 1}, {"a": 2}])
    with pytest.raises(RunError, match=r"a\.jsonl: its 2 rows do not stand one a line.*give --output FILE\.parquet"):
        check_copied(str(path), data, tmp_path / "out.jsonl")
    check_copied(str(path), data, tmp_path / "out.parquet")
