"""The ledger: what people keep by hand is read, what is written comes back the same."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import openpyxl
import optuna
import pandas as pd
import psutil
import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

import nas.presets
from nas.architecture import Architecture
from nas.complexity import count_params
from nas.errors import UserError
from nas.finalists import open_finalists
from nas.find_study import find_sister, find_storage, register_of
from nas.history import history
from nas.ledger import Verdict, export_sheet, import_sheet, ledger
from nas.notes import set_note
from nas.proxy import ProxyConfig
from nas.sheet import neutralized, read_sheet, restored

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.study import Study

    Scored = Callable[..., Study]

ARCH = Architecture.of([1, 1], [4, 8])
OTHER = Architecture.of([2, 1], [8, 8])
PLACES = ("recipe", "result", "trial", "proposed by")  # of where a try is, not of what it was
HAND_MADE = Path(nas.presets.__file__).parent / "hand_made.csv"


def bring(path: str | Path, **options: bool) -> list[Verdict]:
    name, storage = find_storage("mine", None)
    return import_sheet(storage, name, Path(path), **options).verdicts


def verdicts(path: str | Path, **options: bool) -> list[str]:
    return [each.verdict for each in bring(path, **options)]


def num_records(study: Study) -> int:
    sister = find_sister(study, "retrain")
    return 0 if sister is None else len(sister.get_trials(deepcopy=False))


# Cells that a spreadsheet would run


@given(st.text())
def test_neutralized_text_is_no_formula_and_is_restored(text: str) -> None:
    marked = neutralized(text)
    assert marked[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert restored(marked) == text


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_no_cell_of_an_export_is_a_formula(scored: Scored, folder: Path, ending: str) -> None:
    study = scored(ARCH, OTHER)
    set_note(study, 0, '=HYPERLINK("http://example.com")')
    set_note(study, 1, "@SUM(A1)")
    export_sheet(study, Path(f"a.{ending}"))
    if ending == "csv":
        cells = pd.read_csv("a.csv", dtype=str).stack().dropna().tolist()
        assert "'=HYPERLINK" in (folder / "a.csv").read_text()
    else:
        rows = openpyxl.load_workbook("a.xlsx").active.iter_rows()
        assert not [c for row in rows for c in row if c.data_type == "f"]
        cells = pd.read_excel("a.xlsx", dtype=str).stack().dropna().tolist()
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r"]


# Export, import


def full_study(scored: Scored) -> Study:
    """A study with notes, a score, a full training and rows of another's sheet."""
    study = scored(ARCH, OTHER)
    set_note(study, 0, "=1+1, and 'quoted',\nsecond line; -x")
    Path("hand.csv").write_text(
        "name,blocks,channels,kernel sizes,accuracy,optimizer,lr,epochs,date,notes,seed\n"
        'one,"1,1","4,8",3,97.12 %,SGD,"0,1",200,2024-05-01,- steady,3\n'
        'one,"1,1","4,8",3,97.12 %,SGD,"0,1",200,2024-05-01,- steady,4\n'
        'none,"3,2","8,16","5,3",,AdamW,halved twice,150 + 50,last spring,@home,\n'
    )
    bring("hand.csv")
    return study


@pytest.mark.parametrize("ending", ["csv", "xlsx", "parquet"])
def test_export_then_import_gives_the_same(scored: Scored, ending: str) -> None:
    study = full_study(scored)
    before = ledger(study)
    file = Path(f"tried.{ending}")
    assert export_sheet(study, file) == len(before) == 5
    assert set(verdicts(file)) == {"tried already"}
    pd.testing.assert_frame_equal(ledger(study), before)
    empty = scored(name="empty")
    name, storage = find_storage("empty", None)
    assert {v.verdict for v in import_sheet(storage, name, file).verdicts} == {"imported"}
    columns = [name for name in before.columns if name not in PLACES]
    pd.testing.assert_frame_equal(ledger(empty)[columns], before[columns])


def test_every_accuracy_of_an_export_says_its_recipe_and_its_epochs(scored: Scored) -> None:
    study = full_study(scored)
    sister = open_finalists(study, ProxyConfig(epochs=2, resolution=32, peak_lr=0.4))
    origin = {"architecture_json": ARCH.to_json(), "source_trial": 0, "seed": 1}
    sister.add_trial(optuna.create_trial(value=0.5, user_attrs=origin))
    told = ledger(study)[["trial", "recipe", "epochs"]].fillna("").to_numpy().tolist()
    assert told == [
        ["search 0", "", "2"],
        ["search 1", "", "2"],
        ["finalists 0", "", "8"],
        ["retrain 0", "imported", "200"],
        ["retrain 1", "imported", "200"],
        ["retrain 2", "imported", "150 + 50"],
    ]


def test_a_network_that_was_never_trained_has_no_epochs(scored: Scored) -> None:
    study = scored()
    attrs = {"architecture_json": ARCH.to_json()}
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING):
        study.add_trial(optuna.create_trial(state=state, user_attrs=attrs))
    assert [each.epochs for each in history(study)] == ["", "2", ""]


def test_missing_epochs_are_none_and_the_best_epoch_is_another_column(scored: Scored) -> None:
    study = scored()
    Path("a.csv").write_text(
        'blocks,channels,accuracy,epochs,epoch\n"1,1","4,8",0.5,-,180\n"1,1","8,8",0.6,200,170\n'
    )
    assert verdicts("a.csv") == ["imported", "imported"]
    assert [each.epochs for each in history(study)] == ["", "200"]


def test_importing_twice_adds_nothing(scored: Scored) -> None:
    study = scored()
    Path("a.csv").write_text(TWO + 'none,"3,1","4,8",\n')
    assert verdicts("a.csv", enqueues=True) == ["imported"] * 3
    before = [(t.kind, t.trial) for t in history(study)]
    again = bring("a.csv", enqueues=True)
    assert {v.verdict for v in again} == {"tried already"}
    assert not any(v.is_recorded or v.is_enqueued for v in again)
    assert [(t.kind, t.trial) for t in history(study)] == before


def test_the_hand_made_networks_become_retrain_records(scored: Scored) -> None:
    study = scored()
    found = bring(HAND_MADE)
    assert [v.verdict for v in found] == ["over budget"] * 5
    assert [v.name for v in found][:2] == ["ResNet26_97", "ResNet24_9684"]
    tries = [t for t in history(study) if t.kind == "retrain"]
    assert [t.accuracy for t in tries] == [0.9712, 0.9684, 0.9657, 0.8856, None]
    assert tries[0].num_params == 4_978_810
    assert tries[4].result == "no accuracy"


def test_enqueue_has_networks_within_the_budget_scored_once(scored: Scored) -> None:
    study = scored(ARCH)
    Path("a.csv").write_text(
        'name,blocks,channels\nknown,"1,1","4,8"\nnew,"2,1","8,8"\nagain,"2,1","8,8"\n'
        'outside,"1,1,1","4,8,8"\nbig,"4,4","64,640"\n'
    )
    found = bring("a.csv", enqueues=True)
    assert [v.is_enqueued for v in found] == [False, True, False, True, False]
    queued = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    assert [t.user_attrs["name"] for t in queued] == ["new", "outside"]
    assert [t.user_attrs["proposed_by"] for t in queued] == ["imported", "imported"]


def test_strict_refuses_a_whole_sheet_from_the_command_line(
    scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored()
    Path("a.csv").write_text('blocks,channels,accuracy\n"1,1","4,8",91.5\n"1,1",4,90\n')
    assert run("import", "a.csv", "--study", "mine", "--strict") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "error: a.csv: 1 of 2 rows are bad, nothing was imported; line 3 is unreadable: "
        "blocks lists 2 stages, channels 1\n"
    )
    assert num_records(study) == 0
    assert run("import", "a.csv", "--study", "mine") == 0
    assert num_records(study) == 1


def test_an_accuracy_of_a_networks_own_trial_is_noted_there(scored: Scored) -> None:
    import optuna_dashboard

    study = scored(ARCH)
    Path("a.csv").write_text('blocks,channels,accuracy,epochs\n"1,1","4,8",91.5,150 | 50\n')
    bring("a.csv")
    trial = optuna.trial.Trial(study, study.get_trials()[0]._trial_id)
    assert "| imported | 150 / 50 | - | test | 91.50% | - | 0 |" in optuna_dashboard.get_note(trial)


def test_a_dry_run_writes_nothing(scored: Scored) -> None:
    study = scored()
    assert any(v.is_recorded for v in bring(HAND_MADE, is_dry_run=True, enqueues=True))
    assert history(study) == []


def test_strict_refuses_all_for_one_bad_row(scored: Scored) -> None:
    study = scored()
    Path("a.csv").write_text('blocks,channels\n"1,1","4,8"\n"1,x","4,8"\n')
    with pytest.raises(UserError, match=r"1 of 2 rows are bad.*; line 3 is unreadable: blocks is"):
        bring("a.csv", is_strict=True)
    assert history(study) == []


def test_an_import_that_is_killed_leaves_nothing(scored: Scored) -> None:
    study = scored()
    Path("a.csv").write_text(
        "blocks,channels,accuracy\n" + "".join(f'"1,1","4,{w}",0.5\n' for w in range(8, 200))
    )
    code = (
        "import os, signal, pathlib, optuna\n"
        "from nas.ledger import import_sheet\n"
        "from nas.find_study import find_storage\n"
        "original = optuna.study.Study.add_trial\n"
        "def add(self, trial):\n"
        "    original(self, trial)\n"
        "    if len(self.get_trials(deepcopy=False)) == 20:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "optuna.study.Study.add_trial = add\n"
        "name, storage = find_storage('mine', None)\n"
        "import_sheet(storage, name, pathlib.Path('a.csv'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert history(study) == []


def test_an_import_waits_for_what_another_process_writes(scored: Scored) -> None:
    """On a server no transaction shuts another import out, and both would record every row."""
    study = scored()
    Path("a.csv").write_text('blocks,channels,accuracy\n"1,1","4,8",0.5\n')
    importing = Thread(target=bring, args=["a.csv"])
    with register_of(study).lock():
        importing.start()
        importing.join(0.5)
        assert importing.is_alive()
        assert history(study) == []
    importing.join()
    assert len(history(study)) == 1


# What people's sheets look like

TWO = 'name,blocks,channels,accuracy\nä,"1,1","4,8",97.12\nb,"2,1","8,8",0.9\n'
SHEETS: dict[str, tuple[str | bytes, list[str] | str]] = {
    "plain": (TWO, ["imported", "imported"]),
    "byte order mark": (TWO.encode("utf-8-sig"), ["imported", "imported"]),
    "UTF-16": (TWO.encode("utf-16"), ["imported", "imported"]),
    "Windows-1252": (TWO.encode("cp1252"), ["imported", "imported"]),
    "CRLF and blank lines": (TWO.replace("\n", "\r\n") + "\r\n,,,\r\n", ["imported"] * 2),
    "semicolons, decimal commas": (
        "Model;Blocks;Widths;Test Accuracy (%)\na;1,1;4,8;97,12\nb;[2 1];(8/8);9,9\n",
        ["imported", "imported"],
    ),
    "tabs": ("blocks\tchannels\n1,1\t4,8\n", ["imported"]),
    "title and merged header above": (
        'Our networks,,\n,Architecture,,Result\nname,blocks,channels,acc\na,"1,1","4,8",97\n',
        ["imported"],
    ),
    "nothing is run": (
        'name,blocks,channels,notes\n=1+1,"1,1","4,8",@x\na,"=SUM(A1)","4,8",\n',
        ["imported", "unreadable"],
    ),
    "duplicates": (TWO + TWO.splitlines()[1] + "\n", ["imported", "imported", "tried already"]),
    "negative widths": ('blocks,channels\n"1,1","4,-8"\n"1,-1","4,8"\n', ["unreadable"] * 2),
    "zero, even kernel, too few": (
        'blocks,channels,kernel sizes\n"0,1","4,8",3\n"1,1","4,8",2\n"1,1",4,3\n',
        ["unreadable"] * 3,
    ),
    "unquoted lists": ("name,blocks,channels\na,1,1,4,8\n", ["unreadable"]),
    "a list joined to a number": ("blocks,channels\n3333,128100164200\n", ["unreadable"]),
    "accuracy of 300 %": ('blocks,channels,accuracy\n"1,1","4,8",300\n', ["unreadable"]),
    "layers that are not there": (
        'residual layers,blocks,channels\n4,"1,1","4,8"\n2,"1,1","4,8"\n',
        ["unreadable", "imported"],
    ),
    "over budget, outside": (
        'blocks,channels\n"4,4","64,640"\n"1,1,1","4,8,8"\n',
        ["over budget", "outside the space"],
    ),
    "3x3 kernels, block types": (
        'blocks,channels,kernel sizes,block types\n"1,1","4,8",3x3,basic\n"1,1","4,8",3,nope\n',
        ["imported", "unreadable"],
    ),
    "10,000 rows": (
        "blocks,channels\n" + '"1,1","4,8"\n"1,-1","4,8"\n' * 5_000,
        ["imported", "unreadable", *["tried already", "unreadable"] * 4_999],
    ),
    "column twice": ("blocks,channels,acc,accuracy\n", "has the column 'accuracy' twice"),
    "no header": ("1,2,3\n4,5,6\n", "no row with the columns blocks and channels"),
    "titles that are nearly known": (
        "name,depth,channels\na,1,4\n",
        "blocks and channels; .* has 'name', 'depth', 'channels'$",
    ),
    "other titles": (
        'Model Name,Blocks per layer,Channels per layer,# of blocks\na,"1,1","4,8",2\n',
        ["imported"],
    ),
    "empty": ("", "no row with the columns blocks and channels"),
    "header alone": ("blocks,channels\n", []),
    "NUL": (b"blocks,channels\n\0\n", "is not text in UTF-8"),
    "binary": (bytes(range(256)), "is not text in UTF-8"),
}


@pytest.mark.parametrize(("content", "expected"), SHEETS.values(), ids=SHEETS)
def test_every_row_gets_its_verdict_or_the_file_one_line(
    scored: Scored, folder: Path, content: str | bytes, expected: list[str] | str
) -> None:
    study = scored()
    (folder / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            bring("a.csv")
        assert num_records(study) == 0
        return
    found = bring("a.csv")
    assert [v.verdict for v in found] == expected
    assert num_records(study) == sum(v.is_recorded for v in found)
    assert all(v.detail for v in found if v.verdict not in ("imported", "tried already"))


@pytest.mark.parametrize(
    ("cell", "differs"),
    [
        ('"4,978,810"', False),
        ("4.978.810", False),
        ("4 978 810", False),
        ("4978810.0", False),
        ('"4,978,810.00"', False),
        ('"4.978.810,00"', False),
        ('"4,979k"', False),
        ('"4,970k"', True),
        ("4978.810k", False),
        ('"4,978.810k"', False),
        ("4.98M", False),
        ("5M", False),
        ("4.97M", True),
        ("4.98e6", False),
        ("5E+6", False),
        ("4.97e6", True),
        ('"4,978,811"', True),
        ("", False),
    ],
)
@pytest.mark.usefixtures("scored")
def test_parameters_are_recounted(scored: Scored, cell: str, differs: bool) -> None:  # noqa: FBT001
    scored()
    Path("a.csv").write_text(f'blocks,channels,params\n"3,3,3,3","128,100,164,200",{cell}\n')
    (verdict,) = bring("a.csv")
    assert ("the sheet says" in verdict.detail) == differs
    assert not differs or "they are 4,978,810" in verdict.detail


def test_thousands_with_a_comma_are_read_as_what_they_may_be(scored: Scored) -> None:
    scored()
    counted = f"{count_params(Architecture.of([1, 1], [4, 8])) / 1000:.3f}".replace(".", ",")
    Path("a.csv").write_text(f'blocks,channels,params\n"1,1","4,8","{counted}k"\n')
    (verdict,) = bring("a.csv")
    assert verdict.detail == ""


@pytest.mark.parametrize(
    ("cell", "accuracy"),
    [("97.12", 0.9712), ("97.12 %", 0.9712), ('"97,12%"', 0.9712), ("0.9712", 0.9712), ("1", 1.0)],
)
def test_accuracies_are_percent_or_fraction(scored: Scored, cell: str, accuracy: float) -> None:
    study = scored()
    Path("a.csv").write_text(f'blocks,channels,accuracy\n"1,1","4,8",{cell}\n')
    bring("a.csv")
    assert [t.accuracy for t in history(study)] == [accuracy]


@pytest.mark.parametrize("ending", ["xlsx", "parquet"])
def test_a_damaged_file_is_one_line(scored: Scored, folder: Path, ending: str) -> None:
    scored()
    (folder / f"a.{ending}").write_bytes(b"PAR1 or PK, cut short")
    with pytest.raises(UserError, match="is not a") as caught:
        bring(f"a.{ending}")
    assert "\n" not in str(caught.value)


def test_a_workbook_with_a_damaged_part_is_not_left_open(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.xlsx", tmp_path / "damaged.xlsx"
    pd.DataFrame({"blocks": ["1,1"]}).to_excel(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            target.writestr(name, "<" if name == "xl/workbook.xml" else source.read(name))
    with pytest.raises(UserError) as caught:
        list(read_sheet(damaged))
    assert str(damaged) not in [file.path for file in psutil.Process().open_files()]
    assert "is not an .xlsx file" in str(caught.value)  # whose traceback has lived until here


@pytest.mark.parametrize(
    ("cells", "verdict", "detail"),
    [
        ('"999,1",99,99', "over budget", "num_params "),
        ('"1000,1",3,1', "unreadable", "blocks or channels are too many; is a list joined to one"),
        ('"1,1","3,101",1', "unreadable", "a kernel is larger than 99; is a list joined to one"),
        ('"1,1",3,"101,1"', "unreadable", "a kernel is larger than 99; is a list joined to one"),
    ],
)
def test_of_1000_blocks_and_kernels_of_99_at_most_a_row_is_read(
    scored: Scored, cells: str, verdict: str, detail: str
) -> None:
    scored()
    Path("a.csv").write_text(
        f'channels,blocks,kernel sizes,shortcut kernels,accuracy\n"4,8",{cells},0.5\n'
    )
    (found,) = bring("a.csv")
    assert found.verdict == verdict
    assert found.detail.startswith(detail)


def test_cells_of_a_workbook_may_be_numbers_dates_and_blank(scored: Scored) -> None:
    study = scored()
    book = openpyxl.Workbook()
    book.active.append(["Sheet of mine"])
    titles = ["name", "blocks", "channels", "accuracy", "lr", "Number of epochs", "date", "seed"]
    book.active.append(titles)
    book.active.append([7, "1, 1", "[4, 8]", 97.12, 0.1, 200.0, pd.Timestamp("2024-05-01"), 3.0])
    book.active.append(["f", "=1+1", "4, 8", None, None, None, None, None])
    book.save("a.xlsx")
    assert verdicts("a.xlsx") == ["imported", "unreadable"]
    (found,) = history(study)
    assert (found.name, found.accuracy, found.lr, found.epochs) == ("7", 0.9712, "0.1", "200")
    assert (found.date, found.seed) == ("2024-05-01", 3)


@pytest.mark.parametrize("rest", ["ok\n", '"ok\n', "ok\n" * 60_000])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_quote_that_is_not_closed_swallows_no_row(
    scored: Scored, rest: str, separator: str, ending: str
) -> None:
    study = scored()
    rows = f'blocks,channels,acc,notes\n"1/1",4/8,0.5,a\n1/1,4/8,0.6,"see paper\n2/1,8/8,0.7,{rest}'
    Path("a.csv").write_bytes(rows.replace(",", separator).replace("\n", ending).encode())
    with pytest.raises(UserError, match="a quote in line 3 is not closed where its cell ends"):
        verdicts("a.csv")
    assert not history(study)


def test_a_formula_without_a_value_is_no_missing_number(scored: Scored) -> None:
    scored()
    book = openpyxl.Workbook()
    book.active.append(["blocks", "channels", "accuracy"])
    book.active.append(["1,1", "4,8", "=0.5+0.1"])
    book.save("a.xlsx")
    (found,) = bring("a.xlsx")
    assert (found.verdict, found.detail) == ("unreadable", "accuracy is '=0.5+0.1', not a number")
    sheet = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile("a.xlsx") as book, zipfile.ZipFile("computed.xlsx", "w") as computed:
        for name in book.namelist():
            part = book.read(name)
            if name == sheet:  # as a spreadsheet program leaves it, the formula's value a blank
                part = re.sub(
                    rb'r="C2"><f>[^<]*</f><v ?/>', b'r="C2" t="str"><f>A9</f><v></v>', part
                )
                assert b't="str"><f>A9</f>' in part
            computed.writestr(name, part)
    assert verdicts("computed.xlsx") == ["imported"]


@pytest.mark.parametrize(
    ("text", "accuracy"),
    [(".5", 0.5), ("+0.5", 0.5), ("50 percent", 0.5), ("50Percent", 0.5), ("5.e1", 0.5)],
)
def test_numbers_are_read_as_people_write_them(scored: Scored, text: str, accuracy: float) -> None:
    study = scored()
    Path("a.csv").write_text(f"blocks,channels,acc,params\n1/1,4/8,{text},.001M\n")
    assert verdicts("a.csv") == ["imported"]
    (found,) = history(study)
    assert found.accuracy == accuracy


def test_a_workbook_shows_percent_and_keeps_texts_that_look_missing(scored: Scored) -> None:
    study = scored()
    book = openpyxl.Workbook()
    book.active.append(["name", "blocks", "channels", "Test accuracy (%)", "notes"])
    book.active.append(["NA", "1,1", "4,8", 0.9712, "None"])
    book.active.append(["null", "2,1", "8,8", 96.1, "n/a"])
    book.active["D2"].number_format = "0.00%"
    book.save("a.xlsx")
    assert verdicts("a.xlsx") == ["imported", "imported"]
    assert [t.accuracy for t in history(study)] == [0.9712, 0.961]
    assert [(t.name, t.notes) for t in history(study)] == [("NA", "None"), ("null", "n/a")]


@pytest.mark.parametrize("shown_as", ['0.00"%"', r"0.00\%"])
def test_a_percent_sign_that_is_mere_text_multiplies_nothing(scored: Scored, shown_as: str) -> None:
    study = scored()
    book = openpyxl.Workbook()
    book.active.append(["blocks", "channels", "accuracy"])
    book.active.append(["1,1", "4,8", 97.12])
    book.active["C2"].number_format = shown_as
    book.save("a.xlsx")
    assert verdicts("a.xlsx") == ["imported"]
    assert [t.accuracy for t in history(study)] == [0.9712]


def test_a_list_may_stand_in_several_cells_below_one_title(scored: Scored) -> None:
    study = scored()
    Path("a.csv").write_text("name,blocks,,channels,,accuracy\nx,2,1,8,16,0.5\ny,2,3,8,32,0.6\n")
    assert verdicts("a.csv") == ["imported", "imported"]
    assert [str(t.arch) for t in history(study)] == ["2x8, 1x16", "2x8, 3x32"]


@pytest.mark.parametrize("row", [[0.5, 2, 1, 8, 16], [0.5, "2, 1", None, 8, 16]])
def test_a_list_in_several_cells_may_go_beyond_the_last_title(
    scored: Scored, row: list[object]
) -> None:
    study = scored()
    book = openpyxl.Workbook()
    book.active.append(["accuracy", "blocks", None, "channels"])
    book.active.append(row)
    book.save("a.xlsx")
    assert verdicts("a.xlsx") == ["imported"]
    assert [str(t.arch) for t in history(study)] == ["2x8, 1x16"]


QUOTES = "more cells than columns; a list of numbers needs quotes"


@pytest.mark.parametrize(
    ("header", "row", "detail"),
    [
        ("blocks,channels", "1,1,4,8", QUOTES),
        ("blocks,,channels", "2,1,8,16,good run", QUOTES),
        ("blocks,,,channels", "2,1,1,8,16,x24,32", QUOTES),
        ("blocks,,channels,", "3,3,64,", "blocks lists 2 stages, channels 1"),
        ("blocks,,channels,", "3,,64,128", "blocks lists 1 stages, channels 2"),
    ],
)
def test_half_of_a_list_in_several_cells_is_refused(
    scored: Scored, header: str, row: str, detail: str
) -> None:
    scored()
    Path("a.csv").write_text(f"{header}\n{row}\n")
    (verdict,) = bring("a.csv")
    assert (verdict.verdict, verdict.detail) == ("unreadable", detail)


@pytest.mark.parametrize(
    ("header", "row", "arch"),
    [
        ("blocks,channels,", '"1,1","4,8",good one', "1x4, 1x8"),
        ("blocks,channels,", '"1,1","4,8",7', "1x4, 1x8"),
        ("blocks,,channels", '"1,1",9,"4,8"', "1x4, 1x8"),
        ("blocks,,,channels,,", "1,1,-,4,8,-", "1x4, 1x8"),
        ("blocks,,channels,,kernels,", "1,1,4,8,-,-", "1x4, 1x8"),
        ("blocks,channels,block types,", '"1,1","4,8",basic,as He et al.', "1x4, 1x8"),
        ("blocks,channels,kernels,", '"1,1","4,8",3,5', "1x4, 1x8"),
    ],
)
def test_what_stands_below_no_title_is_no_entry_of_a_list_that_is_whole(
    scored: Scored, header: str, row: str, arch: str
) -> None:
    study = scored()
    Path("a.csv").write_text(f"accuracy,{header}\n0.5,{row}\n")
    assert verdicts("a.csv") != ["unreadable"]
    assert [str(t.arch) for t in history(study)] == [arch]


def test_a_column_that_is_also_the_index_of_a_parquet_file_is_read_once(scored: Scored) -> None:
    study = scored()
    frame = pd.DataFrame({"name": ["a"], "blocks": ["1,1"], "channels": ["4,8"], "accuracy": [0.5]})
    frame.set_index("name", drop=False).to_parquet("a.parquet")
    assert verdicts("a.parquet") == ["imported"]
    assert [t.name for t in history(study)] == ["a"]


def test_names_in_the_index_of_a_parquet_file_are_read(scored: Scored) -> None:
    study = scored()
    frame = pd.DataFrame({"blocks": ["1,1"] * 2, "channels": ["4,8"] * 2, "accuracy": [0.5] * 2})
    frame.set_index(pd.Index(["a", "b"], name="name")).to_parquet("a.parquet")
    assert verdicts("a.parquet") == ["imported", "imported"]
    assert [t.name for t in history(study)] == ["a", "b"]


def test_the_worksheet_with_the_columns_is_read_wherever_it_stands(scored: Scored) -> None:
    study = scored()
    book = openpyxl.Workbook()
    book.active.append(["What this book is", "of"])
    table = book.create_sheet("networks")
    table.append(["blocks", "channels", "accuracy"])
    table.append(["1,1", "4,8", 0.97])
    book.create_sheet("plots")
    book.save("a.xlsx")
    assert verdicts("a.xlsx") == ["imported"]
    assert [t.accuracy for t in history(study)] == [0.97]


def test_a_workbook_that_understates_its_size_is_read_whole(scored: Scored) -> None:
    study = scored()
    book = openpyxl.Workbook()
    for row in (["blocks", "channels", "accuracy"], ["1,1", "4,8", 0.97], ["2,1", "8,8", 0.5]):
        book.active.append(row)
    book.save("whole.xlsx")
    with zipfile.ZipFile("whole.xlsx") as whole, zipfile.ZipFile("a.xlsx", "w") as wrong:
        parts = {name: whole.read(name) for name in whole.namelist()}
        sheet = parts["xl/worksheets/sheet1.xml"]
        parts["xl/worksheets/sheet1.xml"] = sheet.replace(b'ref="A1:C3"', b'ref="A1:B2"')
        assert parts["xl/worksheets/sheet1.xml"] != sheet
        for name, content in parts.items():
            wrong.writestr(name, content)
    assert verdicts("a.xlsx") == ["imported", "imported"]
    assert [t.accuracy for t in history(study)] == [0.97, 0.5]


def test_what_a_workbook_cannot_hold_is_marked_in_it(scored: Scored) -> None:
    study = scored(ARCH)
    set_note(study, 0, "bell\a, escape \x1b[31m")
    export_sheet(study, Path("a.xlsx"))
    assert pd.read_excel("a.xlsx")["notes"].tolist() == ["bell\ufffd, escape \ufffd[31m"]


def test_a_fraction_in_a_column_of_percent_is_refused(scored: Scored) -> None:
    study = scored()
    Path("a.csv").write_text(
        'blocks,channels,Accuracy percent\n"1,1","4,8",0.9712\n"1,1","4,8",0.9 %\n"1,1","4,8",0\n'
    )
    found = bring("a.csv")
    assert [each.verdict for each in found] == ["unreadable", "imported", "imported"]
    assert "in a column of percent; write 97.12 or 0.9712 %" in found[0].detail
    assert [t.accuracy for t in history(study)] == [0.009, 0.0]


@pytest.mark.parametrize("blank", ["-", "–", "?", "n/a", "NaN", "TBD"])  # noqa: RUF001
def test_what_stands_for_a_missing_number_is_none(scored: Scored, blank: str) -> None:
    study = scored()
    Path("a.csv").write_text(
        "name,blocks,channels,accuracy,params,seed,residual layers,kernel sizes,shortcut kernels,"
        f'lr,epochs,optimizer,date,block types\n{blank},"1,1","4,8"{f",{blank}" * 11}\n'
    )
    assert verdicts("a.csv") == ["imported"]
    (found,) = history(study)
    assert (found.name, found.accuracy, found.seed) == (blank, None, None)
    assert (found.lr, found.epochs, found.optimizer, found.date) == ("", "", "", "")
    assert found.arch.stages == ARCH.stages


def test_one_learning_rate_written_in_many_ways_is_one(scored: Scored) -> None:
    study = scored()
    rows = "".join(f'"1,1","4,8",0.5,{lr}\n' for lr in ("0.10", '"0,1"', "1e-1"))
    Path("a.csv").write_text(f"blocks,channels,accuracy,lr\n{rows}")
    assert verdicts("a.csv") == ["imported", "tried already", "tried already"]
    assert [t.lr for t in history(study)] == ["0.1"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [("4.97", "4,970,000"), ('"4,98"', ""), ("4978810", ""), ('"4,978,811"', "4,978,811")],
)
def test_the_unit_of_a_title_counts(scored: Scored, cell: str, said: str) -> None:
    scored()
    Path("a.csv").write_text(f'blocks,channels,Params (M)\n"3,3,3,3","128,100,164,200",{cell}\n')
    (verdict,) = bring("a.csv")
    assert ("the sheet says" in verdict.detail) == bool(said)
    assert said in verdict.detail


def test_columns_that_are_not_read_are_named(
    scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    study = scored()
    Path("a.csv").write_text(
        "Model,blocks,channels,kernel,Top-1 (%),Top-5 (%),GPU,result\n"
        'a,"1,1","4,8",5,97.1,99.9,A100,scored\n'
    )
    assert run("import", "a.csv", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == "warning: columns that are not known, and not read: 'Top-5 (%)', 'GPU'\n"
    assert [row["verdict"] for row in json.loads(printed.out)] == ["imported"]
    (found,) = history(study)
    assert (found.accuracy, [s.kernel_size for s in found.arch.stages]) == (0.971, [5, 5])


# The commands


def test_the_commands_say_what_they_did(scored: Scored, capsys: pytest.CaptureFixture[str]) -> None:
    scored(ARCH)
    Path("hand.csv").write_text(TWO)
    assert run("import", "hand.csv", "--dry-run") == 0
    assert "would be recorded: 2" in capsys.readouterr().out
    assert run("import", "hand.csv", "--study", "mine", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in answer] == ["imported", "imported"]
    assert run("export", "mine", "tried.csv") == 0
    assert capsys.readouterr().out == "3 rows in tried.csv\n"


def test_a_header_alone_has_no_rows(scored: Scored, capsys: pytest.CaptureFixture[str]) -> None:
    scored()
    Path("a.csv").write_text("blocks,channels\n")
    assert run("import", "a.csv") == 0
    assert capsys.readouterr().out == "no rows\nrecorded: 0, enqueued: 0\n"


def test_a_name_steers_no_terminal_and_is_on_one_line(
    scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    scored()
    Path("a.csv").write_text('name,blocks,channels\n"\x1b[31mred\n\anet","1,1","4,8"\n')
    assert run("import", "a.csv") == 0
    assert capsys.readouterr().out.splitlines()[0] == "line 2 [31mred net: imported"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export mine a.doc", "a sheet is one of .csv, .xlsx, .parquet"),
        ("export mine missing/a.csv", "cannot write missing/a.csv"),
        ("export ../mine a.csv", "no study '../mine' in studies"),
        ("import missing.csv", "cannot read missing.csv"),
        ("import a.doc", "a sheet is one of .csv, .tsv, .txt, .xlsx, .parquet"),
        ("import missing.csv --study nope", "no study 'nope' in studies; there is: mine"),
    ],
)
def test_bad_input_is_one_line(
    scored: Scored, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    scored(ARCH)
    assert run(*arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("ending", "package"), [("xlsx", "openpyxl"), ("parquet", "pyarrow")])
def test_a_missing_package_is_one_line_with_the_way_out(
    scored: Scored, monkeypatch: pytest.MonkeyPatch, ending: str, package: str
) -> None:
    study = scored(ARCH)
    assert importlib.util.find_spec(package)
    export_sheet(study, Path(f"b.{ending}"))  # what pandas imports late is there
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"needs pip install 'nas-under-budget\[sheets\]'"):
        export_sheet(study, Path(f"a.{ending}"))
    assert not list(Path().glob("*a.*"))
