"""Checkpoints: names, files and keys. Loading and saving, which need the network, are imported at their first use."""

# ruff: noqa: F401 (type checkers know the lazy names by their imports)

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..checkpoint_info import CheckpointInfo
from .catalogue import CatalogueEntry, find_entry, list_checkpoints
from .resolve import present_locally

if TYPE_CHECKING:
    from .adapter import Adapter, merge_adapter, read_adapter, save_adapter
    from .build import model_from_state_dict
    from .load import load_file, load_model
    from .save import save_checkpoint

_LAZY = {
    "Adapter": ".adapter",
    "load_file": ".load",
    "load_model": ".load",
    "merge_adapter": ".adapter",
    "model_from_state_dict": ".build",
    "read_adapter": ".adapter",
    "save_adapter": ".adapter",
    "save_checkpoint": ".save",
}

__all__ = ["CatalogueEntry", "CheckpointInfo", "find_entry", "list_checkpoints", "present_locally", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name], __name__), name)
    return value
