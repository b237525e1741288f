"""Checkpoints: names, files and keys."""

from .catalogue import CatalogueEntry, checkpoints
from .load import CheckpointInfo, load_file, load_model, model_from_state_dict
from .resolve import present_locally, resolve
from .save import save_checkpoint

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
