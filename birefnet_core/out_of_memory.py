"""Recognises the out-of-memory errors of CUDA, MPS, XPU and CPU allocators, and says them in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from .errors import MemoryLimitError
from .text import first_line

# torch 2.4 has it under torch.cuda only.
OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
# The plain RuntimeErrors of other allocators: MPS and XPU, CPUs on Linux and macOS, CPUs on Windows, and C++'s own.
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")


def is_out_of_memory(error: object) -> bool:
    """Whether an error says that a device, or the CPU, ran out of memory."""
    return isinstance(error, OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _MESSAGES)
    )


@contextmanager
def out_of_memory_as(message: Callable[[str], str]) -> Iterator[None]:
    """Makes it a MemoryLimitError that a device, or this process, runs out of memory.

    Args:
        message: The error's message for a reason, such as the allocator's own words.
    """
    try:
        yield
    except MemoryLimitError:
        raise
    except (RuntimeError, MemoryError) as error:
        # torch's exporter makes an error of its own of it.
        causes = [one for one in (error.__cause__, error) if isinstance(one, MemoryError) or is_out_of_memory(one)]
        if not causes:
            raise
        raise MemoryLimitError(message(_reason(causes[0]))) from error


def for_weights(device: torch.device) -> AbstractContextManager[None]:
    """``out_of_memory_as`` where weights are brought to a device, or made ready on it."""
    return out_of_memory_as(
        lambda reason: (
            f"too little memory on {device} for the network's weights ({reason}). Close other programs that use it, or "
            "take a smaller checkpoint such as BiRefNet_lite, half precision, or the CPU."
        )
    )


def _reason(error: object) -> str:
    lines = str(error).splitlines() or ["out of memory"]
    # What a worker of a DataLoader raised comes with its traceback before it.
    return first_line(lines[-1 if lines[0].startswith("Caught") else 0]).rstrip(". ")


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
