"""The first screen of a report as a picture, by Chromium: python docs/screenshot.py runs/demo docs/images/report.png [--height 1100]"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a trainer's output_dir")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1100)
    options = parser.parse_args()
    report = Path(options.run).resolve() / "_alignguard" / "report.html"
    if not report.exists():
        sys.exit(f"{report}: no such file; take the run first")
    chrome = webdriver.ChromeOptions()
    chrome.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        chrome.add_argument(flag)
    browser = webdriver.Chrome(options=chrome, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": options.width, "height": options.height, "deviceScaleFactor": 1, "mobile": options.width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(report.as_uri())
        browser.save_screenshot(str(options.picture))
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
