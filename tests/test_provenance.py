"""What a result was made with: the revision, and where there is none."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import torch

from nas.provenance import git_state, provenance

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_says_its_revision_and_whether_it_is_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    revision = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"git_revision": revision, "git_clean": True}
    (tmp_path / "file").write_text("other")
    assert git_state(tmp_path) == {"git_revision": revision, "git_clean": False}


def test_outside_a_checkout_the_environment_says_the_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")  # somebody's, that tracks nothing of ours
    monkeypatch.delenv("NAS_REVISION", raising=False)
    assert git_state(tmp_path) == {"git_revision": None, "git_clean": None}
    monkeypatch.setenv("NAS_REVISION", "581169f")
    assert git_state(tmp_path) == {"git_revision": "581169f", "git_clean": None}


def test_a_processor_is_told_with_what_torch_uses_of_it() -> None:
    found = provenance("cpu", seed=3)
    assert found["seed"] == 3
    assert torch.__version__.startswith(found["torch"])
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["threads"] == torch.get_num_threads()
