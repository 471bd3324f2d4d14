"""Checkpoints: whole or absent, verified before use, tensors and JSON alone (nothing is unpickled).

One safetensors file each, `step-<step>-<checksum>.safetensors`; the rest of the state is JSON in
its header, so that one rename makes all of it appear at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
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
    """

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    Attributes:
        folder: Made with the first checkpoint.
        identity: What must be equal for a checkpoint to be continued, flat.
        keeps_all: Whether old ones stay.
        seconds: From one to the next.
    """

    folder: Path
    identity: Mapping[str, Any]
    keeps_all: bool = False
    seconds: float = 60.0

    def save(self, step: int, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint and remove the oldest.

        Raises:
            UserError: The folder cannot be written, or the disk is full; the others are untouched.
        """
        header = {"identity": dict(self.identity), "numbers": dict(checkpoint.numbers)}
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
            raise UserError(
                f"{path} is of another training: {differences(header['identity'], self.identity)};"
                " remove it to start anew, or repeat the command that it belongs to"
            )
        return Checkpoint(load(content), header["numbers"])


class _DamagedError(Exception):
    pass


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:CHECKSUM_DIGITS]


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in one line which entries differ, and how."""
    return "; ".join(
        f"{key} is {json.dumps(found.get(key))} there, {json.dumps(wanted.get(key))} asked"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it (UserError if that is not possible)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, whatever happens meanwhile.

    Raises:
        UserError: It cannot be written; what was there before still is.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is no regular file")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _discard(part)
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _discard(part: Path) -> None:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # the folder is not ours to write; the caller reports that already
        return


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it however the process ends.

    Raises:
        UserError: Another process holds it, or it cannot be written.
    """
    make_folder(folder)
    try:
        file = (folder / ".lock").open("wb")
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {folder}; let it finish") from None
        yield
