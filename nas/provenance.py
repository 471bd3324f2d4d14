"""What a result was made with: versions, git revision, machine, device, threads."""

from __future__ import annotations

import functools
import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("nas-under-budget", "torch", "torchvision", "optuna", "numpy")


def provenance(device: str, **others: object) -> dict[str, Any]:
    """Collect what is needed to make the same result again, in JSON's types.

    Args:
        device: As torch writes it: "cpu", "cuda:0".
        others: More entries, such as the seed.
    """
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return {
        **_unchanging(),
        "device": device,
        "device_name": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # "AVX2", "AVX512"
        "threads": torch.get_num_threads(),
        **others,
    }


@functools.cache  # the file is long where there are many processors
def _processor() -> str:
    """Name the processor: Linux says it in a file, other systems through `platform`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


@functools.cache
def _unchanging() -> dict[str, Any]:
    versions = {"python": platform.python_version(), "host": socket.gethostname()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {**versions, **git_state(Path(__file__).parent)}


def git_state(folder: Path) -> dict[str, Any]:
    """Give the revision of the checkout that holds this folder, and whether it is unchanged.

    Returns:
        `git_revision` and `git_clean`. Without git, or where no checkout tracks the folder, the
        first is the environment's `NAS_REVISION`, else `None`, as is the other.
    """

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if not git("ls-files", "."):  # not ours: an installation inside somebody's checkout
        return {"git_revision": os.environ.get("NAS_REVISION"), "git_clean": None}
    revision, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"git_revision": revision, "git_clean": None if changes is None else changes == ""}
