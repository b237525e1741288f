"""Checkpoints: names, files and keys. Loading and saving, which need the network, are imported at their first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .catalogue import CatalogueEntry, checkpoints
from .resolve import present_locally, resolve

if TYPE_CHECKING:
    from .adapter import Adapter, merge_adapter, read_adapter, save_adapter
    from .load import CheckpointInfo, load_file, load_model, model_from_state_dict
    from .save import save_checkpoint

_LAZY = {
    "Adapter": ".adapter",
    "CheckpointInfo": ".load",
    "load_file": ".load",
    "load_model": ".load",
    "merge_adapter": ".adapter",
    "model_from_state_dict": ".load",
    "read_adapter": ".adapter",
    "save_adapter": ".adapter",
    "save_checkpoint": ".save",
}

__all__ = [
    "Adapter",
    "CatalogueEntry",
    "CheckpointInfo",
    "checkpoints",
    "load_file",
    "load_model",
    "merge_adapter",
    "model_from_state_dict",
    "present_locally",
    "read_adapter",
    "resolve",
    "save_adapter",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name], __name__), name)
    return value
