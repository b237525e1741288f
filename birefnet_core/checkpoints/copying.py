"""Copies weights out of a file in threads, which also look at every value and compare checksums."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..devices import prepare_threads
from .checksums import Checksums
from .crc32 import BLOCK, Crc32
from .values import are_finite, bits_of, is_finite

_THREADS = 4  # more wait for the memory
_BLOCK = 2**18  # numbers that stay in a processor's cache
_POPULATE_WRITE = 23  # of madvise(2), from Linux 5.14 on
_madvise = None
if sys.platform == "linux":
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def copy_weights(
    weights: Mapping[str, Tensor], types: Mapping[str, torch.dtype], checksums: Sequence[Checksums] = ()
) -> tuple[dict[str, Tensor], set[str]]:
    """Copies tensors to memory of their own on the CPU: those of a file lie in a mapping of it, at odd addresses.

    Args:
        weights: By name; plain tensors.
        types: What to convert them to, by name.
        checksums: Of the files the tensors are views of; those of whole tensors are compared.

    Returns:
        The copies, and the names of those with values that are NaN or infinite in float32.
    """
    prepare_threads()
    left = sorted(weights, key=lambda name: weights[name].numel())
    copies: dict[str, Tensor] = dict.fromkeys(weights, torch.empty(0))
    not_finite: set[str] = set()

    def copy() -> None:
        while True:
            try:
                name = left.pop()  # the largest
            except IndexError:
                return
            copies[name], finite = _copy(weights[name], types[name], check=not checksums)
            if not finite:
                not_finite.add(name)

    def compare_and_copy() -> None:
        crc32 = Crc32()
        for name, value in weights.items():
            if not _check(value, checksums, crc32):
                not_finite.add(name)
        copy()

    # Where there are checksums, one thread compares them and looks at the values before it copies, too: that is many
    # short calls, in which several threads of Python would hinder each other.
    count = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        first = compare_and_copy if checksums else copy
        for future in [pool.submit(first), *(pool.submit(copy) for _ in range(count - 1))]:
            future.result()
    return copies, not_finite


def _check(value: Tensor, checksums: Sequence[Checksums], crc32: Crc32) -> bool:
    """Compares the checksum of a tensor's data, and says whether all values are finite."""
    value = value.detach()
    bits = bits_of(value)
    if bits is None:
        return is_finite(value)
    compared = next((c for sums in checksums if (c := sums.comparison(value, crc32))), None)
    finite, block = True, BLOCK // bits.itemsize
    for start in range(0, bits.size, block):
        part = bits[start : start + block]
        finite = finite and are_finite(part, value.dtype)
        if compared:
            crc32.add(part)
    if compared:
        compared()
    return finite


def _copy(value: Tensor, dtype: torch.dtype, *, check: bool) -> tuple[Tensor, bool]:
    """A copy, and whether all values are finite, or True without a check."""
    value = value.detach()
    bits = bits_of(value)
    if bits is None:
        return value.to("cpu", dtype, copy=True), not check or is_finite(value)
    target = torch.empty(value.shape, dtype=dtype)
    copied = bits_of(target) if value.dtype == dtype else None
    if copied is None:
        target.copy_(value)
    finite = True
    for start in range(0, bits.size, _BLOCK):
        part = bits[start : start + _BLOCK]
        if copied is not None:
            _provide(target, start * dtype.itemsize, part.nbytes)
            np.copyto(copied[start : start + _BLOCK], part)
        if check:
            finite = finite and are_finite(part, value.dtype)
    return target, finite


def _provide(target: Tensor, start: int, size: int) -> None:
    """Has Linux provide memory before it is written, in less time than page by page while it is.

    Args:
        target: The memory's tensor.
        start: Where in it, in bytes.
        size: How much, in bytes; other threads cannot ask for memory meanwhile.
    """
    if _madvise is not None:
        page, start = mmap.PAGESIZE, target.data_ptr() + start
        first, last = -(-start // page) * page, (start + size) // page * page
        if first < last:
            _madvise(first, last - first, _POPULATE_WRITE)
