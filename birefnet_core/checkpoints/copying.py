"""Copies weights to memory of their own, out of files by reading them, in threads that also look at every value."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..devices import prepare_threads
from .crc32 import Crc32
from .file_data import PART, FileData, Place, provide
from .values import integers_of, largest_in_bits, largest_magnitude, largest_of_parts, magnitude_of

_THREADS = 4  # more wait for the memory
_SMALL = 2**16  # bytes of tensors that are read with those beside them
_GAP = 2**12  # bytes between those that are read along
_TOGETHER = PART // 2  # bytes that are read at a time for them


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
    # Asking for memory waits for threads that have some provided, so all is asked for before. Not in inference mode, in
    # which ComfyUI runs nodes: threads are not in it, and could not write to its tensors.
    with torch.inference_mode(False):
        copies = {name: torch.empty(value.shape, dtype=types[name], device="cpu") for name, value in weights.items()}
    pieces = [_Piece(name, value.detach(), copies[name], *_locate(value, files)) for name, value in weights.items()]
    groups = sorted(_groups(pieces), key=lambda group: sum(piece.size for piece in group))
    magnitudes: dict[str, float] = {}

    def copy(left: list[list[_Piece]]) -> None:
        with ExitStack() as stack:
            reader = _Reader(stack)
            while True:
                try:
                    group = left.pop()  # the largest
                except IndexError:
                    return
                try:
                    magnitudes.update(reader.copy(group))
                except BaseException:
                    left.clear()  # the other threads need not go on
                    raise

    copy([group for group in groups if group[0].size <= _SMALL])  # threads would wait for each other's calls
    large = [group for group in groups if group[0].size > _SMALL]
    count = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(copy, large) for _ in range(count)]:
            future.result()
    return copies, magnitudes


class _Piece(NamedTuple):
    """A tensor to copy.

    Attributes:
        name: Of the weight.
        value: The tensor.
        target: The memory of its copy.
        size: Bytes from its first number to its last.
        place: Where these lie; None for tensors of no file.
    """

    name: str
    value: Tensor
    target: Tensor
    size: int
    place: Place | None


def _locate(value: Tensor, files: Sequence[FileData]) -> tuple[int, Place | None]:
    """``size`` and ``place`` of a piece."""
    size = value.element_size()
    if not value.numel():
        return 0, None
    span = size * (1 + sum((n - 1) * stride for n, stride in zip(value.shape, value.stride(), strict=True)))
    place = next((place for data in files if (place := data.place(value))), None)
    if place is None:
        return span, None
    start = place.start + int(value.storage_offset()) * size
    whole = place.entry is not None and (start, span) == (place.start, place.entry.file_size)
    return span, Place(place.data, start, place.entry if whole else None)


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces to be copied at a time: each by itself, but small ones with those that lie beside them in the file.

    Hundreds of small tensors would take longer than the large ones: of each call, not of their bytes.
    """
    small: dict[tuple[FileData, torch.dtype, int], list[tuple[int, _Piece]]] = {}
    for piece in pieces:
        value, place = piece.value, piece.place
        if place is None or piece.size > _SMALL or not value.is_contiguous() or value.is_neg():
            yield [piece]
        else:
            key = place.data, value.dtype, place.start % value.element_size()
            small.setdefault(key, []).append((place.start, piece))
    for found in small.values():
        found.sort(key=lambda item: item[0])
        group: list[_Piece] = []
        first = last = 0
        for start, piece in found:
            if group and (not 0 <= start - last <= _GAP or start + piece.size - first > _TOGETHER):
                yield group
                group = []
            first = first if group else start
            last = start + piece.size
            group.append(piece)
        yield group


class _Reader:
    """Copies one tensor after another. Not for several threads.

    Args:
        stack: Closes what is opened.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._open: dict[FileData, FileIO] = {}
        self._crc32 = Crc32()
        self._block = np.empty(PART, np.uint8)

    def copy(self, group: Sequence[_Piece]) -> dict[str, float]:
        """Copies what is to be copied at a time, and returns the largest absolute values, by name."""
        piece, place = group[0], group[0].place
        if place is None:
            piece.target.copy_(piece.value)
            return {piece.name: largest_magnitude(piece.value)}
        if place.data not in self._open:
            self._open[place.data] = self._stack.enter_context(place.data.open())
        if len(group) > 1:
            return self._read_together(place.data, group)
        return {piece.name: self._read(place, piece)}

    def _read_together(self, data: FileData, group: Sequence[_Piece]) -> dict[str, float]:
        places = [piece.place for piece in group if piece.place]
        dtype = group[0].value.dtype
        bounds = [place.start + end for place, piece in zip(places, group, strict=True) for end in (0, piece.size)]
        size = bounds[-1] - bounds[0]
        for _ in data.read(self._open[data], bounds[0], size, self._block, self._crc32):
            pass
        block = torch.from_numpy(self._block[:size]).view(dtype)
        sizes = [(end - start) // dtype.itemsize for start, end in pairwise(bounds)]
        parts = block.split(sizes)[::2]  # without what lies between them
        for piece, place, part in zip(group, places, parts, strict=True):
            if place.entry:
                start = place.start - bounds[0]
                data.compare(place.entry, self._block[start : start + piece.size], self._crc32)
            piece.target.view(-1).copy_(part)
        magnitudes = largest_of_parts(block, sizes)
        return {piece.name: magnitude for piece, magnitude in zip(group, magnitudes, strict=True)}

    def _read(self, place: Place, piece: _Piece) -> float:
        file, value, target = self._open[place.data], piece.value, piece.target
        integer = integers_of(value.dtype)
        if integer is None or not value.is_contiguous() or value.is_neg():
            raw = torch.empty(piece.size, dtype=torch.uint8, device="cpu")
            for _ in place.data.read(file, place.start, piece.size, raw.numpy(), self._crc32, place.entry):
                pass
            read = raw.view(value.dtype).as_strided(value.shape, value.stride())
            if value.is_neg():  # as torch.view_as_complex(x).conj().imag is, whose memory holds the opposite
                read = read.neg()
            target.copy_(read)
            return largest_magnitude(read)
        largest, size = 0, value.element_size()
        same = target.dtype == value.dtype
        memory = target.view(-1).view(torch.uint8).numpy() if same else self._block
        for at, part in place.data.read(file, place.start, piece.size, memory, self._crc32, place.entry):
            largest = max(largest, largest_in_bits(part.view(integer)))
            if not same:
                converted = target.view(-1)[at // size : (at + part.size) // size]
                provide(converted.data_ptr(), converted.nbytes)
                converted.copy_(torch.from_numpy(part).view(value.dtype))
        return magnitude_of(largest, value.dtype)
