"""At the end of a run a line for every kind that was in it: what people do, the oracle, the figures before and after."""

import pytest
from kinds import FIELD, told


def pytest_terminal_summary(terminalreporter):
    reports = (r for found in terminalreporter.stats.values() for r in found if isinstance(r, pytest.TestReport))
    paths = sorted({FIELD / r.fspath.rpartition("/")[2] for r in reports if "tests/field/" in r.fspath})
    if paths:
        terminalreporter.section("what people do | oracle | before | after")
    for path in paths:
        terminalreporter.write_line(" | ".join(told(path) or [path.name, "docstring of another form"]))
