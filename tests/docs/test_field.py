"""Each kind that people bring tells of itself in one form, of which `python -m pytest tests/field` prints a table; pages quote errors as they are."""

import re

import pytest
from kinds import FIELD, told
from places import ROOT


@pytest.mark.parametrize("path", sorted(FIELD.glob("test_*.py")), ids=lambda path: path.stem)
def test_a_kind_tells_what_people_do_and_figures_before_and_after(path):
    cells = told(path)
    assert cells and cells[0].startswith("People ") and all(cells)
    assert not any("\n" in cell or " | " in cell for cell in cells)


def quoted(page):
    """The errors in the tables of a page, by the words between what is filled in."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for table in re.findall(r"\| what \| the error \|\n(?:\|.*\n)+", text):
        for row in table.splitlines()[2:]:
            yield re.search(r"\| `([^`]+)` \|$", row)[1]


@pytest.mark.parametrize("page", ["trainers.md", "scaling.md"])
def test_errors_are_quoted_as_they_are_raised(page):
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "alignguard").rglob("*.py"))
    said = re.sub(r'["\']\n\s+f?["\']', "", source).replace("\\'", "'")
    errors = list(quoted(page))
    assert len(errors) > 5
    for error in errors:
        for words in re.split(r"\.\.\.(?=[\s)])", error):
            assert words.strip() in said, error
