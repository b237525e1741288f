"""Copies weights to memory of their own, out of files by reading them, in threads that also look at every value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO

import numpy as np
import torch
from torch import Tensor

from ..devices import prepare_threads
from .crc32 import Crc32
from .file_data import PART, FileData, Place, provide
from .values import integers_of, largest_in_bits, largest_magnitude, magnitude_of

_THREADS = 4  # more wait for the memory


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
    # Asking for memory waits for threads that have some provided, so all is asked for before. Not in inference mode, in
    # which ComfyUI runs nodes: threads are not in it, and could not write to its tensors.
    with torch.inference_mode(False):
        copies = {name: torch.empty(value.shape, dtype=types[name], device="cpu") for name, value in weights.items()}
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
        self._block = np.empty(PART, np.uint8)

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
        if integer is None or not value.is_contiguous() or value.is_neg():
            raw = torch.empty(span * size, dtype=torch.uint8, device="cpu")
            for _ in place.data.read(self._open[place.data], start, raw.numel(), raw.numpy(), self._crc32, entry):
                pass
            read = raw.view(value.dtype).as_strided(value.shape, value.stride())
            if value.is_neg():  # as torch.view_as_complex(x).conj().imag is, whose memory holds the opposite
                read = read.neg()
            target.copy_(read)
            return largest_magnitude(read)
        largest = 0
        same = target.dtype == value.dtype
        memory = target.view(-1).view(torch.uint8).numpy() if same else self._block
        for at, part in place.data.read(self._open[place.data], start, span * size, memory, self._crc32, entry):
            largest = max(largest, largest_in_bits(part.view(integer)))
            if not same:
                converted = target.view(-1)[at // size : (at + part.size) // size]
                provide(converted.data_ptr(), converted.nbytes)
                converted.copy_(torch.from_numpy(part).view(value.dtype))
        return magnitude_of(largest, value.dtype)
