"""Where and how something was measured, for the head of a CSV."""

from __future__ import annotations

import os
import platform
import shlex
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path

from nas.provenance import git_state


def machine() -> dict[str, object]:
    """Describe where and how this was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    state = git_state(Path(__file__).parent.parent / "nas")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load_at_end": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "optuna", "sqlalchemy", "numpy")},
        "sqlite": sqlite3.sqlite_version,
        **state,
    }
