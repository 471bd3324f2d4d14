"""TrainingState: what a training is between two steps, to be saved and gone on from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, nn


class ModelAverage:
    """Running average of a model's whole state: weights and batch norm statistics alike.

    Args:
        model: What is averaged, in the memory format in which it stays.
        decay: What the average keeps of itself a step.

    Attributes:
        model: The averaged model, for evaluation.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self._decay = decay
        # A model's tensors are changed in place, so that they are looked up once, not every step.
        pairs = list(
            zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        )
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """Take in the model after `num_steps` steps; early ones count more, so it is warm soon."""
        weight = 1 - min(self._decay, num_steps / (num_steps + 10))
        averages, values = zip(*self._floats, strict=True)
        torch._foreach_lerp_(averages, values, weight)  # as torch.optim.swa_utils does
        if self._counters:
            averages, values = zip(*self._counters, strict=True)
            torch._foreach_copy_(averages, values)


@dataclass(eq=False)
class TrainingState:
    """All that a training is between two steps: what continues from it ends bitwise the same.

    Attributes:
        model: In training mode and channels-last format.
        optimizer: Of the model.
        scaler: Of the gradients, where they are float16.
        average: Of the model, or `None`.
        totals: (2,) summed loss and number correct of the running epoch.
        step: Steps done.
        epoch: Epochs done and yielded.
        elapsed_seconds: Of the running epoch.
    """

    model: nn.Module
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler
    average: ModelAverage | None
    totals: Tensor
    step: int = 0
    epoch: int = 0
    elapsed_seconds: float = 0.0

    @property
    def result(self) -> nn.Module:
        """What is evaluated: the average where there is one, else the model."""
        return self.model if self.average is None else self.average.model

    def tensors(self) -> dict[str, Tensor]:
        """Name every tensor of the state."""
        named = {"totals": self.totals}
        named |= {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if self.average is not None:
            named |= {f"average.{k}": v for k, v in self.average.model.state_dict().items()}
        for name, param in self.model.named_parameters():
            momentum = self.optimizer.state[param].get("momentum_buffer")
            if momentum is not None:
                named[f"momentum.{name}"] = momentum
        return named

    def numbers(self) -> dict[str, Any]:
        """Give the rest of the state, in JSON's types."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "elapsed_seconds": self.elapsed_seconds,
            "scaler": self.scaler.state_dict(),
        }

    @torch.no_grad()
    def make_room(self, names: Collection[str]) -> None:
        """Have all tensors of these names, those that are there as they are.

        Momentum begins with the first step.
        """
        for name, param in self.model.named_parameters():
            own = self.optimizer.state[param]
            if f"momentum.{name}" in names and own.get("momentum_buffer") is None:
                own["momentum_buffer"] = torch.zeros_like(param)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Become the state that `tensors` and `numbers` were taken of, on whatever device."""
        self.make_room(tensors)
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        if numbers["scaler"]:  # empty where the checkpoint's device needed none
            self.scaler.load_state_dict(numbers["scaler"])
        self.step, self.epoch = numbers["step"], numbers["epoch"]
        self.elapsed_seconds = numbers["elapsed_seconds"]
