"""`make reliability`: sections are run by name, and those that were not keep what is on file."""

import json
import sys
from types import ModuleType

import common
import pytest
import reliability
from reliability_found import Found, row


@pytest.fixture
def sections(monkeypatch, tmp_path):
    """Two sections that find what they are told to."""
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(reliability, "SECTIONS", ("one", "two"))
    found = {"one": Found([row("a", 3, 3)], {"faults": 3}), "two": Found([row("b", 2, 1, 1)], {"killed": 2})}
    for name in found:
        module = ModuleType(f"reliability_{name}")
        module.run = lambda quick, name=name: found[name]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return found, tmp_path / "reliability.json"


def ran(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reliability.py", *arguments])
    return reliability.main()


def test_a_section_that_was_not_run_keeps_what_is_on_file(sections, monkeypatch, capsys):
    found, path = sections
    assert ran(monkeypatch) == 0
    told = json.loads(path.read_text())
    assert (told["faults"], told["killed"], [*told["sections"]]) == (3, 2, ["one", "two"])
    found["one"] = Found([row("a", 5, 4, 1)], {"faults": 5}, ["a was lost"])
    assert ran(monkeypatch, "one") == 1
    out, err = capsys.readouterr()
    assert err == "does not hold: a was lost\n" and out.splitlines()[-2].split() == [
        "fault",
        "injected",
        "seen",
        "lost",
        "recovered",
    ]
    told = json.loads(path.read_text())
    assert (told["faults"], told["killed"]) == (5, 2) and told["sections"]["two"]["rows"] == [row("b", 2, 1, 1)]
    ran(monkeypatch, "--quick", "two")
    assert json.loads((path.parent / "quick" / "reliability.json").read_text())["killed"] == 2
    assert json.loads(path.read_text()) == told


def test_a_section_that_is_none_is_told_of(sections, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        ran(monkeypatch, "three")
    assert "no section 'three'; there are one, two" in capsys.readouterr().err
