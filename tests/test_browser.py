"""What people see: the report and the real dashboard, driven in headless Chromium."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from browser import DRAWN, PATIENCE, Page, open_chromium
from fake_study import add_retrained, fake_study, quality_of
from selenium.webdriver.common.by import By

from nas.cli import EXIT_TERMINATED
from nas.find_study import study_url
from nas.notes import set_note
from nas.report import write_report
from nas.storage import open_storage, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.chrome.webdriver import WebDriver

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 900), (375, 800)
FAILED = 30  # the number of the fake study's first failed trial


@pytest.fixture(scope="module")
def chromium() -> Iterator[WebDriver]:
    """A browser of this module's own."""
    browser = open_chromium()
    if browser is None:
        pytest.skip("no chromium or chromedriver here")
    yield browser
    browser.quit()


@pytest.fixture
def page(chromium: WebDriver) -> Page:
    """The browser as it comes: wide, light, with no line in its console."""
    page = Page(chromium)
    page.open("about:blank")
    page.looks(*DESKTOP, scheme="light")
    chromium.get_log("browser")
    return page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study with failures, full trainings and a note."""
    folder = tmp_path_factory.mktemp("report")
    study = fake_study(open_storage(sqlite_url(folder / "s.db")), number=30)
    add_retrained(study, [0, 3, 5, 8, 12])
    set_note(study, 3, "worth another look")
    write_report(study, folder / "report.html", options=" --study fake")
    return folder / "report.html"


def test_the_report_draws_every_figure_without_an_error_or_a_request(
    page: Page, report: Path
) -> None:
    page.open_report(report)
    places = page.browser.find_elements(By.CSS_SELECTOR, ".figure")
    assert len(places) == 8
    for place in places:
        assert place.find_elements(By.CSS_SELECTOR, "svg.main-svg"), place.get_attribute("id")
    assert page.errors() == []
    assert page.ask("return performance.getEntriesByType('resource').map((e) => e.name)") == []


def test_no_two_ticks_of_an_axis_say_the_same(page: Page, tmp_path: Path) -> None:
    """Of full trainings within three points: a tick every half."""
    study = fake_study(open_storage(sqlite_url(tmp_path / "s.db")), number=30)
    by_quality = sorted(range(30), key=lambda number: quality_of(study.trials[number]))
    add_retrained(study, by_quality[-8:], seeds=1)
    write_report(study, tmp_path / "report.html")
    page.open_report(tmp_path / "report.html")
    told = page.ask(
        "return [...document.querySelectorAll('.figure')].flatMap((figure) =>"
        " ['xtick', 'ytick', 'x2tick', 'y2tick'].map((axis) =>"
        " [...figure.querySelectorAll(`.${axis} text`)].map((tick) => tick.textContent)))"
    )
    assert sum(map(len, told)) > 20
    assert [ticks for ticks in told if len(set(ticks)) < len(ticks)] == []


def test_the_leaderboard_sorts_by_a_click_and_filters_by_words(page: Page, report: Path) -> None:
    page.open_report(report)
    assert page.column("rank") == [str(rank) for rank in range(1, 31)]
    button = page.browser.find_element(By.XPATH, "//table//button[text()='parameters']")
    for is_largest_first in (True, False):
        button.click()
        sizes = [int(cell.replace(",", "")) for cell in page.column("parameters")]
        assert sizes == sorted(sizes, reverse=is_largest_first)
    page.browser.find_element(By.ID, "filter").send_keys("another look")
    assert page.column("trial") == ["3"]
    assert page.browser.find_element(By.ID, "shown").text == "1 of 30"


@pytest.mark.parametrize("width", [DESKTOP[0], PHONE[0]])
def test_the_report_fits_its_window(page: Page, report: Path, width: int) -> None:
    page.looks(width, 800, scheme="light")
    page.open_report(report)
    assert page.ask("return document.documentElement.scrollWidth") <= width
    assert page.ask("return getComputedStyle(document.body).fontSize") == "15px"


def test_a_report_is_printed_light_and_as_wide_as_a_page(page: Page, report: Path) -> None:
    page.looks(*DESKTOP, scheme="dark")
    page.open_report(report)
    look = (
        "(() => { const svg = document.querySelector('#figure-history svg.main-svg');"
        " const { fill } = getComputedStyle(svg.querySelector('.xtick text'));"
        " return `${svg.getBoundingClientRect().width} ${fill}`; })()"
    )
    on_screen = page.ask(f"return {look}")
    page.ask("window.dispatchEvent(new Event('beforeprint'))")
    assert page.ask(f"return {look}") == "700 rgb(29, 33, 38)"
    page.ask("window.dispatchEvent(new Event('afterprint'))")
    page.until(f"return {look} === '{on_screen}'")


def test_the_report_is_light_or_dark_as_the_system_is(page: Page, report: Path) -> None:
    luminance = (
        "const rgb = (c) => c.match(/[0-9.]+/g).map(Number);"
        "const sum = (c) => rgb(c).slice(0, 3).reduce((a, b) => a + b);"
        "const label = document.querySelector('#figure-history .xtick text');"
        "return [sum(getComputedStyle(document.body).backgroundColor),"
        " sum(getComputedStyle(label).fill)]"
    )
    page.open_report(report)
    ground, text = page.ask(luminance)
    assert ground > 600
    assert text < 300
    page.looks(*DESKTOP, scheme="dark")
    page.open_report(report)
    ground, text = page.ask(luminance)
    assert ground < 150
    assert text > 450


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `nas dashboard` prints for a study with a sister."""
    folder = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = fake_study(open_storage(study_url("mine")), name="mine", number=30)
        add_retrained(study, [0, 3])
    command = [sys.executable, "-m", "nas", "dashboard"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
        process.terminate()
        assert process.wait(PATIENCE) == EXIT_TERMINATED


def test_the_dashboard_shows_what_a_trial_was(page: Page, dashboard: str) -> None:
    page.open(f"{dashboard}/trials?numbers=5")
    page.until_text("Trial 5", "budget_share", "num_macs", "elapsed_seconds 9.0", "num_params")
    words = page.ask("return document.body.innerText.match(/architecture (.*)/)[1]")
    assert words.count("x") == 4  # a stage each, as in 5x16 k7
    page.open(f"{dashboard}/trials?numbers={FAILED}")
    page.until_text("fail_reason diverged", "fail_detail loss <nan>")


def test_the_dashboard_draws_the_learning_curves_of_full_trainings(
    page: Page, dashboard: str
) -> None:
    sister = dashboard.removesuffix("1") + "2"
    page.open(f"{sister}/trials?numbers=0")
    page.until_text("mine-retrain", "source_trial 0", "recipe strong")
    page.open(sister)
    page.until_text("Intermediate values")
    page.until("return document.querySelectorAll('.scatterlayer .trace').length > 4")


def test_the_study_note_leads_to_the_report_as_it_stands(page: Page, dashboard: str) -> None:
    page.open(f"{dashboard}/note")
    page.until_text("Report of mine")
    assert "[//]" not in page.ask("return document.body.innerText")
    page.browser.find_element(By.LINK_TEXT, "Report of mine").click()
    page.until(DRAWN)
    assert page.column("train it in full")[0].endswith("--study mine")
    assert page.errors() == []
