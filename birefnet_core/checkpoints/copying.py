"""Copies weights to memory of their own, out of files by reading them, in threads that also look at every value."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO
from zipfile import ZipInfo

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..devices import prepare_threads
from .crc32 import BLOCK, Crc32
from .file_data import FileData, Place
from .values import integers_of, largest_in_bits, largest_magnitude, magnitude_of

_THREADS = 4  # more wait for the memory
_READ = 8 * BLOCK  # bytes at a time
_POPULATE_WRITE = 23  # of madvise(2), from Linux 5.14 on
_madvise = None
if sys.platform == "linux":
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def copy_weights(
    weights: Mapping[str, Tensor], types: Mapping[str, torch.dtype], files: Sequence[FileData] = ()
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Copies tensors to memory of their own on the CPU.

    Args:
        weights: By name; plain tensors.
        types: What to convert them to, by name.
        files: The files that tensors are views of. What lies in them is read, and its checksum compared where it is
            the whole of what has one.

    Returns:
        The copies, and the largest absolute value of each tensor in float32, before it was converted: NaN or infinite
        where any value is.

    Raises:
        CheckpointError: A file cannot be read to its end, or a checksum differs.
        OSError: A file cannot be read.
    """
    prepare_threads()
    left = sorted(weights, key=lambda name: weights[name].numel())
    # Asking for memory waits for threads that have some provided, so all is asked for before.
    copies = {name: torch.empty(value.shape, dtype=types[name]) for name, value in weights.items()}
    magnitudes: dict[str, float] = {}

    def copy() -> None:
        with ExitStack() as stack:
            reader = _Reader(files, stack)
            while True:
                try:
                    name = left.pop()  # the largest
                except IndexError:
                    return
                try:
                    magnitudes[name] = reader.copy(weights[name], copies[name])
                except BaseException:
                    left.clear()  # the other threads need not go on
                    raise

    count = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(copy) for _ in range(count)]:
            future.result()
    return copies, magnitudes


class _Reader:
    """Copies one tensor after another. Not for several threads.

    Args:
        files: See ``copy_weights``.
        stack: Closes what is opened.
    """

    def __init__(self, files: Sequence[FileData], stack: ExitStack) -> None:
        self._files = files
        self._stack = stack
        self._open: dict[FileData, FileIO] = {}
        self._crc32 = Crc32()
        self._block = np.empty(_READ, np.uint8)

    def copy(self, value: Tensor, target: Tensor) -> float:
        """Copies one to another, and returns the largest absolute value."""
        value = value.detach()
        place = next((place for data in self._files if (place := data.place(value))), None)
        if place is None or not value.numel():
            target.copy_(value)
            return largest_magnitude(value)
        if place.data not in self._open:
            self._open[place.data] = self._stack.enter_context(place.data.open())
        return self._read(place, value, target)

    def _read(self, place: Place, value: Tensor, target: Tensor) -> float:
        size = value.element_size()
        start = place.start + int(value.storage_offset()) * size
        span = 1 + sum((n - 1) * stride for n, stride in zip(value.shape, value.stride(), strict=True))
        entry = place.entry
        if entry and (start, span * size) != (place.start, entry.file_size):
            entry = None
        integer = integers_of(value.dtype)
        if integer is None or not value.is_contiguous():
            raw = torch.empty(span * size, dtype=torch.uint8)
            for _ in self._parts(place, start, entry, raw, raw.numel()):
                pass
            read = raw.view(value.dtype).as_strided(value.shape, value.stride())
            target.copy_(read)
            return largest_magnitude(read)
        largest = 0
        memory = target.view(-1).view(torch.uint8) if target.dtype == value.dtype else None
        for at, part in self._parts(place, start, entry, memory, span * size):
            largest = max(largest, largest_in_bits(part.view(integer)))
            if memory is None:
                converted = target.view(-1)[at // size : (at + part.size) // size]
                _provide(converted.data_ptr(), converted.nbytes)
                converted.copy_(torch.from_numpy(part).view(value.dtype))
        return magnitude_of(largest, value.dtype)

    def _parts(
        self, place: Place, start: int, entry: ZipInfo | None, memory: Tensor | None, size: int
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Reads ``size`` bytes, a part at a time, so that each is in the processor's cache when it is looked at.

        Args:
            place: Of the tensor.
            start: Where in the file to begin.
            entry: What is read, for its checksum; None to compare none.
            memory: Bytes to read to; None for a buffer.
            size: How many bytes.

        Yields:
            Where each part begins, and the part; a buffer is used again for the next.
        """
        file, crc32 = self._open[place.data], self._crc32
        array = self._block if memory is None else memory.numpy()
        if entry:
            crc32.start(size)
        for at in range(0, size, _READ):
            count = min(size - at, _READ)
            if memory is None:
                part = array[:count]
            else:
                part = array[at : at + count]
                _provide(memory.data_ptr() + at, count)
            place.data.fill(file, start + at, part.data)
            if entry:
                for i in range(0, count, BLOCK):
                    crc32.add(part[i : i + BLOCK])
            yield at, part
        if entry:
            place.data.compare(entry, crc32.total())


def _provide(start: int, size: int) -> None:
    """Has Linux provide memory before it is written, in less time than page by page while it is.

    Args:
        start: Its address.
        size: How much, in bytes; other threads cannot ask for memory meanwhile.
    """
    if _madvise is not None:
        page = mmap.PAGESIZE
        first, last = -(-start // page) * page, (start + size) // page * page
        if first < last:
            _madvise(first, last - first, _POPULATE_WRITE)
