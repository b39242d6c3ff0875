"""Section `hostile` of `reliability.py`: injections through every field of everything that is shown, none of which may act.

An injection counts once for each field and surface that it reaches. It is escaped where its field stands there as text, and where the
surface as a whole ran nothing, asked for nothing, has no tag or attribute that harmless words do not give it, and nothing that acts in
a terminal or a spreadsheet. Pages are opened without their Content-Security-Policy, which would hide a mistake; that it is there, is
asked apart. A control opens the same injections unescaped: most of them act, so the browser would tell.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from reliability_browser import browser, seen
from reliability_found import Found, row
from reliability_injections import FIELDS, INJECTIONS, mark
from reliability_surfaces import CSP, Shown, names_of_files, shown

_ALONE = {
    "trust card",
    "trust card of weights put back",
    "trust card's picture",
}  # shown by others, or where no policy can be


def run(quick: bool) -> Found:
    """Try all of them; `quick`: a few of each sort."""
    names = list(INJECTIONS)[:: 6 if quick else 1]
    with browser() as driver, tempfile.TemporaryDirectory() as folder:
        return look(names, driver, Path(folder))


def look(names: list[str], driver: Any, folder: Path) -> Found:
    """
    Try some injections.

    Args:
        names (`list[str]`):
            Which of `INJECTIONS`.
        driver (`webdriver.Chrome`, *optional*):
            For the pages, which are left out without one.
        folder (`Path`):
            Where pages may be written.
    """
    reached: Counter[str] = Counter()
    escaped: Counter[str] = Counter()
    wrong, acted = [], 0
    harmless = shown("harmless words").pages if driver else {}
    plain = {name: seen(driver, page, folder)[1] for name, page in harmless.items() if page}
    for name in names:
        injection = INJECTIONS[name]
        told = shown(injection)
        found = _texts(told, names_of_files(injection, folder))
        found += _opened(told, driver, plain, folder) if driver else []
        for surface, text, why in found:
            fields = _marks(text)
            reached[surface] += fields
            escaped[surface] += fields * (not why)
            wrong += [f"{name}, {surface}: {why}"] if why else []
        acted += bool(driver) and bool(seen(driver, _raw(injection), folder)[0])
    rows = [row(name, count, escaped[name], count - escaped[name], escaped[name]) for name, count in reached.items()]
    if driver:
        rows.append(row("control: unescaped, what acts", len(names), acted))
        wrong += [] if acted else ["the control: nothing acted, so the browser tells nothing"]
    return Found(rows, {"injections": reached.total(), "escaped": escaped.total()}, wrong)


def _texts(told: Shown, outside: list[str]) -> list[tuple[str, str, str]]:
    """Of each surface that is no page its name, what stands there, and what is wrong."""
    found = [(name, text, told.wrong[name]) for name, text in told.texts.items()]
    return [*found, ("names of files", mark("model"), f"outside of its folder: {outside[0]!r}" if outside else "")]


def _opened(told: Shown, driver: Any, plain: dict[str, set[str]], folder: Path) -> list[tuple[str, str, str]]:
    """The same of the pages."""
    found = []
    for name, page in told.pages.items():
        if not page:
            continue  # nothing to draw
        acts, tags, loose, text = seen(driver, page.replace(CSP, ""), folder)
        why = ", ".join([*acts, *sorted(tags - plain[name]), *loose])[:200]
        if _marks(page) != _marks(text):
            why = why or "a field does not stand there as text"
        if name not in _ALONE and page.count(CSP) != 1:
            why = why or "no strict policy"
        found.append((name, page, why))
    return found


def _marks(text: str) -> int:
    """How many fields stand in a text."""
    return sum(mark(field) in text for field in FIELDS)


def _raw(injection: str) -> str:
    """A page that escapes nothing."""
    title = f'<!doctype html><meta charset=utf-8><title>x</title><p title="{injection}">x</p>'
    return f"{title}<p title='{injection}'>{injection}</p>"
