"""Where the tensors of a file lie in it, and its checksums, which torch does not compare.

Libraries open checkpoints as mappings: tensors whose memory is the file. Where another program makes the file shorter
meanwhile, the system ends a process that touches such memory. So mappings give names, shapes and types here, and the
data are read.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..text import LONGEST_NAME
from .crc32 import BLOCK, Crc32

PART = 4 * BLOCK  # bytes that are read at a time
_THREADS = 2
_HEADER = struct.Struct("<4s2xH18xHH")  # before an entry's name: magic, flags, bytes of the name, bytes after it
_UTF8 = 0x800  # the flag of names in UTF-8
_POPULATE_WRITE = 23  # of madvise(2), from Linux 5.14 on
_madvise = None
if sys.platform == "linux":
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Place(NamedTuple):
    """Where the data of a storage lie.

    Attributes:
        data: Of which file.
        start: Of the first byte.
        entry: What they are the whole of, where that has a checksum.
    """

    data: FileData
    start: int
    entry: zipfile.ZipInfo | None


class FileData:
    """The data of a file's tensors.

    Args:
        path: The file.
        explained: A context that turns exceptions into a CheckpointError.
        entries: Of an archive's directory; none for files of another kind.
    """

    def __init__(
        self,
        path: Path,
        explained: Callable[[], AbstractContextManager[None]],
        entries: Sequence[zipfile.ZipInfo] = (),
    ) -> None:
        self._path = path
        self._explained = explained
        self._entries = entries
        checked = any(entry.CRC for entry in entries)  # torch.serialization.set_crc32_options(False) writes none
        self._left = {entry.header_offset: entry for entry in entries if checked}  # to be compared
        self._places: dict[int, Place] = {}  # by the address of the storage

    def locate_entries(self, storages: Mapping[int, int]) -> bool:
        """Finds out which entry of an archive each storage is.

        Args:
            storages: Address -> bytes of storages that are views of one mapping of the whole file.

        Returns:
            Whether that is certain; nothing may be read where it is not.
        """
        if not storages:
            return True
        with self.open() as file:
            starts = {_find_data(file, entry): entry for entry in self._entries if entry.file_size}
        largest = max(storages, key=lambda address: storages[address])
        found = []
        for start, entry in starts.items():
            if entry.file_size == storages[largest] and (largest - start) % mmap.PAGESIZE == 0:
                entries = {address: starts.get(address - largest + start) for address in storages}
                if all(entry and entry.file_size == storages[address] for address, entry in entries.items()):
                    found.append(largest - start)
        if len(found) != 1:
            return False
        for address in storages:
            entry = starts[address - found[0]]
            self._places[address] = Place(self, address - found[0], self._left.get(entry.header_offset))
        return True

    def locate_tail(self, storages: Mapping[int, int]) -> None:
        """Locates storages that follow one another to the end of the file, as those of .safetensors files do.

        Args:
            storages: Address -> bytes. Where they do not, they are no views of the file, and are left alone.
        """
        if not storages:
            return
        first, last = min(storages), max(storages)
        size = last + storages[last] - first
        if sum(storages.values()) == size:
            start = self._path.stat().st_size - size - first
            self._places = {address: Place(self, address + start, None) for address in storages}

    def place(self, value: Tensor) -> Place | None:
        """Where the storage of a tensor lies; None for tensors that are not of this file, or in memory of their own."""
        return self._places.get(value.untyped_storage().data_ptr()) if self._places else None

    def open(self) -> FileIO:
        """The file, for ``read``."""
        return open(self._path, "rb", buffering=0)

    def read(
        self,
        file: FileIO,
        start: int,
        size: int,
        memory: NDArray[np.uint8],
        crc32: Crc32,
        entry: zipfile.ZipInfo | None = None,
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Reads, a part at a time, so that each is in the processor's cache when it is looked at.

        Args:
            file: See ``open``; nothing else may read it meanwhile.
            start: Where in the file to begin.
            size: How many bytes.
            memory: Where to put them: as many bytes, or ``PART``, which are used for one part after another.
            crc32: Computes the checksum.
            entry: What is read, to compare its checksum in the end; None to compare none.

        Yields:
            Where each part begins, in bytes from ``start`` on, and the part.

        Raises:
            CheckpointError: The file ends before, or the checksum differs.
            OSError: It cannot be read.
        """
        if entry:
            crc32.start(size)
        for at in range(0, size, PART):
            count = min(size - at, PART)
            if memory.size < size:
                part = memory[:count]
            else:
                part = memory[at : at + count]
                provide(part.ctypes.data, count)
            try:
                if not at:
                    file.seek(start)  # once: two threads that call much, and shortly, wait for the interpreter's lock
                _fill(file, part.data)
            except Exception:
                with self._explained():
                    raise
            if entry:
                for i in range(0, count, BLOCK):
                    crc32.add(part[i : i + BLOCK])
            yield at, part
        if entry:
            self._compare(entry, crc32)

    def compare(self, entry: zipfile.ZipInfo, read: NDArray[np.uint8], crc32: Crc32) -> None:
        """Compares the checksum of an entry that was read with others, without more than ``BLOCK`` bytes.

        Raises:
            CheckpointError: It differs.
        """
        crc32.start(read.size)
        crc32.add(read)
        self._compare(entry, crc32)

    def _compare(self, entry: zipfile.ZipInfo, crc32: Crc32) -> None:
        if crc32.total() != entry.CRC:
            with self._explained():
                raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")
        self._left.pop(entry.header_offset, None)

    def read_entry(self, entry: zipfile.ZipInfo, most: int) -> bytes:
        """What an entry of an archive holds, up to some number of bytes; its checksum is not compared."""
        with self.open() as file:
            file.seek(_find_data(file, entry))
            return file.read(min(entry.file_size, most))

    def verify(self) -> None:
        """Reads and compares what is left.

        Raises:
            CheckpointError: A checksum differs, or the archive's parts contradict each other.
        """
        left = sorted(self._left.values(), key=lambda entry: entry.file_size)
        if not left:
            return
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            for future in [pool.submit(self._verify, left) for _ in range(_THREADS)]:
                future.result()

    def _verify(self, left: list[zipfile.ZipInfo]) -> None:
        """Takes entries from a list that threads share. The zipfile module's own way takes longer than the sums."""
        crc32 = Crc32()
        memory = np.empty(PART, np.uint8)
        with self.open() as file:
            while True:
                try:
                    entry = left.pop()
                except IndexError:
                    return
                with self._explained():
                    start = _find_data(file, entry)
                for _ in self.read(file, start, entry.file_size, memory, crc32, entry):
                    pass


def _find_data(file: FileIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data begin; refuses one whose own name is not that of the directory."""
    file.seek(entry.header_offset)
    header = bytearray(_HEADER.size)
    _fill(file, memoryview(header))
    _, flags, name_length, extra_length = _HEADER.unpack(header)
    name = file.read(name_length).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    if name != entry.orig_filename:
        names = f"{entry.orig_filename[:LONGEST_NAME]!r} and header {name[:LONGEST_NAME]!r}"
        raise zipfile.BadZipFile(f"File name in directory {names} differ")
    return entry.header_offset + _HEADER.size + name_length + extra_length


def _fill(file: FileIO, view: memoryview) -> None:
    while view:
        count = file.readinto(view)
        if not count:
            raise ValueError("the file ends before its data")
        view = view[count:]


def provide(start: int, size: int) -> None:
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
