"""What models, probes and records say is text wherever it is shown; all of it is tried by `benchmarks/reliability.py hostile`."""

import pytest
from reliability_browser import CHROMIUM, DRIVER, browser
from reliability_hostile import look
from reliability_injections import FIELDS, INJECTIONS, hostile, mark

from alignguard.text import defused, in_a_line, visible, visible_json


def test_no_injection_acts_in_a_terminal_a_table_or_a_file(tmp_path):
    found = look(list(INJECTIONS)[::7], None, tmp_path)
    assert found.wrong == []
    assert found.figures["injections"] == found.figures["escaped"] > 500


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
def test_no_injection_acts_in_a_browser(tmp_path):
    with browser() as driver:
        found = look(list(INJECTIONS)[3::8], driver, tmp_path)
    assert found.wrong == []
    assert found.figures["injections"] == found.figures["escaped"] > 800
    control = found.rows[-1]
    assert control["fault"].startswith("control") and control["seen"] >= 3  # what is not escaped does act, and is seen


def test_every_field_has_a_mark_of_its_own():
    marks = [mark(field) for field in FIELDS]
    assert len({*marks}) == len(marks) and not [a for a in marks for b in marks if a != b and a in b]
    about, audits, _, _ = hostile("x")
    assert mark("title") in about.title and len(audits) == 4


def test_what_would_act_in_a_terminal_is_seen_there():
    assert visible("a\x1b[31mb\x9bc\u202ed\te\nf") == "a\\x1b[31mb\\x9bc\\u202ed\te\nf"
    assert visible("a\r\x08b\u200bc\u2028d\ud800") == "a\\r\\x08b\\u200bc\\u2028d?"
    assert (
        visible("zwj \U0001f469\u200d\U0001f4bb, naïve, 日本, عربى")
        == "zwj \U0001f469\u200d\U0001f4bb, naïve, 日本, عربى"
    )
    assert in_a_line("a\n\n b\x85c\tx") == "a b c x"


def test_json_for_a_terminal_is_the_same_json():
    import json

    said = {"a\x9b": "b\u202e\U000e0041", "plain": "日本"}
    text = visible_json(json.dumps(said, ensure_ascii=False))
    assert json.loads(text) == said and "\x9b" not in text and "\u202e" not in text and "日本" in text


@pytest.mark.parametrize("cell", ["=1+1", "+1+1", "-1+cmd|x", "@SUM(1)", "\t=1", "\r=1", "  =1", "＝1+1", "- a list"])
def test_a_cell_that_would_be_a_formula_is_text(cell):
    assert defused(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-5", "+3.5", "-1,234.5e-3", "-12 %", "a=1", "kind words", "", "日本"])
def test_a_cell_that_is_none_stays_as_it_is(cell):
    assert defused(cell) == cell
