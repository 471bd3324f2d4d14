"""Headless Chromium, as tests and pictures use it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from pathlib import Path

    from selenium.webdriver.chrome.webdriver import WebDriver

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE = 60  # seconds until what is waited for must be there
DRAWN = "return document.body?.dataset.drawn === 'yes'"


def open_chromium() -> WebDriver | None:
    """Start it, or give `None` where it or its driver is not installed."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service(driver))


class Page:
    """What a person does with a page, and what they see of it."""

    def __init__(self, browser: WebDriver) -> None:
        self.browser = browser

    def open(self, address: str) -> None:
        self.browser.get(address)

    def open_report(self, path: Path) -> None:
        self.open(path.resolve().as_uri())
        self.until(DRAWN)

    def looks(self, width: int, height: int, *, scheme: str) -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def ask(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def until(self, script: str) -> None:
        WebDriverWait(self.browser, PATIENCE).until(lambda _: self.ask(script), script)

    def until_text(self, *words: str) -> None:
        shown = "document.body.innerText"
        for each in words:
            self.until(f"return {shown}.includes({each!r})")

    def errors(self) -> list[str]:
        lines = self.browser.get_log("browser")
        return [line["message"] for line in lines if line["level"] == "SEVERE"]

    def column(self, title: str) -> list[str]:
        """The visible cells of the leaderboard under a title, from top to bottom."""
        return self.ask(  # type: ignore[no-any-return]
            "const table = document.getElementById('leaderboard');"
            "const titles = Array.from(table.tHead.rows[0].cells, (c) => c.innerText.trim());"
            f"const k = titles.findIndex((t) => t.startsWith({title!r}));"
            "return Array.from(table.tBodies[0].rows).filter((r) => !r.hidden)"
            ".map((r) => r.cells[k].textContent)"
        )
