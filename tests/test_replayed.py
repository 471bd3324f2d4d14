"""A step that is replayed: its order, its inputs and its failures, on a CUDA that records calls."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from nas.failures import is_device_lost
from nas.replayed import AHEAD, STEPS_BEFORE, Replayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEVICE = torch.device("cuda", 0)
NUM_STEPS = 12


class FakeCuda:
    """Keeps what is done while it records, and does it at each replay."""

    def __init__(self) -> None:
        self.recording: list[Callable[[], None]] | None = None
        self.num_recorded = self.num_replayed = self.num_waits = 0
        self.fails_at_end: Exception | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Do a kernel's work now, or at each replay."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def replay(self, works: list[Callable[[], None]]) -> None:
        """Do what was recorded."""
        self.num_replayed += 1
        for work in works:
            work()

    @contextmanager
    def graph(self, graph: Any, *, stream: object) -> Iterator[None]:
        """Record."""
        assert stream is not None
        self.recording = graph.works
        try:
            yield
        finally:
            self.recording = None
            if self.fails_at_end is not None:
                raise self.fails_at_end
        self.num_recorded += 1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()

    def new_graph() -> Any:
        works: list[Callable[[], None]] = []
        return SimpleNamespace(works=works, replay=lambda: fake.replay(works))

    def wait() -> None:
        fake.num_waits += 1

    def stream(*_: object) -> Any:
        return SimpleNamespace(wait_stream=lambda _other: None)

    replaced = {
        "Stream": stream,
        "Event": lambda **_: SimpleNamespace(record=lambda _stream: None, synchronize=wait),
        "CUDAGraph": new_graph,
        "graph": fake.graph,
        "stream": lambda _stream: nullcontext(),
        "device": lambda _device: nullcontext(),
        "current_stream": stream,
        "empty_cache": lambda: None,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("nas.replayed._idle", {DEVICE: []})
    return fake


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.full((2, 3), float(n)), torch.tensor([n, n + 1])) for n in range(NUM_STEPS)]


def sums(cuda: FakeCuda, *, fails: Callable[[], None] = lambda: None) -> list[float]:
    """Replay a step that adds its inputs up; gives the sum after each."""
    total, replayed, seen = torch.zeros(()), Replayed(DEVICE), []

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        cuda.do(lambda: total.add_(images.sum() + 100 * labels.sum()))
        if cuda.recording is not None:
            fails()

    for images, labels in batches():
        replayed(step, images, labels)
        seen.append(total.item())
    return seen


def expected() -> list[float]:
    return torch.tensor([float(i.sum() + 100 * n.sum()) for i, n in batches()]).cumsum(0).tolist()


def test_every_step_is_done_once_and_on_its_own_batch(cuda: FakeCuda) -> None:
    assert sums(cuda) == expected()
    assert (cuda.num_recorded, cuda.num_replayed) == (1, NUM_STEPS - STEPS_BEFORE)


def test_the_caller_is_few_steps_ahead_of_the_device(cuda: FakeCuda) -> None:
    sums(cuda)
    assert cuda.num_waits == NUM_STEPS - STEPS_BEFORE - AHEAD > 0


@pytest.mark.parametrize("at_end", [False, True])
def test_without_the_memory_to_record_it_the_step_is_called(
    cuda: FakeCuda, *, at_end: bool
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    if at_end:
        cuda.fails_at_end = RuntimeError("CUDA error: out of memory")

    def fails() -> None:
        if not at_end:
            raise error

    assert sums(cuda, fails=fails) == expected()
    assert cuda.num_replayed == 0


def test_what_a_failed_recording_held_is_free_when_the_step_is_called(cuda: FakeCuda) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    is_held: list[bool] = []

    def step(_images: torch.Tensor, _labels: torch.Tensor) -> None:
        activations = torch.zeros(1)
        if cuda.recording is not None:
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        is_held.extend(reference() is not None for reference in held)

    replayed = Replayed(DEVICE)
    gc.disable()
    try:
        for images, labels in batches():
            replayed(step, images, labels)
    finally:
        gc.enable()
    assert is_held == [False] * (NUM_STEPS - STEPS_BEFORE)


def test_a_step_that_waits_for_the_device_is_no_lost_device(cuda: FakeCuda) -> None:
    cuda.fails_at_end = torch.AcceleratorError("operation failed due to a previous error")

    def fails() -> None:
        raise torch.AcceleratorError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="cannot be recorded .* must not wait") as caught:
        sums(cuda, fails=fails)
    assert not is_device_lost(caught.value)


def test_what_a_step_raises_is_what_its_caller_hears(cuda: FakeCuda) -> None:
    cuda.fails_at_end = torch.AcceleratorError("operation failed due to a previous error")

    def fails() -> None:
        raise ValueError("of the network")

    with pytest.raises(ValueError, match="of the network"):
        sums(cuda, fails=fails)


@pytest.mark.usefixtures("cuda")
def test_a_stream_is_used_again_when_its_training_is_over() -> None:
    first = Replayed(DEVICE)
    second = Replayed(DEVICE)
    stream = first._stream
    assert second._stream is not stream
    del first
    assert Replayed(DEVICE)._stream is stream
