"""Files that are there as a whole or not at all, and folders that one process holds."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"  # of a folder that is held


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
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is no regular file")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    part = path.with_name(f".{path.name}.part")
    try:
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
        file = (folder / LOCK).open("wb")
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {folder}; let it finish") from None
        yield
