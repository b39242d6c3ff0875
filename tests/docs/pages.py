"""The pages that people read, and what stands in them as code."""

import re
from dataclasses import dataclass

from places import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
        ROOT / "recipes" / "README.md",
        ROOT / "alignguard" / "probes" / "README.md",
        *(ROOT / "docs").glob("*.md"),
    ]
)
_FENCE = re.compile(r"(?:<!-- not run: (?P<why>[^\n]+) -->\n+)?^ *```(?P<kind>\w*)\n(?P<code>.*?)^ *```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A block of code, where it first stands."""

    where: str
    kind: str
    code: str
    not_run: str


def blocks(kind):
    """Every block of a kind, each once however often it is shown."""
    found = {}
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in _FENCE.finditer(text):
            if match["kind"] == kind:
                line = text.count("\n", 0, match.start("code"))
                where = f"{page.relative_to(ROOT)}:{line}"
                found.setdefault(match["code"], Block(where, kind, match["code"], match["why"] or ""))
    return list(found.values())


def spans():
    """Whatever stands in code, by page: spans, lines of blocks, and lines that are indented as code."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        name = str(page.relative_to(ROOT))
        for match in _FENCE.finditer(text):
            found += [(name, line.strip()) for line in match["code"].splitlines()]
        rest = _FENCE.sub("", text)
        # an indented block follows an empty line; in a list it is text
        for block in re.findall(r"(?<=\n\n)(?: {4}(?![-*\d] ).*\n)+", rest):
            found += [(name, line.strip()) for line in block.splitlines()]
        found += [(name, " ".join(span.split())) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", rest)]
    return sorted({(name, code) for name, code in found if code})


def anchors(text):
    """What of a page can be linked to: its headings, as GitHub and mkdocs name them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.casefold()).strip().replace(" ", "-") for heading in headings}


def links(text):
    """Where a page links to, pictures among them; nothing that stands in code."""
    plain = re.sub(r"(?<!`)`[^`]+`(?!`)", "", _FENCE.sub("", text))
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", plain)
