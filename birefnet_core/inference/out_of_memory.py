"""Whether a device had no memory left, which each of them says in its own way."""

from __future__ import annotations

import torch

# torch 2.4 has it under torch.cuda only.
OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
# What plain errors of other devices' allocators say: MPS and XPU, CPUs on Linux and macOS, CPUs on Windows.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the CPU, had no memory left."""
    return isinstance(error, OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )


def empty_cache(device: torch.device) -> None:
    """Gives back what the device's allocator keeps for later."""
    release = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if release:
        release()
