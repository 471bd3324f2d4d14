"""The report: its figures from frames, and the page that holds them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from commands import run
from fake_study import add_retrained, attributes, fake_study, networks, quality_of
from optuna.trial import TrialState
from plotly.offline import get_plotlyjs

from nas import analysis
from nas.architecture import Architecture
from nas.errors import UserError
from nas.find_study import find_sister, study_url
from nas.notes import set_note
from nas.report import figures, render, stage_figures, write_report
from nas.report.drawing import draw
from nas.report.page import Page
from nas.sisters import open_sister
from nas.storage import open_storage, sqlite_url

EVIL = "<script>alert(1)</script>"
ARCHS = [Architecture.of([1, depth], [8, 4 * depth]) for depth in range(1, 21)]
SCORED = pd.DataFrame(
    {
        "trial": range(20),
        "val_accuracy": [0.5 + 0.01 * k for k in range(20)],
        "num_params": [10_000 - 100 * k for k in range(20)],
        "architecture": map(str, ARCHS),
        "architecture_json": [arch.to_json() for arch in ARCHS],
        "proposed_by": ["baseline", *["random"] * 4, *["tpe"] * 15],
    }
)


def laid_out() -> pd.DataFrame:
    return analysis.with_front(analysis.with_incumbent(SCORED))


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_every_network_is_a_point_of_its_group_beside_the_window_and_the_front() -> None:
    drawn = figures.size_and_accuracy(laid_out(), (2_000, 9_000))
    found = traces(drawn)
    assert [len(found[g].x) for g in ("search", "random", "hand-made")] == [15, 4, 1]
    assert list(found["Pareto front"].x) == [8_100]  # the best is the smallest
    window = drawn.layout.shapes[0]
    assert (window.x0, window.x1) == (2_000, 9_000)


def test_the_history_draws_the_best_so_far() -> None:
    found = traces(figures.history(laid_out().iloc[::-1].assign(incumbent=0.69)))
    assert set(found["best so far"].y) == {0.69}
    assert list(found["best so far"].x) == list(range(19, -1, -1))


def test_parallel_coordinates_draw_a_line_a_network_over_what_varies() -> None:
    drawn = stage_figures.parallel_coordinates(analysis.stages(SCORED))
    assert list(drawn.layout.xaxis.ticktext) == ["blocks 2", "width 2", "accuracy"]
    lines = {trace.name: list(trace.x).count(None) for trace in drawn.data}
    assert lines == {"the rest (18 networks)": 18, "best tenth (2 networks)": 2}


def test_of_a_thousand_networks_the_best_tenth_and_a_sample_of_the_rest_are_lines() -> None:
    many = analysis.stages(pd.concat([SCORED] * 50, ignore_index=True))
    drawn = stage_figures.parallel_coordinates(many)
    lines = {trace.name: list(trace.x).count(None) for trace in drawn.data}
    assert lines == {"the rest (300 of 900 networks)": 300, "best tenth (100 networks)": 100}


def test_the_best_tenth_stands_beside_the_rest_in_boxes() -> None:
    drawn = stage_figures.best_tenth(analysis.best_tenth(analysis.stages(SCORED)))
    medians = [trace.median[0] for trace in drawn.data]
    assert medians == [19.5, 9.5, 78.0, 38.0]  # depth and width of stage 2
    names = {"best tenth": "best tenth (2 networks)", "the rest": "the rest (18 networks)"}
    assert [names[trace.offsetgroup] for trace in drawn.data] == [t.name for t in drawn.data]


def test_the_boxes_are_in_the_order_of_stages_also_where_one_is_of_one_field_alone() -> None:
    found = analysis.best_tenth(analysis.stages(SCORED))
    first = found.assign(stage=3)[found["field"] == "depth"]
    other = found.assign(stage=1)[found["field"] == "width"]
    drawn = stage_figures.best_tenth(pd.concat([first, other]))
    assert drawn.layout.xaxis.categoryarray == ("stage 1", "stage 3")


def test_one_full_training_is_drawn_within_what_an_accuracy_can_be() -> None:
    full = pd.DataFrame(
        {"measure": ["m"], "num_params": [9], "mean": [0.9], "std": [0.0], "network": ["n"]}
    )
    pairs = pd.DataFrame(
        {
            "trial": [1], "measure": ["m"], "val_accuracy": [0.5], "accuracy": [0.98],
            "num_seeds": [1],
        }
    )  # fmt: skip
    assert figures.trained_in_full(full, None).layout.yaxis.range == pytest.approx((0.85, 0.95))
    layout = figures.agreement(pairs).layout
    assert layout.xaxis.range == pytest.approx((0.45, 0.55))
    assert layout.yaxis.range == pytest.approx((0.93, 1.0))


@pytest.mark.parametrize(("last", "step"), [(4, 1), (400, None)])
def test_a_few_trials_are_marked_one_by_one(last: int, step: int | None) -> None:
    frame = laid_out().head(2).assign(incumbent=0.69, trial=[0, last])
    assert figures.history(frame).layout.xaxis.dtick == step


def test_importances_are_bars_with_the_names_that_people_use() -> None:
    frame = pd.DataFrame({"parameter": ["width_1", "kernel_size_2"], "importance": [0.9, 0.1]})
    (bars,) = stage_figures.importances(frame).data
    assert list(zip(bars.y, bars.x, strict=True)) == [("width 1", 0.9), ("kernel 2", 0.1)]


def test_later_measures_and_time_are_drawn_by_name() -> None:
    pairs = pd.DataFrame(
        {
            "trial": [1, 2],
            "measure": ["finalists", EVIL],
            "val_accuracy": [0.5, 0.6],
            "accuracy": [0.7, 0.8],
            "num_seeds": [1, 2],
        }
    )
    found = traces(figures.agreement(pairs))
    assert list(found["finalists"].y) == [0.7]
    assert not any("<" in name for name in found)
    spent = pd.DataFrame({"what": ["scored"], "num_trials": [20], "hours": [1.5]})
    (bars,) = figures.time_spent(spent).data
    assert (list(bars.x), list(bars.text)) == ([1.5], ["1.5 h, 20 trials"])


def test_full_trainings_are_points_with_the_deviation_of_their_seeds() -> None:
    full = pd.DataFrame(
        {
            "network": ["trial-3", EVIL],
            "measure": ["full training (strong, test)", "full training (imported, test)"],
            "num_params": [90_000, 4_978_810],
            "mean": [0.76, 0.9712],
            "std": [0.002, None],
        }
    )
    drawn = figures.trained_in_full(full, (90_000, 100_000))
    found = traces(drawn)
    strong, imported = (found[measure] for measure in full["measure"])
    assert (list(strong.y), list(strong.error_y.array)) == ([0.76], [0.002])
    assert list(imported.x) == [4_978_810]
    assert not any("<" in name for name in imported.text)
    assert drawn.layout.shapes[0].x1 == 100_000


def test_imported_accuracies_are_shown_before_anything_is_scored() -> None:
    study = fake_study(number=12, num_failed=0)
    add_retrained(study, [1])
    unscored = optuna.create_study(study_name="hand", direction="maximize")
    sister = open_sister(unscored._storage, "hand", "retrain")
    sister.add_trials(find_sister(study, "retrain").trials)
    page = render(unscored)
    assert "No network is scored yet" in page
    assert "<h2>Trained in full</h2>" in page
    assert "<td>trial-1</td>" in page
    assert "<h2>Leaderboard" not in page


def test_a_drawing_says_what_the_stem_leaves_of_the_image() -> None:
    (drawn,) = draw([Architecture.of([1, 1], [8, 8], stem_stride=2)])
    assert "full size" not in drawn
    assert drawn.index("1/2 side") < drawn.index("1/4 side")


def test_drawings_have_a_bar_a_block_to_one_scale() -> None:
    small, large = draw([Architecture.of([2, 3], [8, 16]), Architecture.of([1, 1], [16, 32])])
    assert (small.count("<rect"), large.count("<rect")) == (5, 2)
    assert re.findall(r' height="([\d.]+)"', small)[0] == "22.5"  # 8 of 32 channels
    assert re.findall(r' height="([\d.]+)"', large)[-1] == "90.0"


def pairs_of(later: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"val_accuracy": [k / 100 for k in range(len(later))], "accuracy": later})


def test_the_verdict_says_when_the_proxy_cannot_tell_and_when_it_can() -> None:
    assert "3 more for a correlation" in analysis.verdict("finalists", pairs_of([0.5, 0.6]))
    mixed = pairs_of([0.5, 0.9, 0.1, 0.8, 0.2, 0.6])
    assert "cannot be told yet" in analysis.verdict("finalists", mixed)
    assert "all have the same of one of them" in analysis.verdict("finalists", pairs_of([0.5] * 8))
    alike = pairs_of([k / 50 for k in range(12)])
    assert "better than chance; rank correlation 1.00" in analysis.verdict("finalists", alike)


class Elements(HTMLParser):
    """Collects (tag, attributes) of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_needs_nothing_from_elsewhere_and_holds_plotly_once() -> None:
    study = fake_study()
    add_retrained(study, [0, 3, 5, 8, 12])
    page = render(study)
    elements = Elements(page).found
    assert [tag for tag, attrs in elements if tag == "script"] == ["script"] * 3
    links = [attrs[k] for _, attrs in elements for k in ("src", "href", "action") if k in attrs]
    assert links == ["data:,"]
    assert "default-src 'none'" in page
    assert "url(" not in page.split("<style>")[1].split("</style>")[0]
    assert page.count("plotly.js v") == 1


def test_every_figure_has_its_place_and_every_network_its_row() -> None:
    study = fake_study(num_failed=2)
    add_retrained(study, [0, 3, 5, 8, 12])
    page = render(study, options=" --study fake")
    embedded = page.split('id="figures">')[1].split("</script>")[0]
    places = set(re.findall(r'id="figure-(\w+)"', page))
    assert json.loads(embedded).keys() == places
    assert places == {
        "size",
        "history",
        "stages",
        "tenth",
        "importances",
        "agreement",
        "trained",
        "time",
    }
    assert "60 networks scored of 62 trials" in page
    assert ">finalist</button>" not in page
    for number in range(60):
        assert f"<code>python -m nas retrain --trial {number} --study fake</code></td>" in page
    assert "2\N{MULTIPLICATION SIGN}</td>" in page  # what was measured later of two seeds
    assert "full training (strong, test): " in page


def test_what_people_wrote_is_text_in_the_page() -> None:
    study = fake_study(number=12, num_failed=0, name=f"a{EVIL}")
    arch = next(networks(1, 5))[0]
    attrs = attributes(arch, f"imported {EVIL}") | {"elapsed_seconds": 1.0, "architecture": EVIL}
    study.add_trial(optuna.create_trial(value=0.99, user_attrs=attrs))
    page = render(study, options=f" --study '{EVIL}'")
    assert EVIL.lower() not in page.lower()
    assert page.count("&lt;script&gt;alert(1)") >= 4  # title, heading, tile, row


def test_notes_stand_beside_their_networks(tmp_path: Path) -> None:
    study = fake_study(open_storage(sqlite_url(tmp_path / "s.db")), number=12, num_failed=0)
    assert '<button type="button">note</button>' not in render(study)
    set_note(study, 3, f"too wide {EVIL}")
    page = render(study)
    assert '<button type="button">note</button>' in page
    assert page.count('<td class="note">too wide &lt;script&gt;') == 1
    assert EVIL not in page


def test_of_a_study_that_only_failed_the_page_says_where_the_time_went() -> None:
    failed = optuna.create_study(study_name="failed", direction="maximize")
    failed.add_trials(fake_study(number=1, num_failed=2).trials[1:])
    page = render(failed)
    assert "No network is scored yet" in page
    assert "<h2>Time spent</h2>" in page
    assert page.count('id="figure-time"') == 1


def test_a_study_of_one_or_no_network_has_a_page() -> None:
    assert "1 network scored of 1 trial" in render(fake_study(number=1, num_failed=0))
    empty = optuna.create_study(study_name="empty", direction="maximize")
    assert "No network is scored yet" in render(empty)


def test_two_thousand_trials_make_a_page_of_a_few_megabytes() -> None:
    study = fake_study(number=40, num_failed=0, name="many")
    few = study.get_trials(deepcopy=False)
    study.add_trials([few[k % 40] for k in range(1_960)])
    page = render(study)
    assert page.count("<code>python -m nas retrain --trial") == 2_001  # the rows and the tile
    assert len(page) - len(get_plotlyjs()) < 4_000_000


@pytest.mark.usefixtures("folder")
def test_nas_report_writes_the_file_and_prints_where(capsys: pytest.CaptureFixture[str]) -> None:
    fake_study(open_storage(study_url("mine")), name="mine", number=12)
    assert run("report", "mine") == 0
    written = Path("studies/mine/report.html")
    assert capsys.readouterr().out.strip() == str(written)
    assert "python -m nas retrain --trial 0 --study mine<" in written.read_text(encoding="utf-8")
    assert [path.name for path in written.parent.iterdir()] == ["report.html"]


@pytest.mark.usefixtures("folder")
def test_the_report_is_opened_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    fake_study(open_storage(study_url("mine")), name="mine", number=3)
    assert run("report", "mine") == 0
    assert opened == []
    assert run("report", "mine", "--open", "--out", "page.html") == 0
    assert opened == ["page.html"]


def test_a_report_that_cannot_be_written_is_one_line(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        write_report(fake_study(number=3), folder / "file" / "report.html")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("out", ["", "/"])
def test_a_folder_instead_of_a_file_is_one_line(
    capsys: pytest.CaptureFixture[str], out: str
) -> None:
    fake_study(open_storage(study_url("mine")), name="mine", number=3)
    assert run("report", "--out", out) == 2
    assert capsys.readouterr().err == f"error: cannot write {Path(out)}: it is no regular file\n"


@pytest.mark.usefixtures("folder")
def test_a_study_whose_name_leads_elsewhere_stays_under_studies() -> None:
    fake_study("sqlite:///odd.db", name="../../odd", number=3)
    assert run("report", "--storage", "sqlite:///odd.db") == 2


def test_networks_that_differ_in_their_blocks_alone_make_a_report(tmp_path: Path) -> None:
    study = fake_study(number=2, num_failed=0)
    arch = Architecture.from_json(study.trials[0].user_attrs["architecture_json"])
    other = replace(arch, stages=tuple(replace(s, block="bottleneck") for s in arch.stages))
    alike = optuna.create_study(direction="maximize", study_name="alike")
    for name, value in study.user_attrs.items():
        alike.set_user_attr(name, value)
    for each in (arch, other):
        attrs = attributes(each, "random") | {"elapsed_seconds": 1.0}
        alike.add_trial(optuna.create_trial(value=0.5, user_attrs=attrs))
    write_report(alike, tmp_path / "report.html")
    assert "bottleneck" in (tmp_path / "report.html").read_text()


def test_a_network_scored_while_the_page_is_made_is_in_none_of_its_parts() -> None:
    study = fake_study(number=12)
    page = Page(study)
    assert page.figures
    best = max(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), key=quality_of)
    study.add_trial(
        optuna.create_trial(
            value=0.99,
            params=best.params,
            distributions=best.distributions,
            user_attrs=best.user_attrs,
        )
    )
    assert set(page.leaderboard["trial"]) == set(page.scored["trial"])
    assert 0.99 not in [row["val_accuracy"] for _, row, _ in page.drawings]


def test_all_limits_and_the_schedule_are_told() -> None:
    study = fake_study(number=3)
    identity = json.loads(study.user_attrs["identity"])
    limits = {"limits.num_params": [90, 100], "limits.num_macs": [None, 5_000_000]}
    proxy = {"proxy.epochs": 4, "proxy.resolution": 16}
    study.set_user_attr("identity", json.dumps(identity | limits | proxy))
    page = " ".join(render(study).split())
    assert "allowed: 90 to 100 parameters, at most 5,000,000 multiply-adds" in page
    assert "A score is of one seed of 4 epochs at 16 pixels, on images held out of training" in page
