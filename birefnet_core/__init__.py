"""BiRefNet: network, checkpoints and inference. Knows nothing of ComfyUI.

Only the catalogue, the options and the errors are imported with the package. The rest comes with its first use,
because the network brings timm and torchvision, which take seconds that listing checkpoints need not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .checkpoints import checkpoints
from .config import BiRefNetConfig, PatchOrder
from .errors import (
    BiRefNetError,
    CheckpointError,
    ConfigError,
    DatasetError,
    ImageError,
    MemoryLimitError,
    TrainingError,
)

if TYPE_CHECKING:
    from .checkpoints import load_file, load_model, merge_adapter, model_from_state_dict, save_checkpoint
    from .inference import PreparedBiRefNet, Segmenter, prepare
    from .masks import estimate_foreground
    from .metrics import evaluate_folders as evaluate
    from .network import BiRefNet, BiRefNetOutput, deform_conv2d

_LAZY = {
    "BiRefNet": ".network",
    "BiRefNetOutput": ".network",
    "PreparedBiRefNet": ".inference",
    "Segmenter": ".inference",
    "deform_conv2d": ".network",
    "estimate_foreground": ".masks",
    "evaluate": ".metrics:evaluate_folders",
    "load_file": ".checkpoints.load",
    "load_model": ".checkpoints.load",
    "merge_adapter": ".checkpoints.adapter",
    "model_from_state_dict": ".checkpoints.load",
    "prepare": ".inference",
    "save_checkpoint": ".checkpoints.save",
}

__all__ = [
    "BiRefNet",
    "BiRefNetConfig",
    "BiRefNetError",
    "BiRefNetOutput",
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "ImageError",
    "MemoryLimitError",
    "PatchOrder",
    "PreparedBiRefNet",
    "Segmenter",
    "TrainingError",
    "checkpoints",
    "deform_conv2d",
    "estimate_foreground",
    "evaluate",
    "load_file",
    "load_model",
    "merge_adapter",
    "model_from_state_dict",
    "prepare",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value = globals()[name] = getattr(import_module(module, __name__), attribute or name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
