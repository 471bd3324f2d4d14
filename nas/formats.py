"""FORMATS: a saved model in other formats, each run and compared with it before it is written."""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, save

from nas.errors import UserError
from nas.files import write_whole
from nas.saved_model import HALF_WEIGHTS, load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from nas.saved_model import Classifier


@dataclass(frozen=True, slots=True)
class Format:
    """How a model is written in a format, and how what was written is run.

    Attributes:
        file: Its name in the model's folder.
        write: Maps a model and example images to the file's content.
        run: Maps that content, the model and (N, C, H, W) uint8 images to (N, num_classes) logits.
        tolerance: Largest difference of a logit that counts as the same model, as a share of the
            largest logit, or of 1 where all are smaller.
        needs: Modules of the extra `export`.
    """

    file: str
    write: Callable[[Classifier, Tensor], bytes]
    run: Callable[[bytes, Classifier, Tensor], Tensor]
    tolerance: float
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how far its logits are from the model's, at most."""

    path: Path
    max_difference: float


def export(folder: Path, names: Sequence[str], images: Tensor) -> list[Exported]:
    """Write a saved model in further formats.

    Args:
        folder: As `save_model` writes it.
        names: Of `FORMATS`.
        images: (N, C, H, W) uint8, two or more, to run both on; at the model's resolution.

    Raises:
        UserError: A name that `require_available` refuses, or a result that is not the model's;
            that one is not written.
    """
    require_available(names)
    if not names:  # a finished training whose model was moved away has nothing to load
        return []
    classifier = load_model(folder)
    return [_export(folder, name, classifier, images) for name in names]


def require_available(names: Sequence[str]) -> None:
    """Refuse (UserError) formats that are not in `FORMATS` or whose libraries are absent."""
    for name in names:
        if name not in FORMATS:
            raise UserError(f"unknown export format {name!r}; known: {', '.join(FORMATS)}")
        absent = [module for module in FORMATS[name].needs if find_spec(module) is None]
        if absent:
            raise UserError(
                f"--export {name} needs {', '.join(absent)}: pip install 'nas-under-budget[export]'"
            )


@torch.no_grad()
def _export(folder: Path, name: str, classifier: Classifier, images: Tensor) -> Exported:
    kind = FORMATS[name]
    plain = copy.deepcopy(classifier).to(memory_format=torch.contiguous_format)
    content = kind.write(plain, images)
    found = kind.run(content, plain, images)
    wanted = classifier(images)
    difference = float((found - wanted).abs().max())
    if not difference <= kind.tolerance * max(1.0, float(wanted.abs().max())):
        raise UserError(
            f"the model in {name} is not the same: a logit differs by {difference:.3g}; "
            "it was not written"
        )
    write_whole(folder / kind.file, content)
    return Exported(folder / kind.file, difference)


def _program(classifier: Classifier, images: Tensor) -> torch.export.ExportedProgram:
    """Trace the model for any number of images."""
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    return torch.export.export(classifier, (images,), dynamic_shapes=shapes)


def _write_onnx(classifier: Classifier, images: Tensor) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecated calls
        program = torch.onnx.export(
            _program(classifier, images),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _run_onnx(content: bytes, _classifier: Classifier, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits)


def _write_pt2(classifier: Classifier, images: Tensor) -> bytes:
    file = io.BytesIO()
    torch.export.save(_program(classifier, images), file)
    return file.getvalue()


def _run_pt2(content: bytes, _classifier: Classifier, images: Tensor) -> Tensor:
    logits: Tensor = torch.export.load(io.BytesIO(content)).module()(images)
    return logits


def _write_half(classifier: Classifier, _images: Tensor) -> bytes:
    weights = classifier.state_dict().items()
    return save({n: t.half() if t.is_floating_point() else t for n, t in weights})


def _run_half(content: bytes, classifier: Classifier, images: Tensor) -> Tensor:
    other = copy.deepcopy(classifier)
    other.load_state_dict(load(content))
    logits: Tensor = other(images)
    return logits


FORMATS = {
    "onnx": Format(
        "model.onnx", _write_onnx, _run_onnx, 1e-4, ("onnx", "onnxscript", "onnxruntime")
    ),
    "pt2": Format("model.pt2", _write_pt2, _run_pt2, 1e-4),
    "fp16": Format(HALF_WEIGHTS, _write_half, _run_half, 1e-2),
}
"""ONNX for other runtimes, PyTorch's exported program, and float16 weights at half the size."""
