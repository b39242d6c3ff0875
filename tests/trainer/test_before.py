"""Whether a training set is the one on record: every row on record tells, and few are read where nothing was done to it."""

import json
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import default_data_collator

from alignguard.records.rows import RowStore
from alignguard.trainer.before import are_as_before, differs_by_process, fingerprint_of
from alignguard.trainer.learnt import Reader

N = 200


def table(n=N, edited=()):
    rows = ([i + 1000 * (i in edited), 7, 8, 9] for i in range(n))
    return Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in rows])


def reader(data, collate=default_data_collator):
    return Reader(SimpleNamespace(dataset=data, collate_fn=collate), None)


@pytest.fixture
def store(tmp_path):
    """Of a run that was trained on three rows in four."""
    store = RowStore(tmp_path / "rows")
    store.begin(N, fingerprint=fingerprint_of(table()))
    places = [i for i in range(N) if i % 4]
    for part in (places[75:], places[:75]):  # several files, and not in order
        store.add([(1, part)], reader(table()).read(part))
    return store


@pytest.mark.parametrize("row", [1, 2, 3, 101, 149, 199])
def test_one_row_that_was_edited_is_noticed(store, row):
    data = table(edited=[row])
    assert not are_as_before(store, data, reader(data))


def test_a_row_that_nothing_is_on_record_of_may_be_another(store):
    data = table(edited=[4, 100])
    assert are_as_before(store, data, reader(data))


@pytest.mark.parametrize("n", [N - 1, N + 1])
def test_a_set_of_another_length_is_another(store, n):
    assert not are_as_before(store, table(n), reader(table(n)))
    unread = reader(table(n), None)  # its rows are known by order alone
    unread.unread = "its loss is another"
    assert not are_as_before(store, table(n), unread)


def test_a_row_that_was_taken_out_is_noticed_where_no_length_is_on_record(store):
    told = json.loads((store.folder / "about.json").read_text())
    for name in ("rows", "fingerprint"):
        del told[name]
    (store.folder / "about.json").write_text(json.dumps(told))
    data = table().select([i for i in range(N) if i != 197])
    assert not are_as_before(store, data, reader(data)) and are_as_before(store, table(), reader(table()))


@pytest.mark.parametrize(("known", "most"), [(True, 18), (False, 150)])
def test_as_few_rows_are_read_as_tell_it(store, known, most):
    read = []
    data = table() if known else Dataset.from_list([*table().to_list(), {"input_ids": [1], "labels": [1]}])
    data = data if known else data.select(range(N))
    assert (fingerprint_of(data) == store.fingerprint) is known
    reading = reader(data)
    reading.read = lambda rows, plain=reading.read: (read.extend(rows), plain(rows))[1]
    assert are_as_before(store, data, reading)
    assert (16 if known else 150) <= len(read) <= most


def test_a_collator_that_cuts_otherwise_is_noticed_though_the_set_is_the_same(store):
    def cut(examples):
        return default_data_collator([{key: ids[:3] for key, ids in row.items()} for row in examples])

    assert not are_as_before(store, table(), reader(table(), cut))


def test_streams_and_runs_without_a_record_are_taken_as_they_are(tmp_path):
    store, data = RowStore(tmp_path / "none"), table()
    assert are_as_before(store, data, reader(data))
    stream = data.to_iterable_dataset()
    store.begin(None)
    store.add([(1, [0, 1])], [])
    assert are_as_before(store, stream, reader(stream))


class Two:
    """Two processes: what this one finds, and what the other did."""

    size = 2

    def __init__(self, other):
        self.other = other

    def together(self, do):
        return [self.other, do()]


def test_processes_that_hold_the_rows_in_other_orders_are_told_apart():
    """As after `shuffle()` without a seed, which no trainer minds: a row's number is then another row on each."""

    def rows(data):
        found = []
        differs_by_process(
            data, reader(data), type("One", (), {"together": lambda self, do: found.append(do()) or found})()
        )
        return found[0]

    data, others = table(), [table(edited=[0]), table().shuffle(seed=1), table(N - 1), table(0)]
    assert len(rows(data)[1]) >= 16
    assert differs_by_process(data, reader(data), Two(rows(table()))) == ""
    for other in others:
        assert "other rows under one number" in differs_by_process(data, reader(data), Two(rows(other)))
    drawn = reader(data, collate=lambda rows: default_data_collator(rows) | {"input_ids": torch.randint(9, (1, 4))})
    assert differs_by_process(data, drawn, Two((N, []))) == ""  # on neither can rows be read
