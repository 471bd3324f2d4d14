"""Architecture and Stage: one network as a frozen value, with its `arch_id` and JSON round trip."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


LARGEST = 2**31 - 1  # of any number in a network; tensors and databases take no more everywhere


def _require_int(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, not {value!r}")
    if value > LARGEST:
        raise ValueError(f"{name} must be at most {LARGEST:,}")


def _require_odd(name: str, value: int) -> None:
    _require_int(name, value, 1)
    if value % 2 == 0:
        raise ValueError(f"{name} must be odd (an even kernel has no centre), not {value}")


@dataclass(frozen=True, slots=True)
class Stage:
    """`depth` blocks of one type at one width; the first may change width and stride.

    Attributes:
        depth: Number of blocks, at least 1.
        width: Output channels of every block of the stage.
        kernel_size: Side of the blocks' main convolutions, odd.
        shortcut_kernel_size: Side of the projection shortcut's convolution, odd.
        block: A name of `nas.blocks.BLOCKS`.
    """

    depth: int
    width: int
    kernel_size: int = 3
    shortcut_kernel_size: int = 1
    block: str = "basic"

    def __post_init__(self) -> None:
        """Refuse (ValueError) depths and widths below 1, and even kernels."""
        _require_int("depth", self.depth, 1)
        _require_int("width", self.width, 1)
        _require_odd("kernel_size", self.kernel_size)
        _require_odd("shortcut_kernel_size", self.shortcut_kernel_size)
        if not isinstance(self.block, str):
            raise ValueError(f"block must be a name, not {self.block!r}")  # noqa: TRY004

    def block_groups(self, in_channels: int, stride: int) -> Iterator[tuple[BlockShape, int]]:
        """Yield (shape, how many in a row): the first block maps both, the others neither."""
        kernels = self.kernel_size, self.shortcut_kernel_size
        yield BlockShape(in_channels, self.width, stride, *kernels), 1
        if self.depth > 1:
            yield BlockShape(self.width, self.width, 1, *kernels), self.depth - 1

    def __str__(self) -> str:
        """Name what differs from a 3x3 basic block: `3x128`, `2x64 k5 bottleneck`."""
        kernel = f" k{self.kernel_size}" if self.kernel_size != 3 else ""
        shortcut = f" s{self.shortcut_kernel_size}" if self.shortcut_kernel_size != 1 else ""
        block = f" {self.block}" if self.block != "basic" else ""
        return f"{self.depth}x{self.width}{kernel}{shortcut}{block}"


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What one block must map: (N, in_channels, H, W) to (N, width, H / stride, W / stride)."""

    in_channels: int
    width: int
    stride: int
    kernel_size: int
    shortcut_kernel_size: int

    @property
    def has_projection(self) -> bool:
        """Whether the shortcut needs a convolution, because width or resolution changes."""
        return self.stride != 1 or self.in_channels != self.width


@dataclass(frozen=True, slots=True)
class Architecture:
    """One network: a 3x3 stem to the first width, residual stages, global pooling, a linear layer.

    The first stage keeps the resolution; every later one halves it in its first block.

    Attributes:
        stages: At least one stage.
        num_classes: Outputs of the classifier, at least 2.
        in_channels: Channels of the images.
        stem_stride: Of the stem: 2 halves the resolution of larger images at once.
    """

    stages: tuple[Stage, ...]
    num_classes: int = 10
    in_channels: int = 3
    stem_stride: int = 1

    def __post_init__(self) -> None:
        """Refuse (ValueError) no stages, fewer than two classes and no channels."""
        object.__setattr__(self, "stages", tuple(self.stages))  # a list would have no hash
        if not self.stages:
            raise ValueError("an architecture needs at least one stage")
        _require_int("num_classes", self.num_classes, 2)
        _require_int("in_channels", self.in_channels, 1)
        _require_int("stem_stride", self.stem_stride, 1)

    @classmethod
    def of(
        cls,
        blocks: Sequence[int],
        widths: Sequence[int],
        kernel_sizes: Sequence[int] | None = None,
        **others: int,
    ) -> Architecture:
        """Build an architecture of basic blocks from lists with one entry a stage.

        Raises:
            ValueError: Lists of different lengths, or an entry no `Stage` takes.
        """
        kernel_sizes = [3] * len(blocks) if kernel_sizes is None else kernel_sizes
        if not len(blocks) == len(widths) == len(kernel_sizes):
            raise ValueError(
                f"one entry a stage: {len(blocks)} blocks, {len(widths)} widths, "
                f"{len(kernel_sizes)} kernel sizes"
            )
        stages = (Stage(*entry) for entry in zip(blocks, widths, kernel_sizes, strict=True))
        return cls(tuple(stages), **others)

    def __str__(self) -> str:
        """Give the stages in words: `3x128, 3x100, 3x164, 3x200`, after a stem with a stride."""
        stem = [] if self.stem_stride == 1 else [f"stem /{self.stem_stride}"]
        return ", ".join([*stem, *map(str, self.stages)])

    def placed_stages(self) -> Iterator[tuple[Stage, int, int]]:
        """Yield (stage, input channels, stride of its first block) in forward order."""
        in_channels, stride = self.stages[0].width, 1
        for stage in self.stages:
            yield stage, in_channels, stride
            in_channels, stride = stage.width, 2

    def block_groups(self) -> Iterator[tuple[str, BlockShape, int]]:
        """Yield (block type, shape, how many in a row) in forward order."""
        for stage, in_channels, stride in self.placed_stages():
            for shape, repeats in stage.block_groups(in_channels, stride):
                yield stage.block, shape, repeats

    def with_widths(self, widths: Sequence[int]) -> Architecture:
        """Return the same network with other widths, one a stage."""
        pairs = zip(self.stages, widths, strict=True)
        return replace(self, stages=tuple(replace(stage, width=width) for stage, width in pairs))

    def scaled(self, factor: float) -> Architecture:
        """Multiply every width by `factor`, rounded, at least 1."""
        return self.with_widths([max(1, round(s.width * factor)) for s in self.stages])

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces, equal for equal architectures.

        A stem without a stride is not mentioned: so it is in what was written before there was one.
        """
        values = asdict(self)
        if self.stem_stride == 1:
            del values["stem_stride"]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read `to_json`'s form, keys in any order, defaults for what is absent.

        Raises:
            ValueError: No JSON object of this form; unknown keys are named.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:  # also a number or a nesting without end
            raise ValueError(
                f"an architecture is a JSON object; this is not JSON: {error}"
            ) from None
        values = _known_fields(cls, raw)
        stages = values.pop("stages", None)
        if not isinstance(stages, list):
            raise ValueError('an architecture needs "stages", a list of objects')  # noqa: TRY004
        return cls(tuple(_build(Stage, _known_fields(Stage, s)) for s in stages), **values)

    @property
    def arch_id(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def _known_fields(cls: type[Stage | Architecture], raw: object) -> dict[str, Any]:
    names = [field.name for field in fields(cls)]
    if not isinstance(raw, dict):
        raise ValueError(f"a JSON object with {', '.join(names)} is needed, not {raw!r}")  # noqa: TRY004
    if unknown := sorted(set(raw) - set(names)):
        raise ValueError(f"unknown {', '.join(map(str, unknown))}; known: {', '.join(names)}")
    return raw


def _build(cls: type[Stage], values: dict[str, Any]) -> Stage:
    missing = [name for name in ("depth", "width") if name not in values]
    if missing:
        raise ValueError(f"a stage needs {' and '.join(missing)}")
    return cls(**values)
