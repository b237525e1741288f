"""The objective of training (Sec. 3.5): pure functions for each term, and their weighted sum.

Every term on maps takes logits and a label of the same shape B, 1, H, W, computes in float32 (float64 stays) whatever
the autocast, and is a mean over the batch.
"""

from .boundary import ssim, structure
from .gradient import gradient_map
from .hybrid import HybridLoss, LossValue
from .pixel import bce, mae, mse
from .region import iou
from .schedule import region_fine_tuning
from .semantic import cross_entropy
from .weights import LOSS_PRESETS, LossWeights, loss_preset

__all__ = [
    "LOSS_PRESETS",
    "HybridLoss",
    "LossValue",
    "LossWeights",
    "bce",
    "cross_entropy",
    "gradient_map",
    "iou",
    "loss_preset",
    "mae",
    "mse",
    "region_fine_tuning",
    "ssim",
    "structure",
]
