import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from types import SimpleNamespace

import pytest
from reports import HOSTILE, judged, run_of
from tiny import tiny_probes

from alignguard.records.about import About
from alignguard.records.record import Record
from alignguard.records.store import Store
from alignguard.report.html import render
from alignguard.report.page import fill, templates
from alignguard.report.several import page
from alignguard.report.svg import Mark, Series, curves, path
from alignguard.report.traced import sections
from alignguard.tracing.found import ByColumn, Trace, TracedRow
from alignguard.tracing.named import Shares

ROOM = files("alignguard.report")


def report(quote):
    """A run of which everything that others name, ask or say is hostile."""
    asked = ({"role": HOSTILE, "content": HOSTILE},)
    words = {"group": HOSTILE, "condition": HOSTILE, "messages": asked}
    probes = [
        replace(p, id=p.id + HOSTILE, options=tuple(o + HOSTILE for o in p.options), **words) for p in tiny_probes()
    ]
    audits, verdict = run_of({0: 1.0, 5: 0.0}, "kind " + HOSTILE, HOSTILE, probes, HOSTILE)
    told = dict.fromkeys(("model", "title", "against", "rule", "judge", "toxicity", "budget"), HOSTILE)
    return render(About(max_steps=5, quote=quote, **told), audits, replace(verdict, warnings=(HOSTILE,)))


def compared():
    rows, style = [[HOSTILE, ""], [HOSTILE, HOSTILE]], '"><script>'
    drawn = {"steps": [HOSTILE], "planes": [HOSTILE]}  # a figure that is no markup is text
    return fill(
        "compare.html.jinja", title=HOSTILE, keys=[(HOSTILE, style)], warnings=[HOSTILE], runs=rows, drops=rows, **drawn
    )


def several():
    """Models that have hostile names, and one that could not be audited."""
    records = []
    for name in (HOSTILE, "other" + HOSTILE):
        audits, verdict = run_of({5: 0.0})
        baseline = judged(1.0, "kind")
        about = About(model=name, against=HOSTILE)
        records.append(Record(name, Store("x"), about, baseline, audits, replace(verdict, warnings=(HOSTILE,))))
    return page(records, {HOSTILE: HOSTILE})


def drawn():
    series = [Series(HOSTILE, [(0, 1.0)], band=[(0, 0.0, 1.0)]), Series(HOSTILE, [(0, 1.0)])]
    marked = curves(HOSTILE, series, HOSTILE, HOSTILE, marks=[Mark(0, HOSTILE)])
    return marked + path(HOSTILE, [(0, 1.0, HOSTILE), (1, 1.0, "end")], HOSTILE, HOSTILE)


def pictured():
    """A picture whose figures, titles and keys are hostile; a figure that is no markup is text."""
    panel = SimpleNamespace(x=0, y=0, title=HOSTILE, drawn=HOSTILE, keys=[(HOSTILE, '"><script>')])
    sizes = dict.fromkeys(("width", "height", "head", "line", "high"), 10)
    return fill("picture.svg.jinja", colours="", panels=[panel], **sizes)


def traced():
    """A trace of rows, a column and a side that are hostile."""
    row = TracedRow(1, 0, (1,), 1.0, 9.0, 8.0, 2.0, 3, text=HOSTILE)
    by = [ByColumn(HOSTILE, [(HOSTILE, 1, 1, 1.0)])]
    found = Trace(HOSTILE, 0, 1, 3, 0, [row], 1, 0.9, Shares(1, 1, 1), 0, 0, 0, HOSTILE, 0.25, 1.0, by=by)
    return fill("traced.html.jinja", traced=sections([found], quote=True))


# template -> what it makes of hostile words, and how often they stand there as text, at least
FILLED = {
    "page.html.jinja": (lambda: fill("page.html.jinja", title=HOSTILE), 1),
    "report.html.jinja": (lambda: report(quote=False), 20),
    "flips.html.jinja": (lambda: report(quote=True), 100),
    "compare.html.jinja": (compared, 11),
    "several.html.jinja": (several, 40),
    "traced.html.jinja": (traced, 4),
    "parts.html.jinja": (lambda: templates.get_template("parts.html.jinja").module.grid([HOSTILE, HOSTILE]), 2),
    "figure.svg.jinja": (drawn, 14),
    "picture.svg.jinja": (pictured, 3),
}


class Parsed(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", templates.list_templates())
def test_every_template_escapes_what_it_is_given_once(name):
    make, least = FILLED[name]
    parsed = Parsed(make())
    assert not parsed.tags & {"script", "a", "img"} and not parsed.attributes & {"href", "src", "onerror"}
    assert parsed.text.count(HOSTILE) >= least and "&lt;" not in parsed.text and "&amp;" not in parsed.text


@pytest.mark.parametrize("name", templates.list_templates())
def test_no_template_goes_around_the_escaping(name):
    source = ROOM.joinpath("templates", name).read_text(encoding="utf-8")
    assert templates.autoescape is True
    assert not re.search(r"\|\s*safe|autoescape|Markup|__html__", source)
    assert not re.search(r"=\s*{{", source)  # an attribute without quotes ends at a space
    assert set(re.findall(r"</?{{ (\w+) }}", source)) <= set(re.findall(r'{% set (\w+) = "th" if', source))


def test_only_our_own_words_are_called_markup():
    for file in (*ROOM.iterdir(), files("alignguard.cli").joinpath("compare.py")):
        if file.name.endswith(".py"):
            for called in re.findall(r"\bMarkup\((.{0,6})", file.read_text(encoding="utf-8")):
                assert called.startswith((")", '"', "fill(", "files(", "Elemen")), file.name  # our own, taken apart


def test_a_name_that_is_missing_is_a_mistake():
    with pytest.raises(Exception, match="'title' is undefined"):
        fill("page.html.jinja")


def test_a_page_runs_and_loads_nothing():
    html = fill("page.html.jinja", title="<title>")
    assert html.startswith("<!doctype html>") and "<title>&lt;title&gt;</title>" in html and "<main>\n</main>" in html
    assert "default-src 'none'" in html and "url(" not in html and "@import" not in html
    assert f"<style>\n{ROOM.joinpath('style.css').read_text(encoding='utf-8')}</style>" in html


def test_templates_and_style_are_part_of_the_package():
    assert ROOM.joinpath("style.css").is_file()
    there = {file.name for file in ROOM.joinpath("templates").iterdir()}
    assert there == set(templates.list_templates()) == FILLED.keys()
