"""The columns of a hand-kept sheet of networks, and its rows as values."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from nas.architecture import Architecture, Stage
from nas.blocks import BLOCKS, block_type
from nas.errors import UserError
from nas.sheet_numbers import read_counts, read_integer, read_integers, read_number, read_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from nas.sheet import Cells

COLUMNS: dict[str, tuple[str, ...]] = {
    "name": ("model", "network", "model name"),
    "residual layers": ("layers", "n", "num layers", "number of residual layers", "stages"),
    "blocks": ("residual blocks", "b", "blocks per stage", "blocks per layer", "num blocks"),
    "kernel sizes": ("kernels", "kernel", "kernel size", "f", "conv kernel sizes"),
    "shortcut kernels": ("shortcut kernel sizes", "skip kernels", "skip kernel sizes", "k"),
    "block types": ("block type", "block"),
    "channels": (
        "widths",
        "width",
        "c",
        "filters",
        "channels per stage",
        "widths per stage",
        "channels per layer",
        "widths per layer",
    ),
    "parameters": ("params", "num params", "number of parameters", "total params"),
    "accuracy": ("acc", "test accuracy", "test acc", "final accuracy", "top 1", "top 1 accuracy"),
    "val accuracy": ("validation accuracy", "val acc"),
    "optimizer": ("optimiser",),
    "lr": ("learning rate",),
    "epochs": ("num epochs", "number of epochs", "training epochs"),
    "seed": (),
    "notes": ("note", "comment", "comments", "remarks"),
    "date": (),
}
"""A column's own name and the others it goes by.

Case, punctuation, units and all numbers but 1 do not matter.
"""

OF_EXPORTS = (
    "recipe",
    "result",
    "trial",
    "proposed by",
)  # of how and where a try was made; not read

NEEDED = ("blocks", "channels")
HEADER_WITHIN = 20  # rows from the top: titles and merged cells stand above the header
MAX_DEPTH, MAX_WIDTH, MAX_KERNEL = 1_000, 100_000, 99  # so that counts stay numbers of 64 bits
UNIT = re.compile(r"%|\bpercent\b|[(\[]\s*[km]\s*[)\]]")  # in a title
WORDS = ("name", "notes")  # columns where what follows is a text like any other
BLANK = ("-", "\N{EN DASH}", "\N{EM DASH}", "?", "n/a", "#n/a", "na", "nan", "none", "tbd")
LISTS = ("blocks", "channels", "kernel sizes", "shortcut kernels", "block types")


@dataclass(frozen=True)
class Row:
    """One readable row.

    Attributes:
        number: Of its line in the sheet, from 1.
        arch: With ten classes and three channels; the sheet knows of neither.
        num_params: (count, how far it may be off for its digits), or both of which 4,979k may be
            either, or none.
        accuracy: In [0, 1], or `None`; so is `val_accuracy`.
        seed: Or `None`.
        texts: Name, optimizer, lr, epochs, notes and date, those that are not blank.
    """

    number: int
    arch: Architecture
    num_params: list[tuple[float, float]]
    accuracy: float | None
    val_accuracy: float | None
    seed: int | None
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Unreadable:
    """A row that is none, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Column:
    """What a title says: whose column it is (`None`: of none that is known), and its unit.

    Attributes:
        title: As it is written.
        name: One of `COLUMNS`, or `None`.
        unit: "%", "k", "m" or "".
    """

    title: str
    name: str | None
    unit: str

    @classmethod
    def of(cls, title: str) -> Column:
        """Read a title."""
        lower = title.lower().replace("_", " ")
        units = [match.strip("([ ])").replace("percent", "%") for match in UNIT.findall(lower)]
        plain = " ".join(re.findall(r"[a-z]+|(?<!\d)1(?!\d)", UNIT.sub(" ", lower)))
        name = next((name for name, others in COLUMNS.items() if plain in (name, *others)), None)
        return cls(title.strip(), name, units[0] if units else "")


@dataclass(frozen=True)
class Parsed:
    """A sheet's rows, and the titles of columns that are not read because none knows them."""

    rows: list[Row | Unreadable]
    ignored: list[str]


def parse_rows(path: Path, readings: Iterator[Cells]) -> Parsed:
    """Find the header in one of the readings of a sheet, and parse the rows below it.

    Raises:
        UserError: No header, or a column that is there twice; one line.
    """
    nearest: tuple[int, list[Column]] = (0, [])
    for cells in readings:
        for top, line in enumerate(cells[:HEADER_WITHIN]):
            header = [Column.of(title) for title in line]
            names = [column.name for column in header]
            nearest = max(nearest, (sum(map(bool, names)), header), key=lambda each: each[0])
            if all(name in names for name in NEEDED):
                _refuse_doubles(path, names)
                below = enumerate(cells[top + 1 :], top + 2)
                return Parsed(
                    [_parse(number, header, row) for number, row in below if any(row)],
                    [c.title for c in header if not c.name and c.title not in ("", *OF_EXPORTS)],
                )
    titles = ", ".join(repr(column.title) for column in nearest[1] if column.title)
    found = (
        f"the nearest to that has {titles}" if titles else f"known columns: {', '.join(COLUMNS)}"
    )
    raise UserError(f"{path} has no row with the columns blocks and channels; {found}")


def _refuse_doubles(path: Path, names: Sequence[str | None]) -> None:
    for name in COLUMNS:
        if names.count(name) > 1:
            raise UserError(f"{path} has the column {name!r} twice; rename one of them")


def _by_name(header: Sequence[Column], row: Sequence[str]) -> dict[str, str]:
    """Give the cells that are not blank; lists may stand in several cells below one title.

    What has no title is an entry of a list if it and all cells of the list are, and blocks or
    channels is such a list. Else it is a remark.

    Raises:
        ValueError: Cells beyond the last column that are no entries of it.
    """
    cells: dict[str, str] = {}
    joined: dict[str, str] = {}
    name, is_list, is_beyond = None, False, False
    for column, cell in zip_longest(header, row):
        text = (cell or "").strip()
        if column and column.title:
            name, is_list = column.name, column.name in LISTS and _is_entry(text)
            if name and text:
                cells[name] = cell
        elif name and is_list and _is_entry(text):
            joined[name] = f"{joined.get(name, cells[name])}, {text}"
        is_beyond |= column is None and bool(text) and not (name in joined and _is_entry(text))
    are_lists = all(n in joined or not _is_entry(cells.get(n, "").strip()) for n in NEEDED)
    if is_beyond or (not are_lists and any(cell.strip() for cell in row[len(header) :])):
        raise ValueError("more cells than columns; a list of numbers needs quotes")
    return cells | joined if any(n in joined for n in NEEDED) else cells


def _is_entry(text: str) -> bool:
    return text in BLOCKS or re.fullmatch(r"[0-9]+(\.0+)?", text) is not None


def _parse(number: int, header: Sequence[Column], row: Sequence[str]) -> Row | Unreadable:
    units = {column.name: column.unit for column in header}
    try:
        cells = _by_name(header, row)
        for name in COLUMNS.keys() - WORDS:
            if cells.get(name, "").strip().lower() in BLANK:
                del cells[name]
        return Row(
            number,
            _architecture(cells),
            read_counts(cells["parameters"], units["parameters"]) if "parameters" in cells else [],
            read_share(cells, units, "accuracy"),
            read_share(cells, units, "val accuracy"),
            read_integer(cells, "seed") if "seed" in cells else None,
            _texts(cells),
        )
    except ValueError as error:
        return Unreadable(number, " ".join(str(error).split()))


def _texts(cells: Mapping[str, str]) -> dict[str, str]:
    named = ("name", "optimizer", "lr", "epochs", "date")
    texts = {name: cells[name].strip() for name in named if name in cells}
    if "notes" in cells:
        texts["notes"] = cells["notes"]
    if "lr" in texts:
        with contextlib.suppress(ValueError):  # "0.1, halved twice" is welcome too
            texts["lr"] = f"{read_number('lr', texts['lr']):g}"
    if "epochs" in texts:  # a workbook's 200 is 200.0
        texts["epochs"] = re.sub(r"^([0-9]+)\.0+$", r"\1", texts["epochs"])
    return texts


def _architecture(cells: Mapping[str, str]) -> Architecture:
    for name in NEEDED:
        if name not in cells:
            raise ValueError(f"{name} is blank")
    depths, widths = (read_integers(cells, name) for name in NEEDED)
    if len(depths) != len(widths):
        raise ValueError(f"blocks lists {len(depths)} stages, channels {len(widths)}")
    count = len(depths)
    if "residual layers" in cells and read_integer(cells, "residual layers") != count:
        said = cells["residual layers"].strip()
        raise ValueError(f"residual layers is {said}, blocks lists {count} stages")
    if sum(depths) > MAX_DEPTH or max(widths) > MAX_WIDTH:
        raise ValueError("blocks or channels are too many; is a list joined to one number?")
    kernels = (
        read_integers(cells, "kernel sizes", count) if "kernel sizes" in cells else [3] * count
    )
    shortcuts = (
        read_integers(cells, "shortcut kernels", count)
        if "shortcut kernels" in cells
        else [1] * count
    )
    if max(kernels + shortcuts) > MAX_KERNEL:
        raise ValueError(f"a kernel is larger than {MAX_KERNEL}; is a list joined to one number?")
    blocks = [block.strip() for block in cells.get("block types", "basic").split(",")]
    blocks = blocks * count if len(blocks) == 1 else blocks
    if len(blocks) != count:
        raise ValueError(f"block types lists {len(blocks)} stages, blocks {count}")
    for block in blocks:
        block_type(block)
    entries = zip(depths, widths, kernels, shortcuts, blocks, strict=True)
    return Architecture(tuple(Stage(*entry) for entry in entries))
