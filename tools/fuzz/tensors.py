"""Checkpoints in which one tensor, or what lies around the tensors, is something else than weights."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

_TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64)
_VALUES = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf"), "1e38": 1e38, "negative": -1.0}
_SHAPES = ("scalar", "empty", "flat", "turned", "longer", "half", "new axis")
_WRAPPERS = ("model", "state_dict", "module", "ema", "hello", "list", "numbers", "none", "deep", "prefix", "text")
_LAYOUTS = ("expanded", "meta", "sparse", "shared", "float8", "renamed", "missing", "quantized", "strided")
ODD_TENSORS = (*map(str, _TYPES), *_VALUES, *_SHAPES, *_WRAPPERS, *_LAYOUTS)


def change_tensor(content: bytes, suffix: str, index: int, how: str) -> bytes:
    """A checkpoint with one tensor of its state dict changed; one that cannot be read stays as it is.

    Args:
        content: The file.
        suffix: Its ending.
        index: Which tensor.
        how: One of ``ODD_TENSORS``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if suffix == ".safetensors":
                return _change_safetensors(content, index, how)
            zipped = content[:2] == b"PK"
            state = torch.load(io.BytesIO(content), weights_only=True)
            inner = state["model"] if isinstance(state.get("model"), dict) else state
            changed = _changed(inner, index, how)
            state = {**state, "model": changed} if inner is not state else changed
            file = io.BytesIO()
            torch.save(state, file, _use_new_zipfile_serialization=zipped)
            return file.getvalue()
    except Exception:  # damaged before, or a change that the format cannot hold
        return content


def _change_safetensors(content: bytes, index: int, how: str) -> bytes:
    import json
    import struct

    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__")
    state = _changed(load_safetensors(content), index, how)
    return save_safetensors({name: value.contiguous() for name, value in state.items()}, metadata)


def _changed(state: dict[str, Any], index: int, how: str) -> Any:
    names = [name for name, value in state.items() if isinstance(value, Tensor)]
    name = names[index % len(names)]
    value = state[name]
    if how in _WRAPPERS:
        return _wrapped(state, how)
    if how == "missing":
        return {key: inner for key, inner in state.items() if key != name}
    if how == "renamed":
        return {f"{key}.x" if key == name else key: inner for key, inner in state.items()}
    return OrderedDict({**state, name: _odd(value, index, how)})


def _wrapped(state: dict[str, Any], how: str) -> Any:
    if how == "deep":
        nested: Any = state
        for _ in range(12):
            nested = {"model": nested}
        return nested
    wrappers: dict[str, Any] = {
        "list": [state], "numbers": {"model": 3, "state_dict": state}, "none": {"model": None, "ema": state},
        "prefix": {f"module.model.{name}": value for name, value in state.items()},
        "text": {**state, "note": "text", 7: 8, ("a", 1): None},
    }  # fmt: skip
    return wrappers.get(how, {how: state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}})


def _odd(value: Tensor, index: int, how: str) -> Tensor:
    if how in _VALUES:
        value = value.clone()
        value.view(-1)[index % max(value.numel(), 1)] = _VALUES[how]
        return value
    types = {str(dtype): dtype for dtype in _TYPES}
    if how in types:
        return value.to(types[how])
    if how in _SHAPES:
        return _reshaped(value, how)
    return {
        "expanded": lambda: torch.zeros(1).expand(value.shape),
        "meta": lambda: value.to("meta"),
        "sparse": lambda: value.to_sparse(),
        "shared": lambda: torch.zeros(value.numel() + 3)[3:].view(value.shape),
        "float8": lambda: value.to(torch.float8_e4m3fn),
        "strided": lambda: torch.stack([value, value], -1)[..., 0],
        "quantized": lambda: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
    }[how]()


def _reshaped(value: Tensor, how: str) -> Tensor:
    return {
        "scalar": lambda: value.sum(),
        "empty": lambda: value[:0],
        "flat": lambda: value.reshape(-1),
        "turned": lambda: value.transpose(0, -1).contiguous(),
        "longer": lambda: torch.cat([value, value]),
        "half": lambda: value[: (len(value) + 1) // 2],
        "new axis": lambda: value[None],
    }[how]()
