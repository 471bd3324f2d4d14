"""How a command shows its work: one live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from nas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

UNFOLDED = 1_000  # columns


class Display(Protocol):
    """What shows the work of one command."""

    def close(self) -> None:
        """Clear away what is shown in place."""


DisplayT = TypeVar("DisplayT", bound=Display)


@contextmanager
def shown_by(
    lines: Callable[[], DisplayT], screen: Callable[[Console], DisplayT], *, quiet: bool
) -> Iterator[DisplayT]:
    """Choose by where the output goes, and clear it away in the end, however that comes.

    Args:
        lines: Makes the display of plain lines.
        screen: Makes the live one.
        quiet: Whether there shall be no live one.

    Raises:
        UserError: The reader of the output left, as `| head` does.
    """
    from rich.console import Console

    console = Console(highlight=False)
    display = screen(console) if console.is_terminal and not quiet else lines()
    try:
        yield display
    except BrokenPipeError:
        raise UserError(
            "nobody reads the output any more; what is done is kept, and the same command goes on"
        ) from None
    finally:
        display.close()


def table_console() -> Console:
    """Give what tables are printed through: as wide as they are where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNFOLDED
    return console
