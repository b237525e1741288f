"""Images -> network input, and the network's sigmoid -> masks.

Shapes: N images, H W image, h w network input, C 1, 3 or 4 channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..image_ops import flatten_alpha, resize

# Statistics of ImageNet, which every published checkpoint was trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def to_network_input(
    images: Tensor | Sequence[Tensor], height: int, width: int, device: torch.device | None = None
) -> Tensor:
    """Resizes images to the network's size and normalises them.

    Args:
        images: N, H, W, C float in [0, 1], or N images H, W, C of any sizes; grey becomes RGB,
            transparent pixels middle grey (``flatten_alpha``).
        height: h.
        width: w.
        device: Where to work; None for where the images are.

    Returns:
        N, 3, h, w float32.
    """
    if not isinstance(images, Tensor):
        if len({image.shape for image in images}) > 1:
            return torch.cat([to_network_input(image[None], height, width, device) for image in images])
        images = torch.stack([_moved(image, device) for image in images]) if len(images) > 1 else images[0][None]
    x = flatten_alpha(_moved(images, device).float().clamp(0, 1)).permute(0, 3, 1, 2)  # N 3 H W
    x = x.contiguous()  # the same memory format whatever C, as rounding depends on it
    x = resize(x, (height, width), antialias=True)  # N 3 h w
    mean, std = x.new_tensor([IMAGENET_MEAN, IMAGENET_STD]).view(2, 3, 1, 1)  # in one copy: each waits for the device
    return x.sub_(mean).div_(std)


def to_masks(probabilities: Tensor, sizes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Sigmoids N, 1, h, w float32 -> N masks in [0, 1], of the given heights and widths."""
    if len({tuple(size) for size in sizes}) == 1:
        return list(resize(probabilities, sizes[0], antialias=True)[:, 0].clamp_(0, 1))
    resized = (resize(one[None], size, antialias=True) for one, size in zip(probabilities, sizes, strict=True))
    return [mask[0, 0].clamp_(0, 1) for mask in resized]


def _moved(x: Tensor, device: torch.device | None) -> Tensor:
    device = device or x.device
    return x.to(device, non_blocking=device.type == "cuda")  # elsewhere such copies may be read before they are done
