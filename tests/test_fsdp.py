import pytest
from processes import end, found, start

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", ["fully_shard", "FullyShardedDataParallel", "flat"])
def test_a_model_sharded_by_fsdp_is_audited_as_a_whole_one(way, tmp_path):
    """Figures, answers and a cached start as on one process; each asks its share, in as many decode steps as the other."""
    end(start("whole", tmp_path / "one", 1, "fsdp_run.py"))
    end(start(way, tmp_path / "two", 2, "fsdp_run.py"))
    one = found(tmp_path / "one")
    assert one["metrics"]["alignguard/kl/raw"] > 1e-3
    both = [found(tmp_path / "two", rank) for rank in (0, 1)]
    assert max(sum(two["steps"]) for two in both) < 0.8 * sum(one["steps"])  # rows, over all steps
    for two in both:
        for part in ("metrics", "cached", "run"):
            assert one[part].keys() == two[part].keys()
            for key, value in one[part].items():
                if "/cost/seconds" not in key:
                    assert two[part][key] == pytest.approx(value, rel=1e-4, abs=1e-6), (part, key)
        for id, said in one["said"].items():
            assert two["said"][id] == pytest.approx(said, rel=1e-4), id
    assert list(one["run"]) == ["0", "2", "4"] and one["run"]["4"] > 1e-3
    assert one["cached"]["alignguard/kl/answer"] == pytest.approx(one["metrics"]["alignguard/kl/answer"], rel=1e-4)
