"""`nas count`: parameters, multiply-adds and bytes of a network, without torch."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nas.cli.choices import ArchitectureFile, AsJson, Blocks, Kernels, Model, Widths
from nas.cli.network import named_network
from nas.complexity import count_activations, count_macs, count_params, size_bytes


def count(
    blocks: Blocks = None,
    widths: Widths = None,
    kernels: Kernels = None,
    model: Model = None,
    architecture: ArchitectureFile = None,
    resolution: Annotated[int, typer.Option(help="Pixels a side, for the MACs", min=1)] = 32,
    as_json: AsJson = False,
) -> None:
    """Count a network's parameters, multiply-adds (MACs), activations and bytes.

    \b
    nas count --blocks 3,3,3,3 --widths 128,100,164,200
    nas count --model ResNet26_97 --json
    """
    arch = named_network(blocks, widths, kernels, model, architecture)
    counts = {
        "num_params": count_params(arch),
        "num_macs": count_macs(arch, resolution),
        "num_activations": count_activations(arch, resolution),
        "size_bytes": size_bytes(arch),
    }
    if as_json:
        print(json.dumps({"architecture": json.loads(arch.to_json()), **counts}))
        return
    print(f"{counts['num_params']:>15,} parameters   {arch}")
    print(f"{counts['num_macs']:>15,} multiply-adds, one image of {resolution}x{resolution}")
    print(f"{counts['num_activations']:>15,} activations, outputs of its convolutions")
    print(f"{counts['size_bytes']:>15,} bytes as float32")
