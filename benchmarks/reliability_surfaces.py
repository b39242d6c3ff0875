"""Where texts of others are shown: pages for a browser, text for a terminal, cells for a spreadsheet, and files of other formats."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from reliability_injections import hostile, marked

from alignguard.cli import compare
from alignguard.export.inspect_log import inspect_log
from alignguard.export.lm_eval_results import lm_eval_results
from alignguard.records.record import Record
from alignguard.records.store import Store
from alignguard.report import several
from alignguard.report.alarm import alarms
from alignguard.report.card import TrustCard, flat
from alignguard.report.card import shown as named
from alignguard.report.html import render
from alignguard.report.markdown import section
from alignguard.report.model_card import front_matter
from alignguard.report.picture import picture
from alignguard.report.terminal import dumps, format_table, summary, tables
from alignguard.text import visible
from alignguard.trackers.tables import answers, flips

CSP = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
# what acts in a terminal, or hides there
ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r]")


@dataclass(frozen=True)
class Shown:
    """
    What one injection became, wherever it is shown.

    Args:
        pages (`dict[str, str]`):
            Of each page its source, for a browser; one that begins with `<svg` is a picture.
        wrong (`dict[str, str]`):
            Of each other surface what is wrong there; empty where nothing is.
        texts (`dict[str, str]`):
            Of each other surface what stands there.
    """

    pages: dict[str, str]
    texts: dict[str, str]
    wrong: dict[str, str]


def shown(injection: str) -> Shown:
    """An injection in every field, on every surface."""
    about, audits, verdict, baseline = hostile(injection)
    say = marked(injection)
    record = Record(say("path"), Store("x"), about, baseline, audits, verdict, say("note"))
    other = Record(f"{say('path')}2", Store("y"), about, baseline, audits, verdict)
    put_back = TrustCard(named(say("model")), about, audits, verdict)
    card = replace(put_back, about=replace(about, put_back=""))
    bare = render(type(about)(**{**vars(about), "quote": False}), audits, verdict)
    pages = {
        "report": render(about, audits, verdict),
        "report without quotes": bare,
        "runs compared": compare._page([record, other], [say("warning")]),
        "several models": several.page([record, other], {say("model"): say("failed")}),
        "trust card": _markdown(section(card)),
        "trust card of weights put back": _markdown(section(put_back)),
        "trust card's picture": picture(card),
    }
    texts, wrong = {}, {}
    alarm = "\n".join(text for _, _, text, _ in alarms(verdict, "nowhere", True))
    for name, text in {
        "table of an audit": format_table(audits[-1], verdict),
        "table of a record": tables(record),
        "table of several": several.tables_of([record, other], {say("model"): say("failed")}),
        "alarm": visible(alarm),
    }.items():
        texts[name], wrong[name] = text, f"{ACTS.search(text)!r}" if ACTS.search(text) else ""
    for name, told in {
        "summary as JSON": summary(record),
        "card as JSON": flat(card),
        "card of weights put back as JSON": flat(put_back),
        "log for Inspect": inspect_log(record, audits[-1], True),
        "results for lm-eval": lm_eval_results(record, audits[-1], {}),
    }.items():
        texts[name] = dumps(told)
        wrong[name] = "" if not ACTS.search(texts[name]) and isinstance(json.loads(texts[name]), dict) else "it acts"
    texts["metadata as YAML"] = front_matter(card)
    read = yaml.safe_load(texts["metadata as YAML"].strip().strip("-"))
    wrong["metadata as YAML"] = "" if list(read) == ["model-index"] else f"keys {list(read)}"
    for name, table in {"flips": flips(verdict, True), "answers": answers(audits[-1], True)}.items():
        cells = [cell for row in table.rows for cell in row if isinstance(cell, str)]
        texts[f"tracker's table of {name}"] = "\n".join(cells)
        wrong[f"tracker's table of {name}"] = next((repr(cell) for cell in cells if FORMULA.match(cell)), "")
    return Shown(pages, texts, wrong)


def _markdown(text: str) -> str:
    """As GitHub and the hub show it, before they take anything away: raw HTML is let through."""
    return f"<!doctype html><meta charset=utf-8><title>card</title>{MarkdownIt('gfm-like', {'linkify': False}).render(text)}"


def names_of_files(injection: str, folder: Path) -> list[str]:
    """What would be written outside of a folder, where a model is named by an injection."""
    about, audits, verdict, baseline = hostile(injection)
    record = Record("x", Store("x"), about, baseline, audits, verdict)
    results: dict[str, Any] = lm_eval_results(record, audits[-1], {})
    there = folder / results["model_name_sanitized"]
    return [] if not ACTS.search(there.name) and there.resolve().parent == folder.resolve() else [str(there)]
