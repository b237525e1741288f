"""Recognises the out-of-memory errors of CUDA, MPS, XPU and CPU allocators."""

from __future__ import annotations

import torch

# torch 2.4 has it under torch.cuda only.
OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
# The plain RuntimeErrors of other allocators: MPS and XPU, CPUs on Linux and macOS, CPUs on Windows, and C++'s own.
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the CPU, ran out of memory."""
    return isinstance(error, OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _MESSAGES)
    )


def empty_cache(device: torch.device) -> None:
    """Returns the unused memory that the device's caching allocator holds."""
    release = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if release:
        release()


def free_memory(device: torch.device) -> int | None:
    """Bytes this process can still allocate on a device, its allocator's cache included; None where unknown."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # memory_reserved() and memory_allocated() would sort all statistics, each, for one number.
    stats = torch.cuda.memory_stats_as_nested_dict(device)
    reserved, allocated = (stats[name]["all"]["current"] for name in ("reserved_bytes", "allocated_bytes"))
    return free + reserved - allocated
