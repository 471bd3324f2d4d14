"""Spreadsheet files as rows of text cells: CSV, XLSX and Parquet, read with tolerance.

A spreadsheet runs a cell that begins like a formula (owasp.org, "CSV Injection"). Such text is
written with an apostrophe before it, as spreadsheets mark text, and read without it.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from nas.errors import UserError
from nas.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Cells = list[list[str]]
Chosen = TypeVar("Chosen")

FORMULA = re.compile(r"'*[=+\-@\t\r]")
SEPARATORS = (",", ";", "\t", "|")
# What the readers of others' packages raise, beside their own errors, at a damaged file.
DAMAGE = (
    ValueError, TypeError, AttributeError, LookupError, EOFError, RuntimeError, SyntaxError,
)  # fmt: skip
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def neutralized(text: str) -> str:
    """Mark as text what a spreadsheet would run."""
    return f"'{text}" if FORMULA.match(text) else text


def restored(text: str) -> str:
    """Undo `neutralized`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def read_sheet(path: Path) -> Iterator[Cells]:
    """Read a sheet as rows of cells, "" for what is blank; numbers and dates as text.

    Yields:
        The readings that are possible: of a text file one a separator, of .xlsx one a worksheet.

    Raises:
        UserError: Absent, damaged, or of a kind that is not read; one line.
    """
    reader = _choose(path, READERS)
    try:
        yield from reader(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ImportError as error:
        raise UserError(_needs_extra(path, error)) from None


def write_sheet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame without its index, as a whole; texts that look like formulas are marked.

    Raises:
        UserError: A kind that is not written, a missing package, or a folder that is not ours.
    """
    writer = _choose(path, WRITERS)
    safe = frame.map(lambda cell: neutralized(cell) if isinstance(cell, str) else cell)
    try:
        content = writer(safe)
    except ImportError as error:
        raise UserError(_needs_extra(path, error)) from None
    write_whole(path, content)


def _choose(path: Path, table: dict[str, Chosen]) -> Chosen:
    try:
        return table[path.suffix.lower()]
    except KeyError:
        raise UserError(f"{path}: a sheet is one of {', '.join(table)}") from None


def _needs_extra(path: Path, error: ImportError) -> str:
    return f"{path.suffix} needs pip install 'nas-under-budget[sheets]': {error}"


def _read_text(path: Path) -> Iterator[Cells]:
    """Read by each separator by which every quote ends where its cell does, else rows are lost."""
    text, wrong = _decoded(path), 0
    for separator in SEPARATORS:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        cells: Cells = []
        ended = 0
        try:
            for line in lines:
                cells.append([restored(cell) for cell in line])
                ended = lines.line_num
        except csv.Error:
            wrong = max(wrong, ended + 1)  # of the right separator, which gets farthest
        else:
            yield cells
    if wrong:
        raise UserError(f"{path}: a quote in line {wrong} is not closed where its cell ends")


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    encoding = next((e for bom, e in BOMS.items() if content.startswith(bom)), "utf-8")
    for each in (encoding, "cp1252"):  # the latter is what spreadsheets write in western Europe
        try:
            text = content.decode(each)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UserError(f"{path} is not text in UTF-8, UTF-16 or Windows-1252")


def _read_excel(path: Path) -> Iterator[Cells]:
    import zlib
    from zipfile import BadZipFile

    from openpyxl import load_workbook

    try:
        # openpyxl warns of styles, which do not matter here, and leaves a damaged file open.
        content = path.read_bytes()
        with warnings.catch_warnings(action="ignore"):
            books = [
                load_workbook(io.BytesIO(content), read_only=True, data_only=has_values)
                for has_values in (True, False)
            ]
            with closing(books[0]), closing(books[1]):
                sheets = zip(*(book.worksheets for book in books), strict=True)
                readings = [_cells_of(*each) for each in sheets]
    except (BadZipFile, zlib.error, *DAMAGE) as error:
        raise UserError(f"{path} is not an .xlsx file: {error}") from None
    yield from readings


def _cells_of(values: Any, formulas: Any) -> Cells:  # noqa: ANN401 - openpyxl has no types
    """Read a worksheet; a formula that no spreadsheet program has computed yet is its own text.

    One that was computed to be blank is a text without a value ("str").
    """
    for sheet in (values, formulas):
        sheet.reset_dimensions()  # what the file says of its size may be wrong
    rows = zip(values.iter_rows(), formulas.iter_rows(), strict=True)
    return [
        [
            _as_shown(formula if cell.value is None and cell.data_type == "n" else cell)
            for cell, formula in zip(*row, strict=True)
        ]
        for row in rows
    ]


def _as_shown(cell: Any) -> str:  # noqa: ANN401 - openpyxl's kinds of cells
    """Read a cell's text; a number that is shown in percent says so."""
    is_number = isinstance(cell.value, int | float) and not isinstance(cell.value, bool)
    shown_as = cell.number_format or ""
    if is_number and "%" in shown_as:
        is_text = "%" not in re.sub(r'"[^"]*"|\\.', "", shown_as)  # then nothing is multiplied
        return f"{cell.value if is_text else 100 * cell.value:.10g} %"
    return _text(getattr(cell.value, "text", cell.value))  # of a formula for many cells


def _read_parquet(path: Path) -> Iterator[Cells]:
    if path.read_bytes()[:4] != b"PAR1":
        raise UserError(f"{path} is not a Parquet file")
    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except DAMAGE as error:  # pyarrow's own errors are ValueErrors
        raise UserError(f"{path} is not a Parquet file: {error}") from None
    for level, name in reversed(list(enumerate(frame.index.names))):
        if name is not None and name not in frame.columns:
            frame.insert(0, name, frame.index.get_level_values(level))
    yield [[str(name) for name in frame.columns], *_cells(frame.astype(object))]


def _cells(frame: pd.DataFrame) -> Cells:
    return [[_text(cell) for cell in row] for row in frame.itertuples(index=False)]


def _text(cell: Any) -> str:  # noqa: ANN401 - whatever a spreadsheet holds
    if isinstance(cell, str):
        return restored(cell)
    cell = cell.tolist() if hasattr(cell, "tolist") else cell
    if isinstance(cell, (list, tuple)):
        return ", ".join(map(_text, cell))
    if pd.isna(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, dt.datetime):
        return cell.isoformat() if cell.time() != dt.time() else cell.date().isoformat()
    return str(cell)


def _to_csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\r\n").encode()


def _to_excel(frame: pd.DataFrame) -> bytes:
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    def legal(cell: Any) -> Any:  # noqa: ANN401
        return ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", cell)

    file = io.BytesIO()
    safe = frame.map(lambda cell: legal(cell) if isinstance(cell, str) else cell)
    safe.to_excel(file, index=False, engine="openpyxl")
    return file.getvalue()


def _to_parquet(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, index=False, engine="pyarrow")
    return file.getvalue()


READERS: dict[str, Callable[[Path], Iterator[Cells]]] = {
    ".csv": _read_text,
    ".tsv": _read_text,
    ".txt": _read_text,
    ".xlsx": _read_excel,
    ".parquet": _read_parquet,
}
WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    ".csv": _to_csv,
    ".xlsx": _to_excel,
    ".parquet": _to_parquet,
}
