"""Chooses the device and the precision a network runs in."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .errors import ConfigError, MemoryLimitError
from .out_of_memory import is_out_of_memory
from .text import first_line

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Compute capabilities from which a CUDA device multiplies float16 faster than float32, and bfloat16 as fast as float16.
TENSOR_CORES, BFLOAT16 = (7, 0), (8, 0)


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA (or ROCm), then XPU, then MPS, then the CPU.

    Raises:
        ConfigError: An unknown device, or one this machine does not have.
        MemoryLimitError: Other programs have all of its memory.
    """
    if isinstance(name, str) and name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if hasattr(torch, "xpu") and torch.xpu.is_available():
            return torch.device("xpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which a device without values, meta, does not have
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        if is_out_of_memory(error):
            raise MemoryLimitError(
                f"device {str(name)!r} has no memory left ({first_line(error)}). Close other programs that use it, or "
                "use 'cpu'."
            ) from error
        raise ConfigError(
            f"device {str(name)!r} cannot be used here ({first_line(error)}). Use 'auto' or 'cpu'."
        ) from error
    return device


def prepare_threads() -> None:
    """Makes torch's own pool, before threads are started that use it.

    A forked process makes it anew with its first use, which fails ("Invalid thread pool") where it is that of several
    threads at once.
    """
    torch.set_num_threads(torch.get_num_threads())


def choose_dtype(
    name: str | torch.dtype,
    device: torch.device,
    *,
    supports_float16: Callable[[torch.device], bool] | None = None,
) -> torch.dtype:
    """The dtype of that name.

    "auto" depends on the device's capabilities alone: on a CUDA device float16 from compute capability 7.0 (tensor
    cores) on; on a CPU bfloat16 if it has AMX tiles, with masks within 5e-3 of those in float32; float32 elsewhere.

    Args:
        name: "auto", a key of ``DTYPES``, or one of its dtypes.
        device: Where the network will run.
        supports_float16: Decides on CUDA devices instead of the compute capability.

    Raises:
        ConfigError: An unknown dtype.
    """
    if isinstance(name, torch.dtype):
        if name not in DTYPES.values():
            raise ConfigError(f"dtype {name} is not one a network runs in; use {', '.join(map(str, DTYPES.values()))}.")
        return name
    if name == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if has_amx_tiles() else torch.float32
        supports_float16 = supports_float16 or has_tensor_cores
        return torch.float16 if device.type == "cuda" and supports_float16(device) else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"dtype={name!r} is not known; use 'auto' or one of {', '.join(map(repr, DTYPES))}.")
    return DTYPES[name]


def has_amx_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in AMX tiles.

    AVX-512 instructions for bfloat16 are not enough: with those alone the network is slower than in float32
    (docs/benchmarks.md).
    """
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and bool(supported())


def has_tensor_cores(device: torch.device) -> bool:
    """Whether a CUDA device multiplies float16 matrices in tensor cores (ROCm: matrix cores)."""
    return torch.cuda.get_device_capability(device) >= TENSOR_CORES


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device computes in bfloat16 as fast as in float16; torch emulates it on older ones."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= BFLOAT16
