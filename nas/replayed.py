"""Replayed: a training step as a CUDA graph, recorded once, so that its launches cost nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], None]  # of (N, C, H, W) images and (N,) labels
STEPS_BEFORE = 3  # run as they are: what cuDNN and the optimizer keep is made in them


class Replayed:
    """Calls a step a few times as it is, then records it as a CUDA graph and replays that.

    Replaying gives what calling does, as the same kernels run on the same tensors. All that a step
    reads and changes must be tensors on the device, changed in place; it must not wait for it.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._num_before = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, Tensor]

    def __call__(self, step: Step, images: Tensor, labels: Tensor) -> None:
        """Do the step, the same one in every call, on images and labels of the same shapes.

        It is not kept: a cycle of references would hold a finished training's memory.
        """
        if self._num_before < STEPS_BEFORE:
            self._num_before += 1
            self._call(step, images, labels)
            return
        if self._graph is None:
            self._inputs = images.clone(), labels.clone()
            self._graph = self._recorded(step)
        for own, new in zip(self._inputs, (images, labels), strict=True):
            own.copy_(new)
        self._graph.replay()

    def _call(self, step: Step, images: Tensor, labels: Tensor) -> None:
        """Call it on a stream of its own, as recording needs of the calls before it."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step(images, labels)
        current.wait_stream(self._stream)

    def _recorded(self, step: Step) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream):
            step(*self._inputs)
        return graph
