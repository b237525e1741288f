"""Checkpoint files: reading that never executes anything, and writing that leaves no partial file."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..files import atomic_path
from ..text import first_line
from .catalogue import SAFETENSORS, WEIGHT_SUFFIXES

# Keys under which training code stores the weights beside other things, best first.
_CONTAINERS = ("model", "state_dict", "model_state_dict", "ema", "net", "params", "weights")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A file as read: tensors by name, and the text metadata of a .safetensors file."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_file(path: str | os.PathLike[str]) -> CheckpointFile:
    """Reads a checkpoint file.

    Args:
        path: A .safetensors, .pth, .pt, .ckpt or .bin file.

    Raises:
        CheckpointError: Not there, not readable, of another format, truncated, or without weights.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    if suffix not in WEIGHT_SUFFIXES:
        raise CheckpointError(
            f"{path}: {suffix or 'a file without an ending'} is not a checkpoint format; expected "
            f"{', '.join(WEIGHT_SUFFIXES)}."
        )
    try:
        if suffix in SAFETENSORS:
            tensors, metadata = _read_safetensors(path)
        else:
            tensors, metadata = _read_pickled(path), {}
    except PermissionError as error:
        raise CheckpointError(f"{path}: no permission to read it ({error}).") from error
    if not tensors:
        raise CheckpointError(f"{path}: the file holds no weights.")
    return CheckpointFile(path=path, tensors=tensors, metadata=metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, ValueError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise CheckpointError(f"{path}: {_why_not_safetensors(path)}") from error


def _why_not_safetensors(path: Path) -> str:
    """Says what a file is that the safetensors library refused."""
    size = path.stat().st_size
    again = "Download it again."
    if size < 8:
        return f"the file has only {size} bytes, no safetensors file is that small. {again}"
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, a text in place of the weights. Run `git lfs pull`, or download the file."
    if head.startswith(b"PK"):
        return "this is a zip archive, perhaps a .pth file under another name. Give it its own ending back."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"this is a web page, not weights: the link led to a page. {again}"
    (header,) = struct.unpack("<Q", head[:8])
    if head[8:9] != b"{" or header > 100 * 2**20:
        return f"not a safetensors file ({size} bytes that do not start with a safetensors header). {again}"
    try:
        with open(path, "rb") as file:
            file.seek(8)
            entries = json.loads(file.read(header))
        end = 8 + header + max(e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError):
        return f"the file is truncated or corrupted: its header cannot be read. {again}"
    if size < end:
        return f"the file is truncated: {size} of {end} bytes are there. {again}"
    return f"the file is corrupted: {size} bytes where its header describes {end}. {again}"


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a file of plain weights (text, or Python objects, which are never executed here). "
            "Ask its author for a .safetensors file."
        ) from error
    except PermissionError:
        raise
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: truncated or corrupted ({first_line(error)}). Download it again.") from error
    tensors = find_weights(content)
    if tensors is None:
        raise CheckpointError(f"{path}: no state dict in it; {_describe(content)} found, names with tensors expected.")
    return tensors


def find_weights(content: Any) -> dict[str, Tensor] | None:
    """The state dict in what a file holds: the thing itself, or what training code wrapped around it."""
    if not isinstance(content, Mapping):
        return None
    for key in _CONTAINERS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and (found := find_weights(inner)) is not None:
            return found
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return tensors or None


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {', '.join(map(str, list(content)[:5])) or 'nothing'}"
    return f"a {type(content).__name__}"


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Writes a .safetensors file whole or not at all; an older file stays until the new one is complete.

    Args:
        path: The file; its folder is made if need be.
        tensors: By name, on the CPU.
        metadata: Texts for the file's header.

    Raises:
        CheckpointError: Wrong ending, no such folder, no permission, no space.
    """
    path = Path(path)
    if path.suffix.lower() not in SAFETENSORS:
        raise CheckpointError(f"{path}: checkpoints are written as .safetensors; found {path.suffix or 'no ending'!r}.")
    if path.is_dir():
        raise CheckpointError(f"{path}: this is a folder; give the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, dict(metadata))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not written, {_why_not_written(error)}") from error
    return path


def _why_not_written(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full. Free some space, or choose another folder."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in str(error):
        return "no permission to write there. Choose another folder."
    return f"{first_line(error)}. Choose another folder."
