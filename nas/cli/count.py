"""`nas count`: parameters, multiply-adds and bytes of a network, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nas.architecture import Architecture
from nas.cli.parse import parse_integers
from nas.complexity import count_macs, count_params, size_bytes
from nas.errors import UserError
from nas.presets import hand_made_network, read_architecture


def count(
    blocks: Annotated[str | None, typer.Option(help="Blocks per stage: 3,3,3,3")] = None,
    widths: Annotated[str | None, typer.Option(help="Widths per stage: 128,100,164,200")] = None,
    kernels: Annotated[str | None, typer.Option(help="Kernel sizes per stage; 3 if absent")] = None,
    model: Annotated[str | None, typer.Option(help="A hand-made network: ResNet26_97")] = None,
    architecture: Annotated[Path | None, typer.Option(help="An architecture's JSON file")] = None,
    resolution: Annotated[int, typer.Option(help="Pixels a side, for the MACs", min=1)] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Count a network's parameters, multiply-adds (MACs) and bytes.

    \b
    nas count --blocks 3,3,3,3 --widths 128,100,164,200
    nas count --model ResNet26_97 --json
    """
    given = [
        name
        for name, value in (
            ("--blocks", blocks),
            ("--model", model),
            ("--architecture", architecture),
        )
        if value
    ]
    if len(given) != 1 or (blocks is None) != (widths is None):
        raise UserError("name one network: --blocks with --widths, or --model, or --architecture")
    try:
        arch = _find(blocks, widths, kernels, model, architecture)
        counts = {
            "num_params": count_params(arch),
            "num_macs": count_macs(arch, resolution),
            "size_bytes": size_bytes(arch),
        }
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        print(json.dumps({"architecture": json.loads(arch.to_json()), **counts}))
        return
    print(f"{counts['num_params']:>15,} parameters   {arch}")
    print(f"{counts['num_macs']:>15,} multiply-adds, one image of {resolution}x{resolution}")
    print(f"{counts['size_bytes']:>15,} bytes as float32")


def _find(
    blocks: str | None,
    widths: str | None,
    kernels: str | None,
    model: str | None,
    architecture: Path | None,
) -> Architecture:
    if blocks is not None and widths is not None:
        sizes = None if kernels is None else parse_integers(kernels)
        return Architecture.of(parse_integers(blocks), parse_integers(widths), sizes)
    if model is not None:
        return hand_made_network(model)
    assert architecture is not None
    return read_architecture(architecture)
