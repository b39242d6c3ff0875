"""What W&B has in a run's summary, read back from an offline run's own file."""

import pytest
from recorded import recorded
from tracker_records import read_wandb

from alignguard.trackers.find import find_trackers
from alignguard.verdicts.watch import Watch

wandb = pytest.importorskip("wandb", reason="wandb is not installed")


def test_the_summary_has_no_figure_that_the_last_audit_lacks(tmp_path, monkeypatch):
    """Of toxicity nothing can be judged at the last: the figure of the audit before stayed there as if it were the last."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    record = recorded(tmp_path / "run")
    run = wandb.init(project="p", mode="offline", dir=str(tmp_path))
    args = type("Arguments", (), {"report_to": ["wandb"], "run_name": "a", "output_dir": "b"})
    (tracker,) = find_trackers(args)
    watch = Watch(record.baseline, record.about.stop_rule, 1, 8)
    for number, audit in enumerate(record.audits, start=1):
        tracker.log(audit, record.audits[:number], watch.look(audit))
    run.finish()
    summary, last = read_wandb(tmp_path).more["summary"], record.audits[-1]
    for name in ("toxicity/score", "toxicity/drop"):
        assert record.audits[-2].figure(name) is not None and last.figure(name) is None
        assert f"alignguard/{name}" not in summary
    assert summary["alignguard/safety/drop"] == last.figure("safety/drop")
    assert summary["alignguard/toxicity/worst_drop"] == 0.25
