"""Saved models: a folder with weights, architecture and record; load_model reads it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nas.batches import Normalization
from nas.errors import UserError, brief
from nas.files import make_folder, write_whole
from nas.model import build_model
from nas.presets import read_architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.architecture import Architecture

WEIGHTS, ARCHITECTURE, CONFIG = "model.safetensors", "architecture.json", "config.json"
HALF_WEIGHTS = "model.fp16.safetensors"  # the same keys, float16; computed with as float32


class Classifier(nn.Module):
    """A network with its normalization: from pixels to logits.

    Attributes:
        architecture: Of the network.
        class_names: One a logit, in order.
        resolution: Pixels a side of the images it was trained on.
        image_size: Pixels a side of the data set's images, which were resized to `resolution`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        normalization: Normalization,
        *,
        architecture: Architecture,
        class_names: tuple[str, ...],
        resolution: int,
        image_size: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", normalization.mean)
        self.register_buffer("std", normalization.std)
        self.architecture = architecture
        self.class_names = class_names
        self.resolution = resolution
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) pixels in 0..255, uint8 or floating, to (N, num_classes) logits."""
        logits: Tensor = self.network(Normalization(self.mean, self.std)(images))
        return logits

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        """Map pixels, as `forward` does, to (N, num_classes) probabilities."""
        return torch.softmax(self(images), 1)


def save_model(folder: Path, classifier: Classifier, config: Mapping[str, Any]) -> None:
    """Write the weights, `architecture.json` and `config.json`, each as a whole.

    Args:
        folder: Made if it is absent.
        classifier: Keys of the weights are those of its `state_dict`.
        config: What it was made with, in JSON's types.

    Raises:
        UserError: The folder cannot be written.
    """
    make_folder(folder)
    weights = {name: t.cpu().contiguous() for name, t in classifier.state_dict().items()}
    shown = {
        "class_names": list(classifier.class_names),
        "resolution": classifier.resolution,
        "image_size": classifier.image_size,
        **config,
    }
    arch = json.loads(classifier.architecture.to_json())
    write_whole(folder / ARCHITECTURE, _json(arch))
    write_whole(folder / CONFIG, _json(shown))
    write_whole(folder / WEIGHTS, save(weights))


def load_model(
    folder: Path | str, *, device: torch.device | str = "cpu", weights: str = WEIGHTS
) -> Classifier:
    """Load a trained network in evaluation mode, with its normalization.

    Args:
        folder: As `save_model` writes it: `studies/<study>/trial-42/<recipe>/seed-0`.
        device: Where it goes.
        weights: Their file in the folder; `HALF_WEIGHTS` are those of `--export fp16`.

    Returns:
        A module that maps pixels to logits; its accuracy is the recorded one.

    Raises:
        UserError: A file is absent, damaged or of another network.
    """
    folder = Path(folder)
    if seeds := sorted(folder.glob(f"seed-*/{CONFIG}")):
        raise UserError(f"{folder} holds a model of each seed; name one, such as {seeds[0].parent}")
    config = read_json(folder / CONFIG)
    arch = read_architecture(folder / ARCHITECTURE)
    empty = torch.empty(1, arch.in_channels, 1, 1)
    try:
        classifier = Classifier(
            build_model(arch).to(memory_format=torch.channels_last),
            Normalization(empty, empty.clone()),
            architecture=arch,
            class_names=_class_names(config["class_names"], arch),
            resolution=_pixels("resolution", config["resolution"]),
            image_size=_pixels("image_size", config.get("image_size", config["resolution"])),
        )
        classifier.load_state_dict(load_file(folder / weights))
    except KeyError as error:
        raise UserError(
            f"{folder / CONFIG} has no {error}; it is not of a model saved here"
        ) from None
    except _WrongError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"cannot load {folder / weights}: {_first_line(error)}") from None
    return classifier.to(device).eval()


class _WrongError(Exception):
    pass


def _class_names(names: object, arch: Architecture) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) != arch.num_classes:
        raise _WrongError(f"class_names is not a list of {arch.num_classes} names")
    return tuple(map(str, names))


def _pixels(name: str, number: object) -> int:
    if not isinstance(number, int) or not 8 <= number <= 512:
        raise _WrongError(f"{name} is from 8 to 512 pixels, not {number!r}")
    return number


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object (UserError: one line)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object")
    return content


def _first_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or brief(error)
