"""CSV files of measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from measured import append_row, machine, read_rows, write_rows

if TYPE_CHECKING:
    from pathlib import Path


def test_a_row_is_appended_under_the_columns_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    append_row(path, {"a": 1, "b": 2})
    append_row(path, {"b": 4, "a": 3})
    assert read_rows(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_the_head_says_where_it_was_measured_and_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, [{"a": 1}], machine())
    assert read_rows(path) == [{"a": "1"}]
    head = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    assert {"# command", "# device_name", "# torch"} <= {line.split(":")[0] for line in head}
    assert not any(line.startswith("# host") for line in head)
