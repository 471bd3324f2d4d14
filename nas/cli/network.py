"""A network named on the command line: by its lists, its model's name or its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.architecture import Architecture
from nas.cli.parse import parse_integers
from nas.errors import UserError
from nas.presets import hand_made_network, read_architecture

if TYPE_CHECKING:
    from pathlib import Path


def named_network(
    blocks: str | None,
    widths: str | None,
    kernels: str | None,
    model: str | None,
    architecture: Path | None,
) -> Architecture:
    """Read the one network that these flags name (UserError: none, several, or none that is)."""
    flags = {"--blocks": blocks, "--model": model, "--architecture": architecture}
    is_one = sum(value is not None for value in flags.values()) == 1
    is_by_lists = blocks is not None
    if not is_one or (widths is not None) != is_by_lists or (kernels is not None) > is_by_lists:
        raise UserError(
            "name one network: --blocks with --widths (and --kernels), or --model, or "
            "--architecture"
        )
    if model is not None:
        return hand_made_network(model)
    if architecture is not None:
        return read_architecture(architecture)
    assert blocks is not None
    assert widths is not None
    depths = parse_integers(blocks)
    sizes = [3] if kernels is None else parse_integers(kernels)
    sizes = sizes * len(depths) if len(sizes) == 1 else sizes
    try:
        return Architecture.of(depths, parse_integers(widths), sizes)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None
