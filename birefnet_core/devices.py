"""Choosing where and in which precision a network runs."""

from __future__ import annotations

import time
from functools import cache

import torch

from .errors import ConfigError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA (or ROCm), then XPU, then MPS, then the CPU.

    Raises:
        ConfigError: An unknown device, or one this machine does not have.
    """
    if isinstance(name, str) and name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if hasattr(torch, "xpu") and torch.xpu.is_available():
            return torch.device("xpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ConfigError(f"device {str(name)!r} cannot be used here ({reason}). Use 'auto' or 'cpu'.") from error
    return device


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" takes float16 on CUDA, float32 elsewhere, but see ``bfloat16_is_faster_on_cpu``.

    Raises:
        ConfigError: An unknown dtype.
    """
    if isinstance(name, torch.dtype):
        if name not in DTYPES.values():
            raise ConfigError(f"dtype {name} is not one a network runs in; use {', '.join(map(str, DTYPES.values()))}.")
        return name
    if name == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if bfloat16_is_faster_on_cpu() else torch.float32
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"dtype={name!r} is not known; use 'auto' or one of {', '.join(map(repr, DTYPES))}.")
    return DTYPES[name]


@cache
def bfloat16_is_faster_on_cpu() -> bool:
    """Whether this processor multiplies matrices of bfloat16 (AMX tiles), and clearly faster than float32 ones.

    Vector instructions for bfloat16 (AVX-512) are not enough: with them alone the network is slower than in float32
    (benchmarks/precision.md).
    """
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(has_tiles()) and _product_seconds(torch.bfloat16) < 0.7 * _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    """The fastest of some products of matrices as large as those of an encoder's layer."""
    a, b = torch.ones(1024, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return min(seconds)
