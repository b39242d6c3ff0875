"""Pages in a real browser: whether anything ran, was asked for, became markup, or turned round what stands beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# tags, and attributes by tag, of all there is; and text that turns round, whose direction is not kept to itself
_READ = """
const tags = new Set(), loose = [];
for (const e of document.querySelectorAll('*'))
  for (const name of ['', ...e.getAttributeNames()]) tags.add(e.tagName.toLowerCase() + (name && ' ' + name));
const walk = document.createTreeWalker(document.body || document.documentElement, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode;
  if (!/[\\u202a-\\u202e\\u2066-\\u2069]/.test(text.data) || text.parentElement.closest('svg, style')) continue;
  let e = text.parentElement;
  while (getComputedStyle(e).display === 'inline' && getComputedStyle(e).unicodeBidi === 'normal') e = e.parentElement;
  const own = getComputedStyle(e).unicodeBidi.startsWith('isolate') || e.textContent.trim() === text.data.trim();
  if (!own || /AlignGuard|held against|Not audited/.test(text.data)) loose.push(text.data.slice(0, 80));
}
return [window.ran === undefined, [...tags], loose, document.documentElement.textContent];
"""


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; `None` where there is none."""
    if not CHROMIUM or not DRIVER:
        yield None
        return
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.set_capability("unhandledPromptBehavior", "dismiss")
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            driver.set_page_load_timeout(60)
            yield driver
        finally:
            driver.quit()


def seen(driver: Any, source: str, folder: Path) -> tuple[list[str], set[str], list[str], str]:
    """
    A page, opened.

    Args:
        driver (`webdriver.Chrome`):
            From [`browser`].
        source (`str`):
            HTML, or SVG.
        folder (`Path`):
            Where it may be written.

    Returns:
        `tuple[list[str], set[str], list[str], str]`: what it ran or asked for; the tags it is of, each alone and with each attribute; texts
        whose direction is not kept to itself; and all of its text.
    """
    path = folder / f"page.{'svg' if source.startswith('<svg') else 'html'}"
    path.write_text(source.encode("utf-8", "replace").decode(), encoding="utf-8")
    driver.get_log("performance")
    driver.get(path.as_uri())
    quiet, tags, loose, text = driver.execute_script(_READ)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    acts = ([] if quiet else ["a script ran"]) + [f"asked for {url}" for url in urls if url != path.as_uri()]
    return acts, set(tags), loose, text
