"""Checkpoints: names, files and keys. Loading and saving, which need the network, are imported at their first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .catalogue import CatalogueEntry, checkpoints
from .resolve import present_locally, resolve

if TYPE_CHECKING:
    from .load import CheckpointInfo, load_file, load_model, model_from_state_dict
    from .save import save_checkpoint

_LAZY = {
    "CheckpointInfo": ".load",
    "load_file": ".load",
    "load_model": ".load",
    "model_from_state_dict": ".load",
    "save_checkpoint": ".save",
}

__all__ = [
    "CatalogueEntry",
    "CheckpointInfo",
    "checkpoints",
    "load_file",
    "load_model",
    "model_from_state_dict",
    "present_locally",
    "resolve",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name], __name__), name)
    return value
