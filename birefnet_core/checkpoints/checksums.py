"""Compares an archive of torch's with its own checksums, which torch does not."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from io import FileIO
from pathlib import Path

import numpy as np
from torch import Tensor

from .crc32 import BLOCK, Crc32

_THREADS = 2
_HEADER = struct.Struct("<4s2xH18xHH")  # before an entry's name: magic, flags, bytes of the name, bytes after it
_UTF8 = 0x800  # the flag of names in UTF-8


class Checksums:
    """Those of an archive's entries that are still to be compared.

    Args:
        path: The archive.
        entries: Of its directory; none for files without checksums.
        explained: A context that turns exceptions into a CheckpointError.
    """

    def __init__(
        self,
        path: Path,
        entries: Sequence[zipfile.ZipInfo],
        explained: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._path = path
        self._all = {entry.header_offset: entry for entry in entries}
        self._left = dict(self._all)
        self._at: dict[int, zipfile.ZipInfo] = {}  # address -> entry
        self._explained = explained

    def locate(self, storages: Mapping[int, int]) -> None:
        """Finds out which entry lies where in memory, for ``comparison``.

        Args:
            storages: Address -> bytes of the storages that are views of one mapping of the whole file.
        """
        if not storages:
            return
        with open(self._path, "rb", buffering=0) as file:
            starts = {_find_data(file, entry): entry for entry in self._left.values() if entry.file_size}
        largest = max(storages, key=lambda address: storages[address])
        for start, entry in starts.items():
            if entry.file_size == storages[largest]:
                entries = {address: starts.get(address - largest + start) for address in storages}
                if all(found and found.file_size == storages[address] for address, found in entries.items()):
                    self._at = {address: found for address, found in entries.items() if found}
                    return

    def comparison(self, value: Tensor, crc32: Crc32) -> Callable[[], None] | None:
        """Starts a checksum of the entry that a tensor is the whole of.

        Returns:
            A function that compares it, to be called after all data were added; None where there is no such entry.
            Where the checksums differ, ``verify`` reads all entries.
        """
        entry = self._at.get(value.data_ptr())
        if entry is None or not value.is_contiguous() or value.numel() * value.element_size() != entry.file_size:
            return None
        crc32.start(entry.file_size)
        return partial(self._compare, entry, crc32)

    def _compare(self, entry: zipfile.ZipInfo, crc32: Crc32) -> None:
        if crc32.total() == entry.CRC:
            self._left.pop(entry.header_offset, None)
        else:  # damaged, or ``locate`` took another entry of this size for it
            self._at, self._left = {}, dict(self._all)

    def verify(self) -> None:
        """Reads and compares what is left.

        Raises:
            CheckpointError: A checksum differs, or the archive's parts contradict each other.
        """
        left = sorted(self._left.values(), key=lambda entry: entry.file_size)
        with self._explained():
            if not left:
                return
            with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
                for future in [pool.submit(self._read, left) for _ in range(_THREADS)]:
                    future.result()
        self._left.clear()

    def _read(self, left: list[zipfile.ZipInfo]) -> None:
        """Takes entries from a list that threads share. The zipfile module's own way takes longer than the sums."""
        crc32 = Crc32()
        block = np.empty(BLOCK, np.uint8)
        with open(self._path, "rb", buffering=0) as file:
            while True:
                try:
                    entry = left.pop()
                except IndexError:
                    return
                file.seek(_find_data(file, entry))
                size = entry.file_size
                crc32.start(size)
                while size:
                    part = block[: min(size, BLOCK)]
                    _fill(file, part.data)
                    crc32.add(part)
                    size -= part.size
                if crc32.total() != entry.CRC:
                    raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")


def _find_data(file: FileIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data begin; refuses one whose own name is not that of the directory."""
    file.seek(entry.header_offset)
    header = bytearray(_HEADER.size)
    _fill(file, memoryview(header))
    _, flags, name_length, extra_length = _HEADER.unpack(header)
    name = file.read(name_length).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    if name != entry.orig_filename:
        raise zipfile.BadZipFile(f"File name in directory {entry.orig_filename!r} and header {name!r} differ")
    return entry.header_offset + _HEADER.size + name_length + extra_length


def _fill(file: FileIO, view: memoryview) -> None:
    while view:
        count = file.readinto(view)
        if not count:
            raise zipfile.BadZipFile("the file ends before its data")
        view = view[count:]
