"""BiRefNet: network, checkpoints and inference. Knows nothing of ComfyUI."""

from .config import BiRefNetConfig, PatchOrder
from .errors import BiRefNetError, CheckpointError, ConfigError, DatasetError, ImageError
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
    "PatchOrder",
    "deform_conv2d",
    "evaluate",
]
