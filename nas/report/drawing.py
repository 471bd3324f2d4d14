"""Architectures drawn as SVG, stages to scale: a bar a block, as high as the block is wide."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.architecture import Architecture, Stage

BAR, BAR_GAP, STAGE_GAP = 12, 2, 22  # units of the drawing
HEIGHT, HEAD, FOOT = 90, 14, 32
LEAST_STAGE = 44  # room for the words below a stage of one block


def draw(architectures: Sequence[Architecture]) -> list[str]:
    """Draw networks to one common scale; colours come from the page by kernel size (`k3`)."""
    widest = max((s.width for arch in architectures for s in arch.stages), default=1)
    total = max((_length(arch) for arch in architectures), default=0)
    return [_svg(arch, widest, total) for arch in architectures]


def _stage_length(stage: Stage) -> int:
    return max(LEAST_STAGE, stage.depth * (BAR + BAR_GAP))


def _length(arch: Architecture) -> int:
    return sum(_stage_length(stage) + STAGE_GAP for stage in arch.stages) - STAGE_GAP


def _svg(arch: Architecture, widest: int, total: int) -> str:
    parts, x = [], 0
    for number, stage in enumerate(arch.stages):
        parts.append(_stage(stage, x, widest, shrink=arch.stem_stride * 2**number))
        x += _stage_length(stage) + STAGE_GAP
    size = f"0 0 {total} {HEAD + HEIGHT + FOOT}"
    return (
        f'<svg class="network" viewBox="{size}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(str(arch))}</title>{''.join(parts)}</svg>"
    )


def _stage(stage: Stage, x: int, widest: int, *, shrink: int) -> str:
    height = max(1.0, HEIGHT * stage.width / widest)
    floor = HEAD + HEIGHT
    bars = "".join(
        f'<rect class="k{stage.kernel_size}" x="{x + index * (BAR + BAR_GAP)}" '
        f'y="{floor - height:.1f}" width="{BAR}" height="{height:.1f}" rx="1"/>'
        for index in range(stage.depth)
    )
    side = "full size" if shrink == 1 else f"1/{shrink} side"
    block = "" if stage.block == "basic" else f" {escape(stage.block)}"
    return (
        f'{bars}<text x="{x}" y="{floor + 13}">{stage.depth} \N{MULTIPLICATION SIGN} '
        f"{stage.width}{block}</text>"
        f'<text class="faint" x="{x}" y="{floor + 27}">{side}</text>'
        f'<text class="faint" x="{x}" y="{floor - height - 4:.1f}">'
        f"{stage.kernel_size}\N{MULTIPLICATION SIGN}{stage.kernel_size}</text>"
    )
