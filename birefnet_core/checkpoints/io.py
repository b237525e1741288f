"""Checkpoint files: reading that never executes anything, and writing that leaves no partial file."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..files import atomic_path
from ..text import enumerate_names, first_line
from .catalogue import SAFETENSORS, SHARD, WEIGHT_SUFFIXES
from .checksums import Checksums
from .formats import AGAIN, problem_of, utf8_path
from .pickled import find_weights, start_loading
from .system_errors import system_error
from .training_file import network_of_training

# The types that safetensors knows and checkpoints have, in the order in which it puts tensors: the widest first.
_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int16: "I16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNMENT = 8  # of the length of its header

_MOST_TENSORS = 50_000  # Swin-L with its optimizer has 4000
_INDEX = ".index.json"  # beside shards; their names say all that is in it


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A file as read.

    Attributes:
        path: The file, or one of several shards.
        tensors: By name; views of the files, as far as they can be.
        metadata: Texts of .safetensors files.
        checksums: Of each file that has any.
        states: Of each file before it was read, see ``_state``.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    checksums: Sequence[Checksums]
    states: Mapping[Path, tuple[int, int, int]]

    def verify(self) -> None:
        """Compares what is left of the checksums, and whether files are as they were.

        Raises:
            CheckpointError: Something differs.
        """
        for path, before in self.states.items():
            with contextlib.suppress(OSError):
                now = _state(path)
                # What is open stays whole when the file is replaced; but checksums are read by its name. The number of
                # a file alone proves nothing: some network disks change it.
                if now[1:] != before[1:] and (now[0] == before[0] or self.checksums):
                    raise CheckpointError(
                        f"{path}: another program wrote this file while it was being read, so the weights may be of "
                        "two files. Load it again when that program has finished."
                    )
        for checksums in self.checksums:
            checksums.verify()


def read_file(path: str | os.PathLike[str], *, verify: bool = True) -> CheckpointFile:
    """Reads a checkpoint file. For a checkpoint in shards, give one of them or the index.

    Args:
        path: A .safetensors, .pth, .pt, .ckpt or .bin file.
        verify: Whether to compare the checksums; otherwise the caller calls ``verify`` before it uses the weights.

    Raises:
        CheckpointError: Not there, not readable, of another format, truncated, or without weights.
        MemoryLimitError: Too little memory.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    checksums: list[Checksums] = []
    states: dict[Path, tuple[int, int, int]] = {}
    for file in _shards(path):
        try:
            if os.path.isfile(file):
                states[file] = _state(file)
            more, texts, sums = _read_one(file)
        except PermissionError as error:
            raise CheckpointError(f"{file}: no permission to read it ({error}).") from error
        except OSError as error:
            raise system_error(file, error) or CheckpointError(f"{file}: cannot be read ({error}).") from error
        if again := sorted(tensors.keys() & more.keys()):
            raise CheckpointError(
                f"{file}: {enumerate_names(again)} also in the shards before it, so these are of several checkpoints. "
                "Put all shards of one into a folder of their own."
            )
        tensors |= more
        metadata |= texts
        checksums += sums
    if not tensors:
        raise CheckpointError(f"{path}: the file holds no weights.")
    found = CheckpointFile(path=path, tensors=tensors, metadata=metadata, checksums=checksums, states=states)
    if verify:
        found.verify()
    return found


def _state(path: Path) -> tuple[int, int, int]:
    """Which file a path leads to, when it was last written to, and its size."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size


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


def _read_one(path: Path) -> tuple[dict[str, Tensor], dict[str, str], list[Checksums]]:
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
        return *_read_safetensors(path), []
    content, checksums = start_loading(path)
    if (training := network_of_training(path, content)) is not None:
        return *training, [checksums]
    tensors = find_weights(content)
    if tensors is None:
        raise CheckpointError(f"{path}: no state dict in it; {_describe(content)} found, names with tensors expected.")
    return tensors, {}, [checksums]


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with utf8_path(path) as name, safe_open(name, framework="pt") as file:
            if len(file.keys()) > _MOST_TENSORS:
                raise ValueError(f"{len(file.keys())} tensors, where no network has more than {_MOST_TENSORS}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, dict(file.metadata() or {})
    except PermissionError:
        raise
    except (SafetensorError, ValueError, OSError, AttributeError, KeyError, RuntimeError, TypeError, MemoryError) as e:
        raise system_error(path, e) or CheckpointError(f"{path}: {_why_not_safetensors(path, e)}") from e


def _why_not_safetensors(path: Path, error: Exception) -> str:
    """Says what is wrong with a file that the safetensors library refused."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
        try:
            entries = json.loads(file.read(header))
            end = 8 + header + max(e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
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
        ConfigError: Metadata that are no texts, with which no reader would open the file.
    """
    odd = [f"{n!r}: {text!r}" for n, text in metadata.items() if not (isinstance(n, str) and isinstance(text, str))]
    if odd:
        raise ConfigError(f"metadata are texts by name, found {enumerate_names(odd)}. Use str() or json.dumps().")
    path = Path(path)
    if path.suffix.lower() not in SAFETENSORS:
        raise CheckpointError(f"{path}: checkpoints are written as .safetensors; found {path.suffix or 'no ending'!r}.")
    if os.path.isdir(path):
        raise CheckpointError(f"{path}: this is a folder; give the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        file.write(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _why_not_written(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full. Free some space, or choose another folder."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in str(error):
        return "no permission to write there. Choose another folder."
    return f"{first_line(error)}. Choose another folder."
