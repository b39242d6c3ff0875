"""The report in a real browser: hostile text stays text, nothing leaves the machine, and it can be read where people are."""

import base64
import json
import re
import shutil
from dataclasses import replace

import pytest
from reports import HOSTILE, MANY, run_of

from alignguard.records.about import About
from alignguard.report.html import write_report
from alignguard.text import clean

pytest.importorskip("selenium", reason="needs selenium")
from selenium import webdriver
from selenium.common.exceptions import NoAlertPresentException, SessionNotCreatedException
from selenium.webdriver.chrome.service import Service

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
ASKED = "ASKED " + HOSTILE
SAID = f"\ud800 \u202egnirts\u202c \u2066{HOSTILE} --></title></pre></details><svg onload=alert(4)><style>*{{display:none}}</style>"
LONG = "<b>" + "x" * 500_000 + " y" * 250_000
WIDE, PHONE = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    except SessionNotCreatedException as error:
        pytest.skip(f"chromium does not start: {error.msg.splitlines()[0]}")
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The same regression, in hostile words and in very many; models, probes and settings are named hostilely too."""
    folder = tmp_path_factory.mktemp("reports")
    asked = ({"role": HOSTILE, "content": ASKED},)
    options = [tuple(o + HOSTILE for o in p.options) for p in MANY]
    probes = [
        replace(p, id=p.id + HOSTILE, group=HOSTILE, condition="w" * 400, messages=asked, options=o)
        for p, o in zip(MANY, options, strict=True)
    ]
    about = About(model="m" * 300 + HOSTILE, max_steps=20, rule=HOSTILE, budget="f" * 300)
    budget = {"budget/anchor_kl": 0.001, "budget/coefficient": 2.0}
    for name, after, trace in (("hostile", SAID, None), ("long", LONG, LONG)):
        audits, verdict = run_of({0: 1.0, 5: 1.0, 10: 0.0, 15: 0.0}, "kind", after, probes, trace, **budget)
        write_report(folder / f"{name}.html", about, audits, replace(verdict, warnings=(HOSTILE,)))
    return folder


def see(browser, path, size=WIDE, scheme="light", media=""):
    width, height = size
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(path.as_uri())


def test_what_a_model_says_is_text(browser, reports):
    see(browser, reports / "hostile.html")
    with pytest.raises(NoAlertPresentException):
        _ = browser.switch_to.alert
    bad = (
        "script,a,img,iframe,link,object,embed,form,input,base,[onload],[onerror],[href],[src],body style,title ~ title"
    )
    assert browser.execute_script("return document.querySelectorAll(arguments[0]).length", bad) == 0
    assert browser.execute_script("return document.querySelectorAll('style').length") == 1
    text = browser.execute_script("return document.body.textContent")
    for said in (ASKED, clean(SAID), f"wrong{HOSTILE}", f"p1-0{HOSTILE}", f"m{HOSTILE}"):
        assert said in text
    assert "<img src=x onerror=alert(3)>" in browser.title
    # what turns the direction of its own text around does so to no other
    isolated = "return [...document.querySelectorAll('.said,summary q,summary span')].map(e => getComputedStyle(e).unicodeBidi)"
    assert set(browser.execute_script(isolated)) == {"isolate"}


def test_very_long_text_is_cut_and_counted(browser, reports):
    see(browser, reports / "long.html")
    text = browser.execute_script("return document.body.textContent")
    assert "<b>" + "x" * 1997 + " ... (998,003 more characters)" in text
    assert len(text) < 600_000


@pytest.mark.parametrize("name", ["hostile", "long"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_nothing_is_loaded_nothing_fails_and_the_page_fits(browser, reports, name, size):
    see(browser, reports / f"{name}.html", size)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert (reports / f"{name}.html").as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    width, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner == size[0]
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    )
    assert boxes or size == WIDE  # wide tables scroll in their own box


def luminance(colour):
    """Relative, as in WCAG 2."""
    parts = [float(c) / 255 for c in re.findall(r"[\d.]+", colour)[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


READ = """
const seen = {};
for (const e of document.querySelectorAll('main *')) {
  if (e.closest('svg') ? e.tagName !== 'text' : ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  let under = e;
  while (getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement || document.body;
  const own = getComputedStyle(e), on = getComputedStyle(under).backgroundColor;
  seen[[e.tagName, e.getAttribute('class')]] = [e.closest('svg') ? own.fill : own.color, on];
}
return [getComputedStyle(document.body).backgroundColor, seen];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(browser, reports, scheme):
    see(browser, reports / "hostile.html", scheme=scheme)
    page, seen = browser.execute_script(READ)
    assert luminance(page) < 0.05 if scheme == "dark" else luminance(page) > 0.9
    assert {"INS,", "DEL,", "text,tick", "B,worse", "SPAN,trace", "P,sub"} <= seen.keys()
    for what, colours in seen.items():
        low, high = sorted(map(luminance, colours))
        assert (high + 0.05) / (low + 0.05) >= 4.5, what


def visible(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.checkVisibility())"
    return set(browser.execute_script(script, selector))


def test_closed_flips_show_their_question_alone(browser, reports):
    see(browser, reports / "hostile.html")
    assert visible(browser, "details[open] q") == visible(browser, "details:not([open]) .sides") == {False}
    assert visible(browser, "details:not([open]) q") == visible(browser, "details[open] .sides") == {True}


def test_it_prints_in_full_and_on_white(browser, reports):
    see(browser, reports / "hostile.html", scheme="dark", media="print")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert visible(browser, "details:not([open]) .sides") == {True}
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF-")
