"""What an error says: that memory ran out, the device is lost, or the compiler failed."""

from __future__ import annotations

import torch


def is_device_lost(error: BaseException) -> bool:
    """Tell whether an error leaves the process's CUDA context broken, as an illegal access does."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",
)


def fail_reason(error: BaseException) -> str | None:
    """Name why a network cannot be trained, or `None` where the error says nothing about it."""
    if is_out_of_memory(error):
        return "out_of_memory"
    return "not_compiled" if is_of_compiler(error) else None


def is_of_compiler(error: BaseException) -> bool:
    """Tell whether `torch.compile` failed, as where there is no C++ compiler."""
    return type(error).__module__.startswith(("torch._inductor", "torch._dynamo"))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on CUDA or the CPU.

    The CPU allocator raises a bare RuntimeError; its words are "DefaultCPUAllocator: can't allocate
    memory" on Linux and "not enough memory" elsewhere (c10/core/impl/alloc_cpu.cpp). Where other
    processes fill a GPU, it may be the driver or a library that runs out, not torch's allocator.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in NO_MEMORY)
