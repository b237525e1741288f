"""BiRefNet: network, checkpoints and inference. Knows nothing of ComfyUI.

Only the catalogue, the options and the errors are imported with the package. The rest comes with its first use,
because the network brings timm and torchvision, which take seconds that listing checkpoints need not.
"""

# ruff: noqa: F401 (type checkers know the lazy names by their imports)

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .checkpoints.catalogue import list_checkpoints
from .config import BiRefNetConfig, PatchOrder
from .errors import (
    BiRefNetError,
    CheckpointError,
    ConfigError,
    DatasetError,
    ImageError,
    MemoryLimitError,
    TrainingError,
    VideoError,
)

if TYPE_CHECKING:
    from .checkpoints import load_file, load_model, merge_adapter, model_from_state_dict, save_checkpoint
    from .inference import Segmenter
    from .masks import estimate_foreground
    from .metrics import evaluate_folders as evaluate
    from .network import BiRefNet, BiRefNetOutput, fuse_for_inference
    from .ops.deform_conv import deform_conv2d

# Name -> module, with ":name" where it has another name there. None is called as a module or subpackage: it would hide
# that (``import birefnet_core.checkpoints.catalogue``).
_LAZY = {
    "BiRefNet": ".network",
    "BiRefNetOutput": ".network",
    "Segmenter": ".inference",
    "deform_conv2d": ".ops.deform_conv",
    "estimate_foreground": ".masks",
    "evaluate": ".metrics:evaluate_folders",
    "fuse_for_inference": ".network",
    "load_file": ".checkpoints",
    "load_model": ".checkpoints",
    "merge_adapter": ".checkpoints",
    "model_from_state_dict": ".checkpoints",
    "save_checkpoint": ".checkpoints",
}

__all__ = [
    "BiRefNetConfig",
    "BiRefNetError",
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "ImageError",
    "MemoryLimitError",
    "PatchOrder",
    "TrainingError",
    "VideoError",
    "list_checkpoints",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value = globals()[name] = getattr(import_module(module, __name__), attribute or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
