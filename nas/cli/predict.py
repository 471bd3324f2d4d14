"""`nas predict`: the classes of image files, by a trained network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.choices import AsJson
from nas.cli.words import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from nas.errors import UserError

BATCH = 256  # images of 32 pixels that are classified at a time


def predict(
    folder: Annotated[Path, typer.Argument(help="What retrain.py left: .../strong/seed-0")],
    images: Annotated[list[Path], typer.Argument(help="Image files")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show of each image")] = 1,
    as_json: AsJson = False,
) -> None:
    """Classify image files by a trained network.

    \b
    nas predict studies/cifar10/ResNet26_97/strong/seed-0 cat.png dog.jpg
    nas predict studies/cifar10/ResNet26_97/strong/seed-0 cat.png --top 3 --json
    """
    from nas.errors import UserError

    predictions, errors = predict_files(folder, images, top)
    if as_json:
        print(json.dumps(predictions, indent=2))
    for prediction in [] if as_json else predictions:
        found = ((one_line(c["class"]), c["probability"]) for c in prediction["classes"])
        classes = ", ".join(f"{name} {probability:.1%}" for name, probability in found)
        print(f"{one_line(prediction['image'])}: {classes}")
    if errors:  # after what could be read
        more = f" (and {len(errors) - 1} more of {len(images)} files)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}")


def predict_files(
    folder: Path, images: list[Path], top: int
) -> tuple[list[dict[str, Any]], list[UserError]]:
    """Give each readable image's most probable classes, in JSON's types; and what others lack."""
    import torch

    from nas.data_sets import read_image
    from nas.errors import UserError
    from nas.saved_model import load_model
    from nas.split import num_at_a_time, resize

    classifier = load_model(folder)
    side, channels = classifier.image_size, classifier.architecture.in_channels
    read: list[tuple[Path, Tensor]] = []
    errors = []
    for path in images:
        try:
            read.append((path, read_image(path, side, channels)))
        except UserError as error:
            errors.append(error)
    if not read:
        return [], errors
    pixels = torch.cat([each for _, each in read])
    pixels = resize(pixels, classifier.resolution)  # as the images of its training were
    parts = torch.split(pixels, num_at_a_time(BATCH, classifier.resolution))
    probabilities = torch.cat([classifier.predict(part) for part in parts])
    best = probabilities.topk(min(top, len(classifier.class_names)))
    predictions = [
        {
            "image": str(path),
            "classes": [
                {"class": classifier.class_names[index], "probability": probability}
                for probability, index in zip(values, indices, strict=True)
            ],
        }
        for (path, _), values, indices in zip(
            read, best.values.tolist(), best.indices.tolist(), strict=True
        )
    ]
    return predictions, errors
