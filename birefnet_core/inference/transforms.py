"""Image -> network input, and network output -> mask.

Shapes: B batch, H W image, h w network input, C 1, 3 or 4 colours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..image_ops import resize

# Statistics of ImageNet, which every published checkpoint was trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

def to_network_input(images: Tensor, height: int, width: int) -> Tensor:
    """Stretches images to the network's size and normalises them.

    Args:
        images: B, H, W, C float in [0, 1]; grey becomes RGB, alpha is dropped.

    Returns:
        B, 3, height, width float32.
    """
    x = images[..., :3].permute(0, 3, 1, 2).float().clamp(0, 1)  # B C H W
    x = x.expand(-1, 3, -1, -1).contiguous()  # one memory layout, so that rounding is always the same
    x = resize(x, (height, width), antialias=True)  # B 3 h w
    mean = x.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = x.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return (x - mean) / std


def to_masks(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits B, 1, h, w -> masks B, height, width float32 in [0, 1]."""
    masks = resize(torch.sigmoid(logits.float()), (height, width), antialias=True)
    return masks[:, 0].clamp(0, 1)
