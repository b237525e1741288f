"""Files that torch saved: read without executing anything, checked against their checksums, bounded in memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, MemoryLimitError
from ..text import enumerate_names, first_line
from .formats import AGAIN

# Keys under which training code stores the weights beside other things, best first.
_CONTAINERS = (
    "model", "state_dict", "model_state_dict", "ema", "net", "params", "weights",
    "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "params_ema", "module", "network",
)  # fmt: skip
_DEEPEST = 8  # containers within containers
_BIREFNET = re.compile(r"(?:.*\.)?(?:bb|squeeze_module|localization|reconstruction)\.")
_MOST_PICKLE = 64 * 2**20  # bytes of a file's data.pkl; that of Swin-L with its optimizer has 1 MB
_CHUNK = 2**20
_THREADS = 2  # done before the weights are copied
_LOCAL_HEADER, _UTF8 = 30, 0x800  # bytes before an entry's name; the flag of names in UTF-8


def load_pickle(path: Path, *, legacy: bool = True, advice: str = AGAIN) -> Any:
    """``torch.load`` for files that may be damaged or hostile.

    Args:
        path: The file.
        legacy: Whether to read files of torch before 1.6, which have no checksums.
        advice: What to do about a damaged one.

    Raises:
        CheckpointError: Damaged, or with other objects than tensors and plain values; the message names the file.
        OSError: Cannot be read from the disk.
    """
    with _explained(path, advice):
        if not legacy and not zipfile.is_zipfile(path):
            raise ValueError("no zip archive of torch")
    content, verify = start_loading(path, mmap=False, advice=advice)
    verify()
    return content


def start_loading(path: Path, *, mmap: bool = True, advice: str = AGAIN) -> tuple[Any, Callable[[], None]]:
    """``load_pickle`` that leaves comparing the checksums to a thread, as it takes as long as copying all weights.

    Args:
        path: The file.
        mmap: Whether tensors are views of the file, where it is a zip archive.
        advice: What to do about a damaged one.

    Returns:
        What the file holds, and a function that waits for the checksums and raises a CheckpointError if they differ.
    """
    sums: list[Future[None]] = []
    with _explained(path, advice):
        with open(path, "rb") as file:
            archive = file.read(4) == b"PK\x03\x04"
        if archive:
            entries = _check_entries(path)
            sums = _start_sums(path, entries)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and archive)
        if archive:
            _check_storages(content, [entry.file_size for entry in entries if "/data/" in entry.filename])

    def verify() -> None:
        with _explained(path, advice):
            for future in sums:
                future.result()

    return content, verify


@contextlib.contextmanager
def _explained(path: Path, advice: str) -> Iterator[None]:
    """Turns what the unpickler makes of a damaged file into a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        objects = f"Python objects such as {found[1]}" if found else "text, or Python objects"
        raise CheckpointError(
            f"{path}: not a file of plain weights ({objects}, which are never executed here). "
            "Ask its author for a .safetensors file."
        ) from error
    except OSError:
        raise
    except MemoryError as error:
        size = path.stat().st_size / 2**20
        raise MemoryLimitError(f"{path}: too little memory to read this file of {size:.0f} MiB.") from error
    except Exception as error:  # IndexError, struct.error, AssertionError, BadZipFile ...
        raise CheckpointError(f"{path}: truncated or corrupted ({first_line(error)}). {advice}") from error


def _check_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of an archive; refuses those that torch did not write, before anything in them is read."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError("this is a TorchScript program, not weights. Save its state_dict() instead.")
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if not pickles:
        raise CheckpointError(f"a zip archive without weights of torch ({enumerate_names(names)}). Unpack it.")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            "its entries are compressed, as by an archiver, and torch reads only uncompressed ones. Unpack it and "
            "pack it anew without compression (zip -0 -r), or save it anew with torch.save."
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size or pickles[0].file_size > _MOST_PICKLE:
        raise ValueError("its entries are larger than the file, or than any weights")
    return entries


def _start_sums(path: Path, entries: list[zipfile.ZipInfo]) -> list[Future[None]]:
    """Compares an archive with its own checksums, which torch does not, in threads."""
    left = sorted(entries, key=lambda entry: entry.file_size)
    count = min(_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(count)
    futures = [pool.submit(_check_sums, path, left) for _ in range(count)]
    pool.shutdown(wait=False)
    return futures


def _check_sums(path: Path, left: list[zipfile.ZipInfo]) -> None:
    """Takes entries from a list that threads share, and compares their checksums.

    The zipfile module does the same, with copies that take longer than the sums.
    """
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while True:
            try:
                entry = left.pop()
            except IndexError:
                return
            file.seek(entry.header_offset)
            _, flags, name_length, extra_length = struct.unpack("<4s2xH18xHH", file.read(_LOCAL_HEADER))
            name = file.read(name_length).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
            file.seek(extra_length, os.SEEK_CUR)
            size, total = entry.file_size, 0
            while size and (count := file.readinto(view[: min(size, _CHUNK)])):
                total = zlib.crc32(view[:count], total)
                size -= count
            if size or total != entry.CRC or name != entry.orig_filename:
                raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")


def _check_storages(content: Any, sizes: list[int]) -> None:
    """Refuses tensors whose storage is not as large as its entry: torch would read beyond its end."""
    found = [value for inner in _mappings(content, set()) for value in inner.values() if isinstance(value, Tensor)]
    plain = [v.untyped_storage() for v in found if v.layout is torch.strided and v.device.type == "cpu"]
    storages = {storage.data_ptr(): storage.nbytes() for storage in plain if storage.nbytes()}
    if Counter(storages.values()) - Counter(sizes):
        raise ValueError("tensors that are larger or smaller than their data")


def find_weights(content: Any) -> dict[str, Tensor] | None:
    """The state dict in what a file holds: the thing itself, or what training code wrapped around it.

    The first that has names of a BiRefNet; where none has, the first of all.
    """
    found = []
    for inner in _mappings(content, set()):
        tensors = {name: value for name, value in inner.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if any(map(_BIREFNET.match, tensors)):
            return tensors
        if tensors:
            found.append(tensors)
    return found[0] if found else None


def _mappings(content: Any, seen: set[int], depth: int = 0) -> Iterator[Mapping[Any, Any]]:
    """The dictionaries in what a file holds, each once, those under the names of ``_CONTAINERS`` first."""
    if not isinstance(content, Mapping) or id(content) in seen or depth > _DEEPEST:
        return
    seen.add(id(content))
    for key in _CONTAINERS:
        yield from _mappings(content.get(key), seen, depth + 1)
    yield content
    for value in content.values():
        yield from _mappings(value, seen, depth + 1)
