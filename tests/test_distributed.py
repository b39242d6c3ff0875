"""Several processes over gloo: figures equal one process's, one writes, and a failure is everyone's."""

import json

import numpy as np
import pytest
from processes import RUNS, assert_same, end, found, start

from alignguard import StartError
from alignguard.distributed import Ranks
from alignguard.records.record import read_record
from alignguard.records.rows import RowStore

pytestmark = pytest.mark.slow


def rows_of(folder):
    """Which rows are on record as having gone into which steps."""
    return RowStore(folder / "_alignguard" / "rows").rows(0, 100)


def test_shares_give_the_figures_of_one_process_and_only_the_first_writes(tmp_path):
    """Seven probes on two and on three processes; and on two with a cached start, of which each keeps its part."""
    for size in (1, 2, 3):
        end(start("train", tmp_path / str(size), size))
    end(start("cache", tmp_path / "cache", 2))
    one, rows = found(tmp_path / "1"), rows_of(tmp_path / "1" / "0")
    assert {step for steps in rows.values() for step in steps} == {1, 2} and len(rows) == 12
    for size in (2, 3):
        assert rows_of(tmp_path / str(size) / "0") == rows  # losses tell that they are the same
        for rank in range(size):
            assert_same(one, found(tmp_path / str(size), rank))
            assert (tmp_path / str(size) / str(rank) / "alignguard").exists() == (rank == 0)
    cached = found(tmp_path / "cache", 1)
    for metrics in one["metrics"].values():
        del metrics["alignguard/kl/reverse"]  # a cache cannot be asked that
    assert_same(one, cached)
    record, texts = tmp_path / "cache" / "alignguard", tmp_path / "cache" / "_alignguard"
    assert sorted(p.name for p in texts.glob("reference*")) == [
        "reference-00001-of-00002.safetensors",
        "reference-00002-of-00002.safetensors",
    ]
    lines = (record / "audits.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


def test_completions_of_all_processes_are_kept(tmp_path):
    end(start("", tmp_path, 2, "spoken_run.py"))
    given = [found(tmp_path, rank) for rank in (0, 1)]
    store = RowStore(tmp_path / "_alignguard" / "said")
    where = store.rows(0, 3)
    texts = {text.row: text for text in store.texts(set(where))}
    for step in (1, 2, 3):
        right = sorted((said, round(weight, 4)) for own in given for said, weight in own[str(step)])
        kept = [texts[row] for row, steps in where.items() if step in steps]
        said = [(text.ids[np.asarray(text.learnt, dtype=bool)].tolist(), round(text.weight, 4)) for text in kept]
        assert len(right) == 16 and sorted(said) == right


def test_a_drift_budget_moves_the_weights_as_on_one_process(tmp_path):
    """Three anchors a step, on one process and shared by two; and the penalty does move them."""
    runs = {name: start(mode, tmp_path / name, size) for name, mode, size in RUNS}
    for run in runs.values():
        end(run)
    free, one, first, second = (
        found(tmp_path / name, rank) for name, rank in (("free", 0), ("1", 0), ("2", 0), ("2", 1))
    )
    held, moved = np.array(one["weights"]), np.abs(np.array(one["weights"]) - free["weights"]).max()
    assert first["weights"] == second["weights"] and moved > 1e-5
    # DDP itself rounds otherwise; without its share of the mean the penalty would move the weights half as far
    assert np.abs(held - first["weights"]).max() < 0.05 * moved
    for name in ("anchor_kl", "penalty"):
        name = f"alignguard/budget/{name}"
        assert (
            first["metrics"]["3"][name] == pytest.approx(one["metrics"]["3"][name], rel=1e-3)
            and one["metrics"]["3"][name] > 0
        )


def test_a_model_sharded_by_zero3_is_audited_as_a_whole_one(tmp_path):
    pytest.importorskip("deepspeed", reason="make test-deepspeed installs it")
    end(start("cache", tmp_path / "one", 1))
    end(start("zero3", tmp_path / "two", 2))
    for rank in (0, 1):
        assert_same(found(tmp_path / "one"), found(tmp_path / "two", rank))


def test_a_process_that_fails_at_the_start_ends_all_with_its_error(tmp_path):
    text = end(start("fails at the start", tmp_path, 2), code=1)
    assert "OSError: out of luck" in text and "RunError: process 1 of 2 failed with OSError: out of luck" in text


def test_processes_that_begin_with_other_weights_are_an_error(tmp_path):
    text = end(start("differs", tmp_path, 2), code=1)
    assert "process 1 begins with other weights than process 0; set the same seed" in text


def test_a_process_that_fails_later_costs_all_that_audit_and_nothing_else(tmp_path):
    text = end(start("fails later", tmp_path, 2))
    assert "the audit failed and training goes on" in text and "process 1 of 2 failed with OSError: out of luck" in text
    for rank in (0, 1):
        assert list(found(tmp_path, rank)["metrics"]) == ["0", "1"] and len(found(tmp_path, rank)["losses"]) == 2


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_process_that_is_lost_ends_the_run_and_leaves_a_whole_record(tmp_path, how):
    """It would wait for ever otherwise; where it is stopped, for as long as the others are waited for."""
    text = end(start(how, tmp_path, 2), code=1)
    assert how == "killed" or "waited for the others in vain" in text
    assert [audit.step for audit in read_record(str(tmp_path / "0")).audits] == [0, 1]


def test_a_process_that_is_slow_is_waited_for(tmp_path):
    text = end(start("slow", tmp_path, 2))
    assert "failed" not in text and list(found(tmp_path)["metrics"]) == ["0", "1", "2"]


def test_shares_are_whole_and_disjoint():
    parts = [Ranks(rank, 3).mine(range(7)) for rank in range(3)]
    assert sorted(x for part in parts for x in part) == list(range(7)) and {len(part) for part in parts} == {2, 3}
    assert Ranks(1, 3, sharded=True).mine(range(7)) == parts[1]


def test_one_process_alone_meets_nobody():
    with pytest.raises(StartError):
        Ranks().together(lambda: (_ for _ in ()).throw(StartError("as it is")))
    assert Ranks().share([1, 2], lambda part: {n: n * n for n in part}) == {1: 1, 2: 4} and Ranks().first(3) == 3
