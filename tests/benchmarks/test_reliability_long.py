"""What `make reliability SECTION=long` finds wrong, told by marks that are made up; and a short run that has them."""

import pytest
from reliability_long import first_screen, judge, long_run

PARTS = {"the store": 0.01, "the report": 0.05}
FLAT = {"memory": 500.0, "open files": 20, "threads": 9}


def marks(**grows):
    """Ten looks at a run that is as planned, but for what grows with the square of audits."""
    found = []
    for audits in range(50, 501, 50):
        mark = {
            "audits": audits,
            **FLAT,
            "an audit": 0.2 * audits,
            "on the clock": 0.3 * audits,
            "written": 0.5 * audits,
            "size of report": 0.004 * audits,
        }
        mark |= {name: each * audits for name, each in PARTS.items()} | {"size of W&B": 0.1 * audits}
        found.append({name: value + grows.get(name, 0.0) * audits**2 for name, value in mark.items()})
    return found


def test_a_run_as_planned_has_nothing_wrong():
    found = judge(marks(), drawn=0.3)
    assert found.wrong == [] and all(row["lost"] == 0 for row in found.rows)
    assert found.figures["long_audits"] == 500 and found.figures["long_seconds_ratio"] == pytest.approx(1.0)
    assert judge(marks(), drawn=None).figures["long_first_screen_s"] is None


@pytest.mark.parametrize("name", ["memory", "open files", "threads", "an audit", "the store", "written", "size of W&B"])
def test_what_grows_with_the_square_of_audits_is_told(name):
    found = judge(marks(**{name: 0.01}), drawn=0.3)
    assert len(found.wrong) == 1 and name in found.wrong[0]


def test_a_report_that_opens_late_is_told():
    (wrong,) = judge(marks(), drawn=1.2).wrong
    assert wrong == "report: first screen after 1.20 s"


@pytest.mark.slow
def test_a_run_leaves_ten_marks(tmp_path):
    found = long_run(tmp_path, 10, trackers=["tensorboard"])
    assert [mark["audits"] for mark in found] == [*range(1, 11)]
    assert {"the store", "the report", "TensorBoard", "an audit", "written", "memory"} < found[-1].keys()
    assert found[-1]["size of report"] > 0 and found[-1]["size of TensorBoard"] > 0 and found[-1]["size of W&B"] == 0
    judge(found, None)


@pytest.mark.slow
def test_the_first_screen_is_timed(tmp_path):
    from reliability_browser import browser

    (tmp_path / "page.html").write_text("<!doctype html><title>x</title><p>Hello")
    with browser() as driver:
        if driver is None:
            pytest.skip("needs chromium and chromedriver")
        assert 0 < first_screen(driver, tmp_path / "page.html") < 10
