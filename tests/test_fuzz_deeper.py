"""Fuzzing behind the edge: what is right in form is run, what is damaged is read."""

from __future__ import annotations

import functools
import io
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_fuzz import EXAMPLES, fuzzed
from tiny_search import PROXY, SPACE

import nas
from nas.checkpoint import Checkpoints
from nas.proxy import ProxyConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

few = settings(fuzzed, max_examples=max(3, EXAMPLES // 4))  # each proposes networks, or trains
SEARCH = (
    "search", "--dry-run", "--budget", "3k", "--dataset", "synthetic", "--space", "tiny",
    "--proxy", "tiny", "--device", "cpu",
)  # fmt: skip
RETRAIN = (
    "retrain", "--model", "ResNet-20", "--dataset", "synthetic", "--recipe", "tiny", "--device",
    "cpu",
)  # fmt: skip
STUDY, TRAINED = "synthetic-tiny-3k-tiny", Path("studies/synthetic/ResNet-20/tiny/seed-0")
LITERALS = (
    "0", "1", "2", "3", "-1", "1.5", "nan", "inf", "true", '""', '"x"', "[]", '["basic"]', "{}",
    '["basic", "bottleneck"]', "{ low = 1 }", "{ low = 1, high = 3 }", "{ low = 3, high = 1 }",
    "{ low = 1, high = 9, step = 4 }", "{ low = 1, high = 999999999999 }", "1979-05-27", "[[1]]",
    "{ low = 2, high = 64, at_params = 1 }", "9" * 18, "9" * 40, "9" * 5_000, "1000000",
    '"1x1"', "[" * 2_000 + "]" * 2_000,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study, a trained network and its checkpoints; the current one."""
    folder = tmp_path_factory.mktemp("fuzz")
    recipe = "epochs = 1\nresolution = 8\nbatch_size = 2000\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, text in (("spaces", SPACE), ("proxies", PROXY), ("recipes", recipe)):
            (folder / "studies" / kind).mkdir(parents=True)
            (folder / "studies" / kind / "tiny.toml").write_text(text)
        nas.search(
            3_000, 2, dataset="synthetic", space="tiny", proxy="tiny", device="cpu", workers=0
        )
        assert run(*RETRAIN, "--keep-checkpoints", "--quiet") == 0
        yield folder


def answers(capfd: pytest.CaptureFixture[str], *arguments: str) -> int:
    """Require success, the doctor's 1 (findings), or one line and 2; gives the code."""
    code, err = run(*arguments), capfd.readouterr().err
    assert code in (0, 1, 2), err
    assert code < 2 or (err.startswith("error: ") and err.count("\n") == 1), err
    return code


@st.composite
def settings_file(draw: st.DrawFn, right: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """Write TOML: what is right, with one or two keys changed, added or left out."""
    entries = dict(right)
    for _ in range(draw(st.integers(1, 2))):
        entries[draw(st.sampled_from(keys))] = draw(st.sampled_from(LITERALS))
    if draw(st.booleans()):
        del entries[draw(st.sampled_from(sorted(entries)))]
    return "\n".join(f"{key} = {value}" for key, value in entries.items())


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Cut a file, overwrite a piece of it, leave one out or put one in."""
    start = draw(st.integers(0, len(whole) - 1))
    end = draw(st.sampled_from((start, start + 1, start + 16, start + 600, len(whole))))
    return whole[:start] + draw(st.binary(max_size=8)) + whole[end:]


STAGE = {"depth": "{ low = 1, high = 2 }", "width": "{ low = 2, high = 12 }"}
STAGE_KEYS = ("depth", "width", "kernel_size", "shortcut_kernel_size", "block")


@few
@given(
    stage=settings_file(STAGE, STAGE_KEYS),
    num_stages=st.sampled_from(("1", "2", "0", "9", "1000", "9" * 12, "2.0")),
)
def test_what_a_space_file_admits_can_be_proposed(
    capfd: pytest.CaptureFixture[str], stage: str, num_stages: str
) -> None:
    Path("f.toml").write_text(f"num_stages = {num_stages}\n[stage]\n{stage}\n")
    answers(capfd, *SEARCH, "--space", "f.toml")


RIGHT = dict(line.split(" = ") for line in PROXY.split("\n") if line)
PROXY_KEYS = tuple(name for name in ProxyConfig.model_fields if name != "resolution")


@few
@given(text=settings_file(RIGHT, PROXY_KEYS))
def test_what_a_proxy_file_admits_can_be_run(capfd: pytest.CaptureFixture[str], text: str) -> None:
    Path("f.toml").write_text(text)
    answers(capfd, *SEARCH, "--proxy", "f.toml")


@functools.cache
def sheet(ending: str) -> bytes:
    file = io.BytesIO()
    frame = pd.DataFrame({"name": ["a", "b"], "blocks": ["1,1", "2"], "channels": ["4,8", "8"]})
    frame.to_excel(file, index=False) if ending == "xlsx" else frame.to_parquet(file)
    return file.getvalue()


@st.composite
def damaged_inside(draw: st.DrawFn) -> bytes:
    """Damage one of the texts that an .xlsx file is an archive of."""
    with zipfile.ZipFile(io.BytesIO(sheet("xlsx"))) as whole:
        parts = {name: whole.read(name) for name in sorted(whole.namelist())}
    name = draw(st.sampled_from(sorted(parts)))
    parts[name] = draw(damaged(parts[name]))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for each, content in parts.items():
            archive.writestr(each, content)
    return file.getvalue()


SHEETS = {
    "xlsx": st.deferred(lambda: damaged(sheet("xlsx")) | damaged_inside()),
    "parquet": st.deferred(lambda: damaged(sheet("parquet"))),
}


@pytest.mark.parametrize("ending", SHEETS)
@fuzzed
@given(data=st.data())
def test_damaged_sheets_are_read_or_refused(
    capfd: pytest.CaptureFixture[str], ending: str, data: st.DataObject
) -> None:
    Path(f"f.{ending}").write_bytes(data.draw(SHEETS[ending]))
    answers(capfd, "import", f"f.{ending}", "--study", STUDY, "--dry-run")


def image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 9), (200, 100, 50)).save(file, kind)
    return file.getvalue()


@few
@given(
    content=st.sampled_from(("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "avif")).flatmap(
        lambda kind: damaged(image(kind))
    ),
    where=st.sampled_from(("a", "b", "c", ".", "train")),
)
def test_a_damaged_image_in_a_folder_is_read_or_named(
    capfd: pytest.CaptureFixture[str], content: bytes, where: str
) -> None:
    shutil.rmtree("images", ignore_errors=True)
    for label in ("a", "b"):
        Path("images", label).mkdir(parents=True)
        for number in range(10):
            Path("images", label, f"{number}.png").write_bytes(image("png"))
    Path("images", where).mkdir(exist_ok=True)
    Path("images", where, "3.png").write_bytes(content)
    answers(capfd, *SEARCH, "--dataset", "folder:images", "--image-size", "8")


@few
@given(data=st.data())
def test_a_database_that_was_cut_or_lost_pages_is_read_or_refused(
    capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    with closing(sqlite3.connect(f"studies/{STUDY}.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = Path(f"studies/{STUDY}.db").read_bytes()
    page = data.draw(st.integers(0, len(whole) // 4096 - 1)) * 4096
    lost = bytes(4096) + whole[page + 4096 :] if data.draw(st.booleans()) else b""
    Path("damaged.db").write_bytes(whole[:page] + lost)
    for extra in ("-wal", "-shm"):
        Path(f"damaged.db{extra}").unlink(missing_ok=True)
    for command in ("leaderboard", "list", "doctor"):
        answers(capfd, command, "--storage", "sqlite:///damaged.db")


@few
@given(data=st.data())
def test_a_damaged_checkpoint_is_never_gone_on_from(
    data: st.DataObject,
) -> None:
    (newest,) = sorted((TRAINED / "checkpoints").glob("step-*"))[-1:]
    whole = newest.read_bytes()
    folder = Path("studies/other/ResNet-20/tiny/seed-0/checkpoints")
    shutil.rmtree("studies/other", ignore_errors=True)
    folder.mkdir(parents=True)
    content = data.draw(damaged(whole).filter(lambda content: content != whole))
    (folder / newest.name).write_bytes(content)
    warned: list[str] = []
    found = Checkpoints(folder, identity={}).load_newest(warned.append)
    assert found is None
    assert len(warned) == 1
    assert "is damaged" in warned[0]
