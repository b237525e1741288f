"""Checkpoint files: reading that never executes anything, and writing that leaves no partial file."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..files import atomic_path, make_parent, path_of, stream_conflict
from ..text import enumerate_names, first_line
from .catalogue import SAFETENSORS, SHARD, WEIGHT_SUFFIXES
from .copying import copy_weights
from .file_data import FileData
from .formats import AGAIN, problem_of, utf8_path
from .pickled import find_weights, start_loading
from .system_errors import system_error
from .training_file import network_of_training
from .values import bytes_of, is_plain

# The types that safetensors knows and checkpoints have, in the order in which it puts tensors: the widest first.
_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int16: "I16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNMENT = 8  # of the length of its header

_MOST_TENSORS = 50_000  # Swin-L with its optimizer has 4000
_INDEX = ".index.json"  # beside shards; their names say all that is in it


class ChangedError(CheckpointError):
    """Another program wrote a file while it was being read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A file as read.

    Attributes:
        path: The file, or one of several shards.
        tensors: By name.
        metadata: Texts of .safetensors files.
        files: Where the tensors lie that are not read yet, see ``open_file``.
        states: Of each file before it was read, see ``_state``.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    files: Sequence[FileData]
    states: Mapping[Path, tuple[int, int]]

    def verify(self) -> None:
        """Compares what is left of the checksums, and whether files are as they were.

        Raises:
            CheckpointError: Something differs; ChangedError where a file does.
        """
        for path, before in self.states.items():
            _refuse_changed(path, before)
        for data in self.files:
            data.verify()


def read_file(path: str | os.PathLike[str]) -> CheckpointFile:
    """Reads a checkpoint file. For a checkpoint in shards, give one of them or the index.

    Args:
        path: A .safetensors, .pth, .pt, .ckpt or .bin file.

    Returns:
        Its tensors in memory of their own, but for those that are no plain ones: ``check_tensors`` refuses them.

    Raises:
        CheckpointError: Not there, not readable, of another format, truncated, or without weights.
        MemoryLimitError: Too little memory.
    """
    file = open_file(path)
    plain = {name: value for name, value in file.tensors.items() if is_plain(value)}
    with explained(file.path):
        try:
            copies, _ = copy_weights(plain, {name: value.dtype for name, value in plain.items()}, file.files)
        finally:
            file.verify()  # damage explains more than what follows from it
    return dataclasses.replace(file, tensors=file.tensors | copies)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of the system, while a file is read, into those of this package."""
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(f"{path}: no permission to read it ({error}).") from error
    except OSError as error:
        raise system_error(path, error) or CheckpointError(f"{path}: cannot be read ({error}).") from error
    except (MemoryError, RuntimeError) as error:
        told = system_error(path, error)
        if told is None:
            raise
        raise told from error


def open_file(path: str | os.PathLike[str]) -> CheckpointFile:
    """``read_file`` that leaves reading the tensors to its caller, by ``copy_weights`` alone.

    Until then they have names, shapes and types. The caller calls ``verify`` when they are read, and does not use them
    before it.
    """
    path = path_of(path, "path")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    files: list[FileData] = []
    states: dict[Path, tuple[int, int]] = {}
    for file in _shards(path):
        with explained(file):
            if os.path.isfile(file):
                states[file] = _state(file)
            try:
                more, texts, data = _open_one(file)
            except CheckpointError:
                if file in states:
                    _refuse_changed(file, states[file])  # what seems to be damage may be of two files
                raise
        if again := sorted(tensors.keys() & more.keys()):
            raise CheckpointError(
                f"{file}: {enumerate_names(again)} also in the shards before it, so these are of several checkpoints. "
                "Put all shards of one into a folder of their own."
            )
        tensors |= more
        metadata |= texts
        files.append(data)
    if not tensors:
        raise CheckpointError(f"{path}: the file holds no weights.")
    return CheckpointFile(path=path, tensors=tensors, metadata=metadata, files=files, states=states)


def _refuse_changed(path: Path, before: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        if _state(path) != before:
            raise ChangedError(
                f"{path}: another program wrote this file while it was being read, so the weights may be of two files. "
                "Load it again when that program has finished."
            )


def _state(path: Path) -> tuple[int, int]:
    """When a file was last written to, and its size. Its number proves nothing: some network disks change it."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def _shards(path: Path) -> list[Path]:
    """The files of a path: itself, or all shards of its checkpoint.

    Raises:
        CheckpointError: Shards are missing.
    """
    shard = SHARD.fullmatch(path.name)
    if path.name.endswith(_INDEX) and os.path.isfile(path):
        name = Path(path.name.removesuffix(_INDEX))  # model.safetensors
        beside = sorted(path.parent.glob(f"*{name.suffix}"))
        shard = next((m for p in beside if (m := SHARD.fullmatch(p.name)) and m[1] == name.stem), None)
        if shard is None:
            raise CheckpointError(f"{path}: the index of a checkpoint in shards, and none of them is in its folder.")
    if shard is None:
        return [path]
    count = int(shard[3])
    files = [path.with_name(f"{shard[1]}-{i:05}-of-{shard[3]}{shard[4]}") for i in range(1, min(count, 1000) + 1)]
    missing = [file.name for file in files if not os.path.isfile(file)]
    if missing:
        raise CheckpointError(
            f"{path}: one of {count} shards of a checkpoint, and {enumerate_names(missing)} are missing. Put all "
            "shards into one folder."
        )
    return files


def _open_one(path: Path) -> tuple[dict[str, Tensor], dict[str, str], FileData]:
    if os.path.isdir(path):
        raise CheckpointError(f"{path}: this is a folder, expected a file. Give the path of one in it.")
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    if suffix not in WEIGHT_SUFFIXES:
        raise CheckpointError(
            f"{path}: {suffix or 'a file without an ending'} is not a checkpoint format; expected "
            f"{', '.join(WEIGHT_SUFFIXES)}."
        )
    problem = problem_of(path, safetensors=suffix in SAFETENSORS)
    if problem:
        raise CheckpointError(f"{path}: {problem}")
    if suffix in SAFETENSORS:
        return _open_safetensors(path)
    content, data = start_loading(path)
    if (training := network_of_training(path, content)) is not None:
        return *training, data
    tensors = find_weights(content)
    if tensors is None:
        raise CheckpointError(f"{path}: no state dict in it; {_describe(content)} found, names with tensors expected.")
    return tensors, {}, data


def _open_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], FileData]:
    with _safetensors_explained(path), utf8_path(path) as name, safe_open(name, framework="pt") as file:
        if len(file.keys()) > _MOST_TENSORS:
            raise ValueError(f"{len(file.keys())} tensors, where no network has more than {_MOST_TENSORS}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        data = FileData(path, partial(_safetensors_explained, path))
        storages = [value.untyped_storage() for value in tensors.values()]
        data.locate_tail({storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()})
        return tensors, dict(file.metadata() or {}), data


@contextlib.contextmanager
def _safetensors_explained(path: Path) -> Iterator[None]:
    """Turns what the library makes of a damaged file into a CheckpointError that names the file."""
    try:
        yield
    except PermissionError:
        raise
    except (SafetensorError, ValueError, OSError, AttributeError, KeyError, RuntimeError, TypeError, MemoryError) as e:
        raise system_error(path, e) or CheckpointError(f"{path}: {_why_not_safetensors(path, e)}") from e


def _why_not_safetensors(path: Path, error: Exception) -> str:
    """Says what is wrong with a file that the safetensors library refused."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            (header,) = struct.unpack("<Q", file.read(8))
            entries = json.loads(file.read(header))
            end = 8 + header + max(e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__")
        except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"the file is truncated or corrupted: its header cannot be read ({first_line(error)}). {AGAIN}"
    if size < end:
        return f"the file is truncated: {size} of {end} bytes are there. {AGAIN}"
    return f"the file is corrupted ({first_line(error)}). {AGAIN}"


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {enumerate_names([str(key) for key in content], 5) or 'nothing'}"
    return f"a {type(content).__name__}"


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Writes a .safetensors file whole or not at all; an older file stays until the new one is complete.

    Args:
        path: The file; its folder is made if need be.
        tensors: By name, on the CPU.
        metadata: Texts for the file's header. What cannot be encoded, as in names of files, is written as an escape.

    Raises:
        CheckpointError: Wrong ending, no such folder, no permission, no space.
        ConfigError: Not a path, or metadata that are no texts, with which no reader would open the file.
    """
    odd = [f"{n!r}: {text!r}" for n, text in metadata.items() if not (isinstance(n, str) and isinstance(text, str))]
    if odd:
        raise ConfigError(f"metadata are texts by name, found {enumerate_names(odd)}. Use str() or json.dumps().")
    path = path_of(path, "path")
    if path.suffix.lower() not in SAFETENSORS:
        raise CheckpointError(f"{path}: checkpoints are written as .safetensors; found {path.suffix or 'no ending'!r}.")
    if os.path.isdir(path):
        raise CheckpointError(f"{path}: this is a folder; give the name of a file.")
    if (conflict := stream_conflict(path)) is not None:
        raise CheckpointError(f"{conflict}.")
    try:
        make_parent(path)
        with atomic_path(path) as part, open(part, "wb") as file:
            _write_tensors(file, tensors, metadata)
    except OSError as error:
        raise CheckpointError(f"{path}: not written, {_why_not_written(error)}") from error
    return path


def _write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """The bytes that safetensors.torch.save_file writes.

    That function writes a file of another name and renames it: to one that is not locked, and that stays when the
    process is killed.
    """
    order = list(_DTYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    texts = {_encodable(name): _encodable(text) for name, text in sorted(metadata.items())}
    header: dict[str, Any] = {"__metadata__": texts} if texts else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in names:
        file.write(bytes_of(tensors[name].cpu().contiguous()).data)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _why_not_written(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full. Free some space, or choose another folder."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in str(error):
        return "no permission to write there. Choose another folder."
    if number in (errno.EINVAL, errno.ENAMETOOLONG):
        return f"{getattr(error, 'strerror', None) or first_line(error)}. Choose another name."
    return f"{first_line(error)}. Choose another folder."
