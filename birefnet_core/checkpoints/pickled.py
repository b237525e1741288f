"""Files that torch saved: read without executing anything, checked against their checksums, bounded in memory."""

from __future__ import annotations

import contextlib
import logging
import pickle
import pickletools
import re
import sys
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..text import enumerate_names, first_line
from .file_data import FileData
from .formats import AGAIN, utf8_path
from .system_errors import system_error

logger = logging.getLogger(__name__)

# Keys under which training code stores the weights beside other things, best first.
_CONTAINERS = (
    "model", "state_dict", "model_state_dict", "ema", "net", "params", "weights",
    "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "params_ema", "module", "network",
)  # fmt: skip
_DEEPEST = 8  # containers within containers
_BIREFNET = re.compile(r"(?:.*\.)?(?:bb|squeeze_module|localization|reconstruction)\.")
_MOST_PICKLE = 8 * 2**20  # bytes of a file's data.pkl; that of Swin-L with its optimizer has 1 MB
_MOST_OPERATIONS = 2_000_000  # of files without one; Swin-L with its optimizer has 200 thousand
_WORD = 16  # bytes, more than those of "little" and "big"
_LEGACY_PICKLES = 5  # one after another in a file of torch before 1.6; numbers follow


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
        with open(path, "rb") as file:  # is_zipfile hides why a path cannot be read
            whole = legacy or zipfile.is_zipfile(file)
        if not whole:
            raise ValueError("no zip archive of torch")
    content, data = start_loading(path, mmap=False, advice=advice)
    data.verify()
    return content


def start_loading(path: Path, *, mmap: bool = True, advice: str = AGAIN) -> tuple[Any, FileData]:
    """``load_pickle`` that leaves comparing the checksums to its caller, who may do it while reading the weights.

    Args:
        path: The file.
        mmap: Whether tensors may be views of the file, which only ``copy_weights`` reads.
        advice: What to do about a damaged one.

    Returns:
        What the file holds, and where; files of torch before 1.6 are read at once, and have no checksums.
    """
    entries: list[zipfile.ZipInfo] = []
    with _explained(path, advice):
        with open(path, "rb") as file:
            archive = file.read(4) == b"PK\x03\x04"
        if archive:
            entries = _check_entries(path)
        elif _has_too_many_objects(path):
            raise ValueError("more objects than any weights")
        data = FileData(path, lambda: _explained(path, advice), entries)
        mmap = mmap and archive and not _has_other_byte_order(data, entries)
        with utf8_path(path) as name:
            content = torch.load(name, map_location="cpu", weights_only=True, mmap=mmap)
            if archive:
                storages = _cpu_storages(content)
                sizes = Counter(entry.file_size for entry in entries if "/data/" in entry.filename)
                if Counter(storages.values()) - sizes:  # torch would read beyond the end of an entry
                    raise ValueError("tensors that are larger or smaller than their data")
                if mmap and not data.locate_entries(storages):
                    content = torch.load(name, map_location="cpu", weights_only=True, mmap=False)
    return content, data


@contextlib.contextmanager
def _explained(path: Path, advice: str) -> Iterator[None]:
    """Turns what the unpickler makes of a damaged file into a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except OSError:
        raise
    except Exception as error:  # UnpicklingError, IndexError, struct.error, AssertionError, BadZipFile ...
        cause = _cause(error)
        if not isinstance(cause, pickle.UnpicklingError):
            damage = CheckpointError(f"{path}: truncated or corrupted ({first_line(cause)}). {advice}")
            raise system_error(path, cause) or damage from error
        found = re.search(r"GLOBAL (\S+) was not an allowed", str(cause))
        objects = f"Python objects such as {found[1]}" if found else "text, or Python objects"
        raise CheckpointError(
            f"{path}: not a file of plain weights ({objects}, which are never executed here). "
            "Ask its author for a .safetensors file."
        ) from error


def _cause(error: BaseException) -> BaseException:
    """The error itself, or what torch 2.4 hides in it.

    Newer ones make an UnpicklingError only of what their unpickler refuses, torch 2.4 of every RuntimeError: of damage
    and of too little memory, too.
    """
    hidden = error.__context__
    if not isinstance(error, pickle.UnpicklingError) or not isinstance(hidden, RuntimeError):
        return error
    *_, (frame, _) = traceback.walk_tb(hidden.__traceback__)
    return error if frame.f_globals.get("__name__") == "torch._weights_only_unpickler" else hidden


def _check_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of an archive; refuses those that torch did not write, before anything in them is read."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    front = min((entry.header_offset for entry in entries), default=0)
    if front:  # which the zipfile module leaves out, and torch does not
        raise CheckpointError(
            f"{front} bytes stand before its archive, as where a download was appended to what was there. {AGAIN}"
        )
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
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("its entries are larger than the file")
    if pickles[0].file_size > _MOST_PICKLE:
        raise CheckpointError(
            f"its pickle of {pickles[0].file_size / 2**20:.0f} MiB is larger than that of any weights, as where NumPy "
            "arrays are in place of tensors. Save it anew with torch.save and tensors, or as .safetensors."
        )
    return entries


def _has_other_byte_order(data: FileData, entries: list[zipfile.ZipInfo]) -> bool:
    """Whether torch turns the bytes of numbers round, after which they are no longer those of the file."""
    orders = [entry for entry in entries if entry.filename.endswith("/byteorder")]
    return any(data.read_entry(entry, _WORD) != sys.byteorder.encode() for entry in orders)


def _has_too_many_objects(path: Path) -> bool:
    """Whether the pickles of a file that is no archive hold more than weights do, before any of it is made."""
    count = 0
    with contextlib.suppress(Exception), open(path, "rb") as file:  # torch says what is wrong with it
        for _ in range(_LEGACY_PICKLES):
            for _ in pickletools.genops(file):
                count += 1
                if count > _MOST_OPERATIONS:
                    break
    return count > _MOST_OPERATIONS


def _cpu_storages(content: Any) -> dict[int, int]:
    """Address -> bytes of the storages of all dense tensors in a file's content."""
    found = [value for inner in _mappings(content, set()) for value in inner.values() if isinstance(value, Tensor)]
    plain = [v.untyped_storage() for v in found if v.layout is torch.strided and v.device.type == "cpu"]
    return {storage.data_ptr(): storage.nbytes() for storage in plain if storage.nbytes()}


def find_weights(content: Any) -> dict[str, Tensor] | None:
    """The state dict in what a file holds: the thing itself, or what training code wrapped around it.

    The first that has names of a BiRefNet; where none has, the first of all.
    """
    found: list[dict[str, Tensor]] = []
    networks: list[dict[str, Tensor]] = []
    for inner in _mappings(content, set()):
        tensors = {name: value for name, value in inner.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if tensors:
            (networks if any(map(_BIREFNET.match, tensors)) else found).append(tensors)
    if len(networks) > 1:
        logger.warning(
            "A training saved %d sets of weights of a BiRefNet in this file, such as raw ones and their average. The "
            "first is taken, raw ones before an average: to load another, save it alone.",
            len(networks),
        )
    return next(iter((*networks, *found)), None)


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
