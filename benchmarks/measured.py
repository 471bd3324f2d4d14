"""Measurements as CSV files, whose first lines, after `#`, say where and how; as Markdown."""

from __future__ import annotations

import csv
import os
import platform
import shlex
import sqlite3
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


def machine(device: str = "cpu") -> dict[str, object]:
    """Describe where and how this was measured."""
    from nas.provenance import provenance  # here, for headline.py finds the package by itself

    made_with = provenance(device)
    del made_with["host"]
    return {
        "command": shlex.join(["python", *sys.argv]),
        **made_with,
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load_at_end": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "platform": platform.platform(),
        "sqlalchemy": version("sqlalchemy"),
        "sqlite": sqlite3.sqlite_version,
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, lines that begin with `#` left out; no rows where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]], head: Mapping[str, object] | None = None
) -> None:
    """Write a CSV file, at once; `head` are its first lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in (head or {}).items())
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a CSV file of such rows, made if it is not there."""
    if not path.exists():
        write_rows(path, [row])
        return
    with path.open("a+", newline="", encoding="utf-8") as file:
        file.seek(0)
        columns = next(csv.reader(file))
        csv.DictWriter(file, columns, lineterminator="\n").writerow(row)


def markdown_table(titles: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Write a line of titles and one a row."""
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
