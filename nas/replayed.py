"""Replayed: a training step as a CUDA graph, recorded once, so that its launches cost nothing."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict, deque
from collections.abc import Callable

import torch
from torch import Tensor

from nas.errors import brief
from nas.failures import is_out_of_memory
from nas.interruption import Interruption

Step = Callable[[Tensor, Tensor], None]  # of (N, C, H, W) images and (N,) labels
STEPS_BEFORE = 3  # called as they are: what cuDNN and the optimizer keep is made in them
# Replays that may wait for the device. Without a limit the caller would be an epoch ahead of it,
# and Ctrl-C, checkpoints and the time of a trial as late.
AHEAD = 4

# Streams of trainings that ended, to be used again: for each that there ever was, torch 2.11 keeps
# cuBLAS workspaces of up to 64 MiB.
_idle: dict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


class Replayed:
    """Calls a step a few times as it is, then records it as a CUDA graph and replays that.

    Replaying gives what calling does, as the same kernels run on the same tensors. All that a step
    reads and changes must be tensors on the device, changed in place; it must not wait for it.
    Where there is too little memory to record it, it is called.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        torch.cuda.empty_cache()  # a graph that is gone leaves memory that serves nothing else
        idle = _idle[device]
        self._device = device
        self._stream = idle.pop() if idle else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        weakref.finalize(self, idle.append, self._stream)
        self._num_to_call: float = STEPS_BEFORE
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, Tensor]
        self._queue: deque[torch.cuda.Event] = deque()

    def __call__(self, step: Step, images: Tensor, labels: Tensor) -> None:
        """Do the step, the same one in every call, on images and labels of the same shapes.

        It is not kept: a cycle of references would hold a finished training's memory.

        Raises:
            RuntimeError: What the step raises; or it waits for the device.
        """
        if self._num_to_call == 0 and self._graph is None:
            self._record(step, images, labels)
        if self._graph is None:
            self._num_to_call -= 1
            self._call(step, images, labels)
            return
        for own, new in zip(self._inputs, (images, labels), strict=True):
            own.copy_(new)
        self._graph.replay()
        self._wait()

    def _call(self, step: Step, images: Tensor, labels: Tensor) -> None:
        """Call it on a stream of its own, as recording needs of the calls before it."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                step(images, labels)
        finally:
            current.wait_stream(self._stream)

    def _record(self, step: Step, images: Tensor, labels: Tensor) -> None:
        self._inputs = images.clone(), labels.clone()
        try:
            self._graph = self._recorded(step)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._num_to_call = math.inf
        if self._graph is None:
            torch.cuda.empty_cache()  # of what the half-made graph held

    def _recorded(self, step: Step) -> torch.cuda.CUDAGraph:
        graph, cause = torch.cuda.CUDAGraph(), None
        current = torch.cuda.current_stream(self._device)
        try:
            with (
                Interruption(),
                torch.cuda.device(self._device),
                torch.cuda.stream(current),  # torch 2.11 stays where it records if that fails
                torch.cuda.graph(graph, stream=self._stream),
            ):
                try:
                    step(*self._inputs)
                except Exception as error:
                    cause = error  # of which the end of a recording may make another one
                    raise
        except Exception as error:  # noqa: BLE001 - it is raised again
            cause = cause or error
            if "captur" not in str(cause):
                raise cause from None
            raise RuntimeError(
                f"a step cannot be recorded as a CUDA graph ({brief(cause)}): a forward pass must "
                "not wait for the device"
            ) from None
        finally:
            del cause  # its traceback holds this frame, and with it all that the step made
        return graph

    def _wait(self) -> None:
        """Wait for the device until few replays are left in its queue."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._queue.append(event)
        if len(self._queue) > AHEAD:
            self._queue.popleft().synchronize()
