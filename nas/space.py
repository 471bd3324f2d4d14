"""SearchSpace: what may be chosen, as Optuna distributions; decode, encode, cardinality."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

from optuna.distributions import IntDistribution

from nas.architecture import Architecture, Stage
from nas.space_file import IntRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nas.space_file import SpaceConfig

FIELDS = ("depth", "width", "kernel_size", "shortcut_kernel_size", "block")

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

    def fitted(self, arch: Architecture) -> Architecture:
        """Give a network the classes, channels and stem that the space's networks have."""
        num_classes, in_channels, stem_stride = self._of_images
        return replace(
            arch, num_classes=num_classes, in_channels=in_channels, stem_stride=stem_stride
        )

    def contains(self, arch: Architecture) -> bool:
        """Tell whether `decode` can give this architecture."""
        return not self.why_outside(arch)

    def why_outside(self, arch: Architecture) -> str:
        """Say in what an architecture differs from those of the space; nothing of one in it."""
        if len(arch.stages) != len(self.stages):
            return f"{len(arch.stages)} stages, not {len(self.stages)}"
        if (arch.num_classes, arch.in_channels, arch.stem_stride) != self._of_images:
            return "it is for other images"
        return ", ".join(
            f"{name} {getattr(stage, name)} of stage {number} is none of {_listed(choices)}"
            for number, (stage, space) in enumerate(zip(arch.stages, self.stages, strict=True), 1)
            for name, choices in space.items()
            if getattr(stage, name) not in choices
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


def _listed(choices: Choices) -> str:
    if isinstance(choices, range):
        return f"{choices[0]} to {choices[-1]}" + f" by {choices.step}" * (choices.step > 1)
    return ", ".join(map(str, choices))


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
