"""README's pictures, drawn from a study: python tests/pictures.py STUDY.

Run in the folder that has `studies/`. Writes `search.png`, `report.png` and `dashboard.png` into
`docs/` beside this file's folder.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import optuna
from browser import Page, open_chromium
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

from nas.cli.search_display import Screen
from nas.find_study import find_study, url_of
from nas.report import write_report
from nas.results import leaderboard
from nas.storage import silence_optuna

if TYPE_CHECKING:
    from optuna.study import Study

DOCS = Path(__file__).parent.parent / "docs"
WIDTH, HEIGHT, COLORS = 1100, 760, 64
TRIAL_HEIGHT = 920  # what a trial's page has to say
TERMINAL = """<body style="margin: 0; background: {background}; color: {foreground}">
<pre style="font: 14px/1.35 monospace; padding: 16px; margin: 0">{code}</pre>
<style>{stylesheet}</style></body>"""


def live_display(study: Study) -> str:
    """Show the display of a search as it was late in this study, as HTML."""
    trials = study.get_trials(deepcopy=False)
    num_done = 3 * len(trials) // 4
    begun = optuna.create_study(study_name=study.study_name, direction="maximize")
    begun.set_user_attr("identity", study.user_attrs["identity"])
    console = Console(
        record=True, width=100, force_terminal=True, highlight=False, file=io.StringIO()
    )
    screen = Screen(console)
    screen.start(begun, len(trials), url_of(study))
    screen.close()
    console.export_text()  # forgets what was shown so far
    for trial in trials[:num_done]:
        begun.add_trial(trial)
        screen.trial_end(trial)
    screen._stage_started -= sum(t.user_attrs["elapsed_seconds"] for t in trials[:num_done])
    screen.trial_start(num_done, 0)
    screen.step(60, 100, 0)
    console.print(screen.shown())
    return console.export_html(theme=MONOKAI, code_format=TERMINAL)


def draw(study: Study, page: Page, folder: Path) -> None:
    """Open each page and keep what is seen of it."""
    page.looks(WIDTH, HEIGHT, scheme="light")
    shell = folder / "search.html"
    shell.write_text(live_display(study), encoding="utf-8")
    page.open(shell.as_uri())
    keep(page, "search", page.ask("return document.querySelector('pre').offsetHeight"))
    write_report(study, folder / "report.html", options=f" --study {study.study_name}")
    page.open_report(folder / "report.html")
    keep(page, "report", HEIGHT)
    command = [sys.executable, "-m", "nas", "dashboard", study.study_name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        page.looks(WIDTH, TRIAL_HEIGHT, scheme="light")
        page.open(f"{address}/trials?numbers={leaderboard(study)['trial'].iloc[0]}")
        page.until_text("Complete", "budget_share")
        keep(page, "dashboard", TRIAL_HEIGHT)
        process.terminate()


def keep(page: Page, name: str, height: int) -> None:
    """Write what is seen, down to `height` pixels, as a small PNG."""
    seen = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert("RGB")
    seen = seen.crop((0, 0, seen.width, min(height, seen.height)))
    seen.quantize(COLORS).save(DOCS / f"{name}.png", optimize=True)


def main() -> None:
    """Draw all pictures of the study that is named."""
    silence_optuna()
    browser = open_chromium()
    if browser is None:
        raise SystemExit("pictures need chromium and chromedriver")
    with TemporaryDirectory() as folder:
        draw(find_study(sys.argv[1] if sys.argv[1:] else None, None), Page(browser), Path(folder))
    browser.quit()


if __name__ == "__main__":
    main()
