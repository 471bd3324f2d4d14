"""Ranks: the processes of one training under torchrun, each with its share of every batch.

Rank 0 leads: it alone reads and writes files and databases, and tells the others what to train.
Together they take the steps that one process would: the same batches in the same order with the
same augmentation, the gradients summed. Batch norm takes its statistics over all shares on CUDA
(SyncBatchNorm) and over each process's own share on the CPU, where PyTorch has no such layer;
the running averages are then averaged over the ranks after each step. So all ranks hold the same
model at any time, to the last bit.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed, nn

from nas.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from nas.training_state import TrainingState

# How long a rank waits for another one: not short, for rank 0 alone evaluates and writes files;
# torchrun itself ends the others as soon as one dies.
PATIENCE = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of one training.

    Attributes:
        rank: From 0, which leads.
        count: Of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process reads, writes, evaluates and speaks."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Take this rank's part of (N, ...), as equal as possible."""
        return batch.tensor_split(self.count)[self.rank]

    def tell(self, message: str | None = None) -> str | None:
        """Pass a text of rank 0 on to all, which wait for it; `None` is a message too."""
        messages = [message]
        if self.count > 1:
            distributed.broadcast_object_list(messages, device=torch.device("cpu"))
        return messages[0]

    def part(self) -> None:
        """Leave the others, at the same point of all."""
        if self.count > 1:
            distributed.destroy_process_group()

    def with_shared_statistics(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Have batch norm take its statistics over all ranks, where PyTorch can: on CUDA."""
        if self.count == 1 or device.type != "cuda":
            return model
        shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return shared

    def with_summed_gradients(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that gradients are averaged over the ranks in the backward pass."""
        if self.count == 1:
            return model
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped.broadcast_buffers = False  # in every forward pass; they are equal already
        return wrapped

    @torch.no_grad()
    def average_statistics(self, model: nn.Module) -> None:
        """Average what batch norm has measured, unless it already did so over all ranks."""
        if self.count == 1 or any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
            return
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        if not buffers:
            return
        flat = self.sum(torch.cat([b.flatten() for b in buffers])) / self.count
        for buffer, mean in zip(
            buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True
        ):
            buffer.copy_(mean.view_as(buffer))

    def sum(self, values: Tensor) -> Tensor:
        """Add up over the ranks, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def take_state_of_leader(self, state: TrainingState) -> None:
        """Become the state of rank 0, which may have gone on from a checkpoint."""
        if self.count == 1:
            return
        known = json.dumps([state.numbers(), list(state.tensors())]) if self.leads else None
        numbers, names = json.loads(self.tell(known) or "")
        state.make_room(names)
        for tensor in state.tensors().values():
            distributed.broadcast(tensor, 0)
        state.restore(state.tensors(), numbers)

    def require_identical(self, state: TrainingState) -> None:
        """Assert that all ranks hold the same model."""
        if self.count == 1:
            return
        digests: list[str | None] = [None] * self.count
        distributed.all_gather_object(digests, checksum(state))
        assert len(set(digests)) == 1, f"the ranks have come apart: {digests}"


ALONE = Ranks()


def checksum(state: TrainingState) -> str:
    """Give the SHA-256 of all tensors of a state."""
    digest = hashlib.sha256()
    for tensor in state.tensors().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def join(device: str = "auto") -> Ranks:
    """Join the processes that torchrun started, each on a device of its own; or be alone.

    On "cpu" no GPU is touched; else each process takes the GPU of its local rank, if there is one.
    After an error nothing is taken apart: the others may be waiting in mid-step, and torchrun
    ends them when this process has left.

    Raises:
        UserError: There are fewer GPUs than processes here.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    is_on_cuda = device != "cpu" and torch.cuda.is_available()
    if is_on_cuda:
        local, num_here = (int(os.environ[f"LOCAL_{each}"]) for each in ("RANK", "WORLD_SIZE"))
        if num_here > (num_devices := torch.cuda.device_count()):
            if local > 0:  # process 0 says it; then torchrun ends the others, but not before
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pause()
            raise UserError(
                f"torchrun starts {num_here} processes here, and each takes a GPU, of which there "
                f"are {num_devices}; use --nproc-per-node={num_devices}"
            )
        torch.cuda.set_device(local)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if is_on_cuda else "gloo", timeout=PATIENCE)
    ranks = Ranks(distributed.get_rank(), count)
    if not ranks.leads:  # they mostly wait for rank 0, deaf to Python's handlers
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return ranks


def is_lost_rank(error: BaseException) -> bool:
    """Tell whether an error says that another rank is gone.

    Of NCCL that is a `DistError`; gloo raises a bare RuntimeError that names its source file.
    """
    return isinstance(error, distributed.DistError) or "gloo" in str(error)
