"""Saved models in other formats, class predictions of image files, and the learning curve."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from commands import run
from PIL import Image

from nas import load_model
from nas.architecture import Architecture
from nas.batches import Normalization
from nas.cli.predict import predict_files
from nas.errors import UserError
from nas.formats import FORMATS, export
from nas.learning_curve import learning_curve, learning_curve_page
from nas.model import build_model
from nas.saved_model import HALF_WEIGHTS, Classifier, save_model
from nas.split import resize

if TYPE_CHECKING:
    from pathlib import Path

ARCH = Architecture.of([1, 1], [4, 8], num_classes=3)
CLASSES = ("cat", "dog", "=frog")
SIDE = 12


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with batch norm statistics of its own."""
    network = build_model(ARCH, generator=torch.Generator().manual_seed(1))
    normalization = Normalization.of(images(50))
    network.train()
    network(normalization(images(50)))
    classifier = Classifier(
        network,
        normalization,
        architecture=ARCH,
        class_names=CLASSES,
        resolution=SIDE,
        image_size=SIDE,
    )
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, classifier.eval(), {})
    return folder


@torch.no_grad()
def logits(folder: Path, pixels: torch.Tensor, **others: str) -> torch.Tensor:
    found: torch.Tensor = load_model(folder, **others)(pixels)
    return found


def test_onnx_gives_the_models_logits_for_any_number_of_images(model: Path) -> None:
    (exported,) = export(model, ["onnx"], images(4))
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    for count in (1, 7):
        (found,) = session.run(["logits"], {"images": images(count).numpy()})
        np.testing.assert_allclose(found, logits(model, images(count)).numpy(), atol=1e-5)


def test_pt2_gives_the_models_logits_without_this_package(model: Path) -> None:
    (exported,) = export(model, ["pt2"], images(4))
    program = torch.export.load(exported.path).module()
    for count in (1, 7):
        torch.testing.assert_close(program(images(count)), logits(model, images(count)))


def test_half_weights_are_half_the_size_and_nearly_the_model(model: Path) -> None:
    (exported,) = export(model, ["fp16"], images(4))
    found = logits(model, images(7), weights=HALF_WEIGHTS)
    torch.testing.assert_close(found, logits(model, images(7)), atol=0.01, rtol=0.01)
    assert 0 < exported.max_difference < 0.01
    whole, half = (_tensor_bytes(model / name) for name in ("model.safetensors", HALF_WEIGHTS))
    assert half < 0.55 * whole  # batch norm's counters stay whole numbers


def _tensor_bytes(path: Path) -> int:
    content = path.read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def test_a_result_that_is_not_the_models_is_refused_and_not_written(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    strict = dataclasses.replace(FORMATS["fp16"], file="strict", tolerance=0.0)
    monkeypatch.setitem(FORMATS, "fp16", strict)
    with pytest.raises(UserError, match="is not the same: a logit differs by"):
        export(model, ["fp16"], images(4))
    assert not (model / "strict").exists()


def test_unknown_formats_and_absent_libraries_are_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    with pytest.raises(UserError, match="unknown export format 'tflite'; known: onnx, pt2, fp16"):
        export(model, ["tflite"], images(4))
    monkeypatch.setitem(
        FORMATS, "onnx", dataclasses.replace(FORMATS["onnx"], needs=("no_such_module",))
    )
    with pytest.raises(UserError, match=r"--export onnx needs no_such_module: pip install"):
        export(model, ["onnx"], images(4))


def test_floating_pixels_are_left_as_they_were(model: Path) -> None:
    pixels = images(3).float().to(memory_format=torch.channels_last)
    before = pixels.clone()
    torch.testing.assert_close(logits(model, pixels), logits(model, images(3)))
    assert torch.equal(pixels, before)


def write_png(path: Path, side: int, *, mode: str = "RGB") -> Path:
    values = np.random.default_rng(side).integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_predict_names_classes_of_any_image_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    path = write_png(tmp_path / "some.png", 40, mode=mode)
    assert run("predict", str(model), str(path), str(path), "--top", "9", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == second
    assert {each["class"] for each in first["classes"]} == set(CLASSES)
    probabilities = [each["probability"] for each in first["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)


@pytest.mark.parametrize("is_json", [False, True])
def test_predict_classifies_what_it_can_read_and_then_refuses_the_rest(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_json: bool
) -> None:
    good = write_png(tmp_path / "good.png", 40)
    (tmp_path / "bad.png").write_text("no image")
    files = [str(tmp_path / "absent.png"), str(good), str(tmp_path / "bad.png")]
    assert run("predict", str(model), *files, *["--json"][:is_json]) == 2
    told = capsys.readouterr()
    found = [each["image"] for each in json.loads(told.out)] if is_json else told.out.splitlines()
    assert len(found) == 1
    assert found[0].startswith(str(good))
    assert told.err.startswith(f"error: cannot read {files[0]} as an image: ")
    assert told.err.endswith(" (and 1 more of 3 files)\n")
    assert run("predict", str(model), files[2]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert " more of " not in told.err


def test_a_folder_of_several_seeds_names_one_of_them(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "strong" / "seed-0")
    with pytest.raises(UserError, match=r"a model of each seed; name one, such as .*/seed-0$"):
        load_model(tmp_path / "strong")


def test_predict_resizes_as_the_training_did(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"image_size": 2 * SIDE}
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2 * SIDE, 2 * SIDE, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "native.png")
    resized = resize(pixels.permute(2, 0, 1)[None], SIDE)

    predictions, _ = predict_files(folder, [tmp_path / "native.png"], top=9)
    expected = load_model(folder).predict(resized)[0].sort(descending=True).values
    probabilities = [each["probability"] for each in predictions[0]["classes"]]
    assert probabilities == pytest.approx(expected.tolist(), abs=1e-6)


def test_predict_looks_at_the_centre_square(tmp_path: Path) -> None:
    from nas.data_sets import read_image

    pixels = images(1)
    wide = np.zeros((SIDE, SIDE + 10, 3), dtype=np.uint8)
    wide[:, 5:-5] = pixels[0].permute(1, 2, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert torch.equal(read_image(tmp_path / "wide.png", SIDE, 3), pixels)


def test_predict_turns_a_photograph_upright(tmp_path: Path) -> None:
    from nas.data_sets import read_image

    pixels = images(1)
    turned = Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).rotate(90)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "turned.png", SIDE, 3), pixels)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "as an image: No such file"),
        (b"no image", "as an image: no known image format"),
    ],
)
def test_what_is_no_image_is_one_line(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, says: str
) -> None:
    if content is not None:
        (folder / "bad.png").write_bytes(content)
    assert run("predict", str(model), "bad.png") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line


ROWS = [
    {
        "epoch": e,
        "train_loss": 2.0 - e,
        "train_accuracy": 0.2 + e / 10,
        "lr": 0.1,
        "val_accuracy": v,
    }
    for e, v in enumerate((0.3, 0.5))
]


def test_the_learning_curve_shows_percent_by_epoch_from_1() -> None:
    drawn = {(trace.name, tuple(map(round, trace.y))) for trace in learning_curve(ROWS, "").data}
    assert ("val", (30, 50)) in drawn
    assert ("train, augmented", (20, 30)) in drawn
    assert ("train, augmented", (2, 1)) in drawn
    assert {trace.x for trace in learning_curve(ROWS, "").data} == {(1, 2)}


def test_without_val_it_draws_what_there_is() -> None:
    rows = [{k: v for k, v in row.items() if k != "val_accuracy"} for row in ROWS]
    assert "val" not in {trace.name for trace in learning_curve(rows, "").data}


def test_its_page_loads_nothing_from_elsewhere_and_escapes_the_title() -> None:
    page = learning_curve_page(ROWS, "<script>alert(1)</script>").decode()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert "<script>alert(1)" not in page
