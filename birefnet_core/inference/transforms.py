"""Image -> network input, and network output -> mask.

Shapes: B batch, H W image, h w network input, C 1, 3 or 4 colours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError

# Statistics of ImageNet, which every published checkpoint was trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Values a little outside [0, 1] come from sharpening and colour work and are clipped; far outside they
# mean another scale, such as 0 to 255.
_TOLERANCE = 1.0


def check_images(images: Tensor) -> None:
    """Checks a batch of images, B, H, W, C float in [0, 1] with C = 1, 3 or 4.

    Raises:
        ImageError: What it is instead.
    """
    if not isinstance(images, Tensor):
        raise ImageError(f"expected a tensor of images B, H, W, C; found {type(images).__name__}.")
    shape = tuple(images.shape)
    if images.ndim != 4:
        hint = " Add a batch dimension: images[None]." if images.ndim == 3 else ""
        raise ImageError(f"expected images of shape B, H, W, C; found {shape}.{hint}")
    if 0 in shape:
        raise ImageError(
            f"expected at least one image of at least one pixel, found shape {shape}: check what feeds it."
        )
    if shape[3] not in (1, 3, 4):
        hint = " Channels come last: use images.permute(0, 2, 3, 1)." if shape[1] in (1, 3, 4) else ""
        raise ImageError(f"expected 1, 3 or 4 channels, found {shape[3]} in shape {shape}.{hint}")
    if not images.is_floating_point():
        hint = " Divide by 255." if images.dtype == torch.uint8 else ""
        raise ImageError(f"expected floating-point images in [0, 1]; found {images.dtype}.{hint}")
    for index, image in enumerate(images):  # one by one, so that checking a long video needs no memory
        low, high = (float(v) for v in image.aminmax())
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # NaN fails too
            bad = f"values from {low:g} to {high:g}" if low == low and high == high else "NaN values"
            hint = " Divide by 255." if high > 100 else " Check what made it."
            raise ImageError(f"expected values in [0, 1]; image {index} has {bad}.{hint}")


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize, antialiased where it shrinks.

    Args:
        x: B, C, H, W float.

    Returns:
        B, C, height, width.
    """
    if x.shape[2:] == (height, width):
        return x
    shrinks = height < x.shape[2] or width < x.shape[3]
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=shrinks)


def to_network_input(images: Tensor, height: int, width: int) -> Tensor:
    """Stretches images to the network's size and normalises them.

    Args:
        images: B, H, W, C float in [0, 1]; grey becomes RGB, alpha is dropped.

    Returns:
        B, 3, height, width float32.
    """
    x = images[..., :3].permute(0, 3, 1, 2).float().clamp(0, 1)  # B C H W
    x = resize(x.expand(-1, 3, -1, -1).contiguous(), height, width)  # one layout, so that rounding is always the same
    mean = x.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = x.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return (x - mean) / std


def to_masks(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits B, 1, h, w -> masks B, height, width float32 in [0, 1]."""
    masks = resize(torch.sigmoid(logits.float()), height, width)
    return masks[:, 0].clamp(0, 1)
