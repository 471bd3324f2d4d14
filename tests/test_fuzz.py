"""Whatever a file or a flag holds, the answer is a result or one line: never a traceback."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import architectures

if TYPE_CHECKING:
    from collections.abc import Callable

    from nas.architecture import Architecture

# NAS_FUZZ=1000 looks longer than CI does.
EXAMPLES = int(os.environ.get("NAS_FUZZ", "25"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="NAS_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pytestmark = pytest.mark.usefixtures("folder")

ODD = (
    "", " ", "0", "-1", "1", "2", "00", "1e999", "nan", "inf", "-inf", "5e6", "1_0", "1__0", "0.5",
    "1e-400", "9" * 400, "\N{ARABIC-INDIC DIGIT FIVE}", "5M", "5m5", "1h1h", "0x10", "1,2", ",",
    "5x3", "0x0", "x", "--", "-", "..", "../..", "/", "~", ".", "a/b", "a\\b", "\udcff", "\ufeff",
    "%s", "{}", "[", "*", "\n", "sqlite://", "sqlite:///", "sqlite:///.", "sqlite:///a/b/c.db",
    "mysql://x", "postgresql+nothing://x@y/z", "http://localhost", "standard", "resnet", "cpu",
)  # fmt: skip
typed = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_characters="\0"), max_size=12),
    st.integers().map(str),
    st.floats().map(str),
)


def answer(capfd: pytest.CaptureFixture[str], *arguments: str) -> int:
    """Require success, or one line and 2; gives the code."""
    code, told = run(*arguments), capfd.readouterr().err
    assert code in (0, 2), told
    if code == 2:
        errors = [line for line in told.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, told
        assert told.count("Traceback") == 0
    return code


# Flags. The data set is looked for after all else was checked, so that nothing is ever trained.

SEARCH_FLAGS = (
    "--budget", "--trials", "--fill", "--max-macs", "--max-bytes", "--space", "--image-size",
    "--data", "--proxy", "--epochs", "--resolution", "--width-factor", "--batch-size",
    "--finalists", "--sampler", "--study", "--storage", "--device", "--workers", "--timeout",
    "--trial-timeout", "--patience", "--seed",
)  # fmt: skip
RETRAIN_FLAGS = (
    "--trial", "--top", "--by", "--model", "--architecture", "--study", "--storage", "--recipe",
    "--seeds", "--image-size", "--data", "--device", "--export", "--epochs", "--batch-size",
)  # fmt: skip
OTHERS = (
    ("count", ("--blocks", "--widths", "--kernels", "--model", "--architecture", "--resolution")),
    ("leaderboard", ("--storage", "--top", "--by")),
    ("show", ("--study", "--storage")),
    ("tried", ("--blocks", "--widths", "--model", "--study", "--storage")),
    ("report", ("--out", "--storage")),
    ("export", ("--storage",)),
    ("import", ("--study", "--storage")),
    ("predict", ("--top",)),
    ("note", ("--study", "--storage")),
    ("delete", ("--storage",)),
    ("list", ("--storage",)),
)


def flags(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    pairs = st.lists(st.tuples(st.sampled_from(names), typed), max_size=3)
    return pairs.map(lambda chosen: [word for pair in chosen for word in pair])


@pytest.mark.parametrize(
    ("command", "known"), [("search", SEARCH_FLAGS), ("retrain", RETRAIN_FLAGS)]
)
@fuzzed
@given(data=st.data())
def test_wrong_flags_are_refused_in_one_line(
    capfd: pytest.CaptureFixture[str], command: str, known: tuple[str, ...], data: st.DataObject
) -> None:
    assert answer(capfd, command, "--dataset", "folder:absent", *data.draw(flags(known))) == 2


@fuzzed
@given(data=st.data())
def test_other_commands_take_or_refuse_what_is_typed(
    capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    name, known = data.draw(st.sampled_from(OTHERS))
    arguments = data.draw(st.lists(typed, max_size=2))
    answer(capfd, name, *arguments, *data.draw(flags(known)))


# Files


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)


def mutated(text: str) -> st.SearchStrategy[str]:
    """A text with a piece of it replaced, dropped or doubled."""

    def at(draw: tuple[int, int, str]) -> str:
        start, length, put = draw
        return text[:start] + put + text[start + length :]

    pieces = st.sampled_from(
        ("", "=", "-1", "1e99", "nan", '"x"', "[", "]", "{", "\n[a]\n", "true")
    )
    cuts = st.tuples(st.integers(0, len(text)), st.integers(0, 12), pieces | st.text(max_size=4))
    return cuts.map(at)


PRESETS = {kind: files("nas.presets") / kind for kind in ("spaces", "proxies", "recipes")}


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("spaces", "search --dataset folder:absent --space file.toml"),
        ("proxies", "search --dataset folder:absent --proxy file.toml"),
        ("recipes", "retrain --dataset folder:absent --model ResNet26_97 --recipe file.toml"),
    ],
)
@fuzzed
@given(data=st.data())
def test_presets_are_read_or_refused(
    capfd: pytest.CaptureFixture[str], kind: str, command: str, data: st.DataObject
) -> None:
    shipped = sorted(PRESETS[kind].iterdir(), key=lambda entry: entry.name)
    texts = [entry.read_text(encoding="utf-8") for entry in shipped if entry.name.endswith("toml")]
    text = data.draw(st.sampled_from(texts).flatmap(mutated) | st.text(max_size=40))
    Path("file.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert answer(capfd, *command.split()) == 2


@fuzzed
@given(arch=architectures(), data=st.data())
def test_architectures_are_read_or_refused(
    capfd: pytest.CaptureFixture[str], arch: Architecture, data: st.DataObject
) -> None:
    raw = json.loads(arch.to_json())
    key = data.draw(st.sampled_from(sorted(raw)))
    stage_key = data.draw(st.sampled_from(sorted(raw["stages"][0])))
    holder, name = data.draw(st.sampled_from([(raw, key), (raw["stages"][0], stage_key)]))
    holder[name] = data.draw(values)
    text = data.draw(st.just(json.dumps(raw)) | mutated(arch.to_json()) | values.map(json.dumps))
    Path("arch.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    answer(capfd, "count", "--architecture", "arch.json")
    answer(capfd, "retrain", "--dataset", "folder:absent", "--architecture", "arch.json")


cells = st.one_of(
    st.sampled_from(
        ("", "3,3", "[3, 3]", "8", "8 16", "97.12 %", "0.9", "1,000", "-1", "1e999", "nan", "=1+1",
         "2026-13-45", "x" * 300, "3,3,3,3,3,3,3,3,3", "10**9", "9" * 30)
    ),
    st.text(max_size=8),
)  # fmt: skip
HEADS = ("Name", "Blocks", "Channels", "Kernel sizes", "Shortcut kernels", "Residual layers",
         "Parameters", "Accuracy", "Optimizer", "lr", "Notes", "Date", "seed", "?")  # fmt: skip


def as_csv(head: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


tables = st.builds(
    as_csv,
    st.lists(st.sampled_from(HEADS), min_size=1, max_size=6),
    st.lists(st.lists(cells, max_size=7), max_size=4),
)


@pytest.mark.usefixtures("scored_once")
@fuzzed
@given(content=tables | st.binary(max_size=60), end=st.sampled_from(("csv", "xlsx", "parquet")))
def test_sheets_are_read_or_refused(
    capfd: pytest.CaptureFixture[str], content: bytes, end: str
) -> None:
    Path(f"sheet.{end}").write_bytes(content)
    answer(capfd, "import", f"sheet.{end}", "--dry-run")


@pytest.fixture
def scored_once(tiny: Callable[..., Any]) -> None:
    """A study with one scored network."""
    tiny(1)


@pytest.fixture
def saved(tiny: Callable[..., Any]) -> Path:
    """A model's folder, and an image."""
    from PIL import Image

    import nas

    study = tiny(1)
    (done,) = nas.retrain(
        study.best_trial.number,
        device="cpu",
        epochs=1,
        batch_size=200,
        resolution=8,
        checkpoint_seconds=1e9,
    )
    Image.new("RGB", (32, 32)).save("image.png")
    return done.folder


@fuzzed
@given(data=st.data())
def test_models_and_images_are_read_or_refused(
    saved: Path, capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    shutil.rmtree("model", ignore_errors=True)
    shutil.copytree(saved, "model")
    shutil.copy("image.png", "other.png")
    files_of_model = sorted(Path("model").glob("*.json")) + sorted(Path("model").glob("*.safe*"))
    path = data.draw(st.sampled_from([*files_of_model, Path("other.png")]))
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    put = data.draw(st.binary(max_size=8))
    path.write_bytes(content[:cut] + put + content[cut + data.draw(st.integers(0, 40)) :])
    answer(capfd, "predict", "model", "other.png")
