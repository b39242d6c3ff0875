"""The sections that kill runs and plant faults in them: a share of each, and that their oracles see what is wrong."""

from dataclasses import replace

import pytest
import reliability_faults
import reliability_kills
import reliability_run as runs
from reliability_plants import FAULTS

pytestmark = pytest.mark.slow


def test_killed_runs_end_as_one_that_nothing_befell(tmp_path):
    whole, calls = reliability_kills._never_killed(tmp_path / "whole")
    assert calls[0] > 1000 and calls[1] > calls[0]
    found = reliability_kills._killed(tmp_path, whole, calls, 2)
    assert found.wrong == [] and found.figures["killed"] >= 2 and found.figures["lost"] == 0
    moved = {**whole, "weights": "others"}
    assert runs.differs(whole, moved) == ["weights"] and runs.differs(whole, whole) == []
    line = whole["audits.jsonl"][1]
    for change in ({"step": 7}, {"scores": {}}, {"metrics": {**line["metrics"], "alignguard/kl/raw": 0.5}}):
        other = {**whole, "audits.jsonl": [whole["audits.jsonl"][0], {**line, **change}, *whole["audits.jsonl"][2:]]}
        assert runs.differs(other, whole) == ["audits.jsonl"]
    assert runs.differs({**whole, "audits.jsonl": whole["audits.jsonl"][:-1]}, whole) == ["audits.jsonl"]


def test_runs_with_a_fault_end_as_they_would_have(tmp_path, monkeypatch):
    names = ["a tracker hangs", "SIGINT in an audit", "weights are NaN"]
    found = reliability_faults.plant(names, tmp_path)
    assert found.wrong == [] and found.figures == {"faults": 3, "survived": 3}
    name = "a scorer gives None"
    for change, why in (
        ({"told": ()}, "told of {'a scorer': 1}"),
        ({"audits": (0, 1)}, "audits of steps [0, 1, 4, 5, 8], not [0, 1]"),
        ({"unscored": "stereotype"}, "which nobody judged"),
        ({"says": ("a word",)}, "it is not told that 'a word'"),
    ):
        monkeypatch.setitem(reliability_faults.FAULTS, name, replace(FAULTS[name], **change))
        (wrong,) = reliability_faults.plant([name], tmp_path).wrong
        assert why in wrong
        monkeypatch.undo()
