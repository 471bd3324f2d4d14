"""`nas predict`: the classes of image files, by a trained network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.choices import AsJson
from nas.cli.words import one_line

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
    predictions = predict_files(folder, images, top)
    if as_json:
        print(json.dumps(predictions, indent=2))
        return
    for prediction in predictions:
        found = ((one_line(c["class"]), c["probability"]) for c in prediction["classes"])
        classes = ", ".join(f"{name} {probability:.1%}" for name, probability in found)
        print(f"{one_line(prediction['image'])}: {classes}")


def predict_files(folder: Path, images: list[Path], top: int) -> list[dict[str, Any]]:
    """Give each image's most probable classes, in JSON's types."""
    import torch

    from nas.data_sets import read_image
    from nas.saved_model import load_model
    from nas.split import num_at_a_time, resize

    classifier = load_model(folder)
    side, channels = classifier.image_size, classifier.architecture.in_channels
    pixels = torch.cat([read_image(path, side, channels) for path in images])
    pixels = resize(pixels, classifier.resolution)  # as the images of its training were
    parts = torch.split(pixels, num_at_a_time(BATCH, classifier.resolution))
    probabilities = torch.cat([classifier.predict(part) for part in parts])
    best = probabilities.topk(min(top, len(classifier.class_names)))
    return [
        {
            "image": str(path),
            "classes": [
                {"class": classifier.class_names[index], "probability": probability}
                for probability, index in zip(values, indices, strict=True)
            ],
        }
        for path, values, indices in zip(
            images, best.values.tolist(), best.indices.tolist(), strict=True
        )
    ]
