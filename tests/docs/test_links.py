"""Every relative link of a page leads somewhere; nothing is asked of a network."""

import re
import subprocess
import sys

import pytest
from pages import PAGES, anchors, links
from places import ROOT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for link in links(text):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), f"{link}: there is no such file"
        if anchor:
            there = target.read_text("utf-8")
            for included in re.findall(r'^--8<-- "(.+)"$', there, re.M):  # a page of the site that shows a file
                there += (ROOT / included).read_text("utf-8")
            assert anchor in anchors(there), f"{link}: there is no such heading"


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the site's packages are not installed: make docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api" / "index.html").read_text("utf-8")
    assert 'id="alignguard.StopRule"' in page
    assert "*optional*" not in page and "defaults to" not in page  # TRL's form is read, not shown
