"""SearchSpace: what may be chosen, as Optuna distributions; decode, encode, cardinality; TOML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from optuna.distributions import IntDistribution
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from nas.architecture import Architecture, Stage
from nas.blocks import BLOCKS
from nas.presets import Config, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LARGEST = 1_000_000  # of a number in a space file
MAX_STAGES = 16  # each but the first halves the resolution
LARGEST_SCALED = 2**30  # of a width that follows the budget

FIELDS = ("depth", "width", "kernel_size", "shortcut_kernel_size", "block")


class IntRange(Config):
    """The whole numbers low, low + step, ..., high; scaled with the budget given `at_params`."""

    low: int = Field(ge=1)
    high: int = Field(le=LARGEST)
    step: int | None = Field(default=None, ge=1)
    at_params: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _is_not_empty(self) -> IntRange:
        if self.high < self.low:
            raise ValueError(f"the range is empty: high = {self.high} is below low = {self.low}")
        if self.step and (left := (self.high - self.low) % self.step):
            raise ValueError(f"high must be one of its steps, which end at {self.high - left}")
        if self.at_params is not None and self.step is not None:
            raise ValueError("with at_params the step follows the budget; leave step out")
        return self

    def values(self, max_params: int) -> range:
        """Resolve the range for a budget."""
        if self.at_params is None:
            return range(self.low, self.high + 1, self.step or 1)
        step, scale = width_step(max_params), math.sqrt(max_params / self.at_params)
        low, high = (
            min(max(step, round(end * scale / step) * step), LARGEST_SCALED)
            for end in (self.low, self.high)
        )
        return range(low, high + 1, step)


def width_step(max_params: int) -> int:
    """Give the step between widths for a budget: 8 from 1M, 4 from 200k, 2 below."""
    return 8 if max_params >= 1_000_000 else 4 if max_params >= 200_000 else 2


def _one_or_range(value: object) -> str:
    return "range" if isinstance(value, dict | IntRange) else "one"


def _one_or_list(value: object) -> str:
    return "list" if isinstance(value, list) else "one"


# Told apart before they are validated, so that an error is about what was meant.
Integers = Annotated[
    Annotated[int, Tag("one")] | Annotated[IntRange, Tag("range")], Discriminator(_one_or_range)
]
Names = Annotated[
    Annotated[str, Tag("one")] | Annotated[list[str], Tag("list")], Discriminator(_one_or_list)
]


class StageConfig(Config):
    """One stage of a space file; what is absent is filled in from `[stage]`."""

    depth: Integers | None = None
    width: Integers | None = None
    kernel_size: Integers | None = None
    shortcut_kernel_size: Integers | None = None
    block: Names | None = None

    @field_validator("depth", "width", "kernel_size", "shortcut_kernel_size")
    @classmethod
    def _is_positive(cls, value: int | IntRange | None) -> int | IntRange | None:
        if isinstance(value, int) and not 1 <= value <= LARGEST:
            raise ValueError(f"it must be at least 1, and at most {LARGEST:,}")
        return value

    @field_validator("depth", "kernel_size", "shortcut_kernel_size")
    @classmethod
    def _does_not_scale(cls, value: int | IntRange | None) -> int | IntRange | None:
        if isinstance(value, IntRange) and value.at_params is not None:
            raise ValueError("only widths scale with the budget; leave at_params out")
        return value

    @field_validator("kernel_size", "shortcut_kernel_size")
    @classmethod
    def _is_odd(cls, value: int | IntRange | None) -> int | IntRange | None:
        kernels = [value] if isinstance(value, int) else [] if value is None else value.values(1)
        if even := [kernel for kernel in kernels if kernel % 2 == 0]:
            raise ValueError(f"kernels must be odd, {even[0]} is even (use step = 2)")
        return value

    @field_validator("block")
    @classmethod
    def _is_a_choice(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError("it must be a list of different block types")
        if not set([value] if isinstance(value, str) else value or []) <= BLOCKS.keys():
            raise ValueError(f"it must name block types of {', '.join(BLOCKS)}")
        return value


class SpaceConfig(Config):
    """A space file: the number of stages, what holds for all, and what holds for one by number."""

    num_stages: int = Field(ge=1, le=MAX_STAGES)
    stage: StageConfig
    overrides: dict[str, StageConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_real_stages(self) -> SpaceConfig:
        known = {str(number) for number in range(1, self.num_stages + 1)}
        if unknown := sorted(set(self.overrides) - known):
            raise ValueError(f"overrides.{unknown[0]}: there are stages 1 to {self.num_stages}")
        for number in range(1, self.num_stages + 1):
            for name in ("depth", "width"):
                if self.stage_setting(number, name) is None:
                    raise ValueError(f"stage {number} has no {name}")
        return self

    def stage_setting(self, number: int, name: str) -> int | IntRange | str | list[str] | None:
        """Give what stage `number` (from 1) says of a field, or `[stage]`, or `None`."""
        own = getattr(self.overrides.get(str(number), StageConfig()), name)
        return getattr(self.stage, name) if own is None else own  # type: ignore[no-any-return]


Choices = range | tuple[str | int, ...]  # a range, block types, or one fixed number


@dataclass(frozen=True)
class SearchSpace:
    """Every architecture that can be put together from the choices of each stage.

    Numbers are integer distributions and block types are an index into their list, so that a
    larger space keeps the trials of the smaller. A range is a parameter also with one value, for it
    may grow; a fixed value is none.

    Attributes:
        stages: A mapping of `FIELDS` to choices for each stage.
        num_classes: Outputs of the classifier.
        in_channels: Channels of the images.
        stem_stride: Of every network's stem.
    """

    stages: tuple[Mapping[str, Choices], ...]
    num_classes: int = 10
    in_channels: int = 3
    stem_stride: int = 1

    @classmethod
    def from_config(
        cls,
        config: SpaceConfig,
        *,
        max_params: int,
        num_classes: int = 10,
        in_channels: int = 3,
        stem_stride: int = 1,
    ) -> SearchSpace:
        """Resolve a space file for a budget and a data set."""
        defaults = Stage(1, 1)

        def choices(number: int, name: str) -> Choices:
            setting = config.stage_setting(number, name)
            setting = getattr(defaults, name) if setting is None else setting
            if isinstance(setting, IntRange):
                return setting.values(max_params)
            return tuple(setting) if isinstance(setting, list) else (cast("str | int", setting),)

        numbers = range(1, config.num_stages + 1)
        stages = tuple({name: choices(number, name) for name in FIELDS} for number in numbers)
        return cls(stages, num_classes, in_channels, stem_stride)

    @cached_property
    def choices(self) -> dict[str, Choices]:
        """The parameters, `depth_1` to `block_N`, with what each may be."""
        return {
            f"{name}_{number}": choices
            for number, stage in enumerate(self.stages, 1)
            for name, choices in stage.items()
            if isinstance(choices, range) or len(choices) > 1
        }

    @cached_property
    def distributions(self) -> dict[str, IntDistribution]:
        """The parameters as Optuna distributions."""
        return {
            name: IntDistribution(choices[0], choices[-1], step=choices.step)
            if isinstance(choices, range)
            else IntDistribution(0, len(choices) - 1)
            for name, choices in self.choices.items()
        }

    @property
    def _of_images(self) -> tuple[int, int, int]:
        return self.num_classes, self.in_channels, self.stem_stride

    @property
    def cardinality(self) -> int:
        """The number of architectures."""
        return math.prod(len(choices) for choices in self.choices.values())

    def decode(self, params: Mapping[str, Any]) -> Architecture:
        """Give the architecture of a full set of parameters."""

        def value(param: str | None, choices: Choices) -> Any:  # noqa: ANN401
            if param is None:
                return choices[0]
            return params[param] if isinstance(choices, range) else choices[params[param]]

        stages = [_stage(*[value(*field) for field in stage]) for stage in self._fields]
        return Architecture(tuple(stages), *self._of_images)

    @cached_property
    def _fields(self) -> list[list[tuple[str | None, Choices]]]:
        """List each stage's `FIELDS`: the parameter, `None` where nothing is left to choose."""
        return [
            [
                (param if (param := f"{name}_{number}") in self.choices else None, stage[name])
                for name in FIELDS
            ]
            for number, stage in enumerate(self.stages, 1)
        ]

    def corner(self, pick: Callable[..., Any], cost: Callable[[Architecture], int]) -> Architecture:
        """Give the smallest (`pick=min`) or largest (`pick=max`) network by a cost.

        All numbers are at their end; block types are picked stage by stage, which is exact where
        the cost of a block depends on its shape alone.
        """
        params = {
            name: pick(choices)
            for name, choices in self.choices.items()
            if isinstance(choices, range)
        }
        params |= {name: 0 for name in self.choices if name not in params}
        for name, choices in self.choices.items():
            if not isinstance(choices, range):
                tries = [params | {name: index} for index in range(len(choices))]
                params = pick(tries, key=lambda p: cost(self.decode(p)))
        return self.decode(params)

    def contains(self, arch: Architecture) -> bool:
        """Tell whether `decode` can give this architecture."""
        return (
            len(arch.stages) == len(self.stages)
            and (arch.num_classes, arch.in_channels, arch.stem_stride) == self._of_images
            and all(
                getattr(stage, name) in choices
                for stage, space in zip(arch.stages, self.stages, strict=True)
                for name, choices in space.items()
            )
        )

    def encode(self, arch: Architecture) -> dict[str, int] | None:
        """Give the parameters of an architecture, or `None` for one outside the space."""
        return self.place(arch) if self.contains(arch) else None

    def place(self, arch: Architecture) -> dict[str, int] | None:
        """Give them as `encode` does, also where a number lies outside its range.

        `None` still for another number of stages, and another value where there is no range.
        """
        if len(arch.stages) != len(self.stages):
            return None
        params = {}
        for fields, stage in zip(self._fields, arch.stages, strict=True):
            for (param, choices), name in zip(fields, FIELDS, strict=True):
                value = getattr(stage, name)
                if not isinstance(choices, range) and value not in choices:
                    return None
                if param is not None:
                    params[param] = value if isinstance(choices, range) else choices.index(value)
        return params

    def to_dict(self) -> dict[str, Any]:
        """Describe the space in JSON's types, for a study's identity."""
        stem = {} if self.stem_stride == 1 else {"stem_stride": self.stem_stride}
        return {
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            **stem,
            "stages": [
                {
                    name: [choices[0], choices[-1], choices.step]
                    if isinstance(choices, range)
                    else list(choices)
                    for name, choices in stage.items()
                }
                for stage in self.stages
            ],
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SearchSpace:
        """Read `to_dict`'s form."""

        def choices(name: str, entry: list[Any]) -> Choices:
            if name == "block" or len(entry) == 1:
                return tuple(entry)
            return range(entry[0], entry[1] + 1, entry[2])

        stages = tuple({n: choices(n, entry) for n, entry in s.items()} for s in raw["stages"])
        images = (raw["num_classes"], raw["in_channels"], raw.get("stem_stride", 1))
        return cls(stages, *images)

    def includes(self, other: SearchSpace) -> bool:
        """Tell whether every trial of `other` keeps its meaning here.

        That is so when the parameters are the same, each of its ranges lies in ours, and block
        types, which are stored as an index, begin with the same ones in the same order.
        """
        if self._of_images != other._of_images:
            return False
        return len(self.stages) == len(other.stages) and all(
            _includes(ours[name], theirs[name])
            for ours, theirs in zip(self.stages, other.stages, strict=True)
            for name in FIELDS
        )


# A search decodes the same few stages over and over.
_stage = lru_cache(maxsize=65_536)(Stage)


def _includes(ours: Choices, theirs: Choices) -> bool:
    if isinstance(ours, range) and isinstance(theirs, range):
        return set(theirs) <= set(ours)
    if isinstance(ours, range) or isinstance(theirs, range):
        return False  # a parameter here is none there
    if min(len(ours), len(theirs)) == 1:
        return ours == theirs
    return ours[: len(theirs)] == theirs


def load_space(name_or_file: str) -> tuple[str, SpaceConfig]:
    """Read a space preset or TOML file.

    Raises:
        UserError: Not found, or wrong; one line.
    """
    return load("spaces", name_or_file, SpaceConfig)
