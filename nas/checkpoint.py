"""Checkpoints: whole or absent, verified before use, tensors and JSON alone (nothing is unpickled).

One safetensors file each, `step-<step>-<checksum>.safetensors`; the rest of the state is JSON in
its header, so that one rename makes all of it appear at once.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from nas.errors import UserError, differences
from nas.files import make_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

NUM_KEPT = 2  # the newest, and the one before in case the newest is damaged
CHECKSUM_DIGITS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        tensors: By name, on the CPU.
        numbers: The rest of the state, in JSON's types.
        made_with: The provenance of the processes that came so far, each kind once.
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]
    made_with: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    Attributes:
        folder: Made with the first checkpoint.
        identity: What must be equal for a checkpoint to be continued, flat.
        keeps_all: Whether old ones stay.
        seconds: From one to the next.
        made_with: The provenance of this process.
    """

    folder: Path
    identity: Mapping[str, Any]
    keeps_all: bool = False
    seconds: float = 60.0
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def save(self, step: int, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint and remove the oldest.

        Raises:
            UserError: The folder cannot be written, or the disk is full; the others are untouched.
        """
        header = {
            "identity": dict(self.identity),
            "numbers": dict(checkpoint.numbers),
            "made_with": list(checkpoint.made_with),
        }
        tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        content = save(tensors, {"json": json.dumps(header)})
        path = self.folder / f"step-{step:09}-{_checksum(content)}.safetensors"
        make_folder(self.folder)
        write_whole(path, content)
        for old in [] if self.keeps_all else self._newest_first()[NUM_KEPT:]:
            old.unlink(missing_ok=True)
        return path

    def load_newest(self, on_warning: Callable[[str], None]) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; `None` without any.

        What is damaged is put aside: by its step it would count as newer than what comes. Not
        what cannot be read, which may pass.

        Args:
            on_warning: Told of each one that is damaged.

        Raises:
            UserError: It is of another training; the line names the differences.
        """
        for path in self._newest_first():
            try:
                return self._read(path)
            except (OSError, SafetensorError, _DamagedError) as error:
                on_warning(f"{path} is damaged ({error}); going on from the one before, if any")
                if not isinstance(error, OSError):
                    with suppress(OSError):
                        path.rename(path.with_suffix(".damaged"))
        return None

    def remove(self) -> None:
        """Remove all of them, and the folder, unless they are kept."""
        if self.keeps_all or not self.folder.exists():
            return
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)

    def _read(self, path: Path) -> Checkpoint:
        content = path.read_bytes()
        if not path.stem.endswith(_checksum(content)):
            raise _DamagedError("its checksum is not that of its name")
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["json"])
        if header["identity"] != self.identity:
            different = "; ".join(differences(header["identity"], self.identity))
            raise UserError(
                f"{path} is of another training: {different}; remove {self.folder} to start anew, "
                "or repeat the command that it belongs to"
            )
        return Checkpoint(load(content), header["numbers"], header.get("made_with", ()))


class _DamagedError(Exception):
    pass


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:CHECKSUM_DIGITS]
