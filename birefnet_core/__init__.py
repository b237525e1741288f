"""BiRefNet: network, checkpoints and inference. Knows nothing of ComfyUI."""

from .checkpoints import checkpoints, load_file, load_model, merge_adapter, model_from_state_dict, save_checkpoint
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
from .inference import PreparedBiRefNet, Segmenter, prepare
from .masks import estimate_foreground
from .metrics import evaluate
from .network import BiRefNet, BiRefNetOutput, deform_conv2d

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
