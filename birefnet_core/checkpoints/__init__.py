"""Checkpoints: names, files and keys."""

from .adapter import Adapter, merge_adapter, read_adapter, save_adapter
from .catalogue import CatalogueEntry, checkpoints
from .load import CheckpointInfo, load_file, load_model, model_from_state_dict
from .resolve import present_locally, resolve
from .save import save_checkpoint

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
