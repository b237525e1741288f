"""Clips of a disc that moves before a texture, with known masks and motion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from birefnet_core.image_ops import resize


class DiscClip(NamedTuple):
    frames: Tensor  # T 3 H W
    masks: Tensor  # T 1 H W, true


def texture(height: int, width: int, seed: int, cell: int = 4) -> Tensor:
    """3, H, W: smooth random colours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // cell, width // cell, generator=generator)
    return resize(coarse, (height, width))[0]


def disc_clip(frames: int, step: float, *, seed: int = 0, height: int = 72, width: int = 96) -> DiscClip:
    """A textured disc that moves to the right by ``step`` pixels a frame."""
    back, front = 0.6 * texture(height, width, seed), 0.4 + 0.6 * texture(height, 4 * width, seed + 1)
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    colours, masks = [], []
    for t in range(frames):
        centre = width * 0.35 + step * t
        mask = (height * 0.25 + 0.5 - torch.hypot(x - centre, y - height / 2)).clamp(0, 1)
        at = 2 * width - step * t  # where in the disc's texture the frame's left edge is
        whole, part = int(at // 1), at - at // 1
        paint = (1 - part) * front[..., whole : whole + width] + part * front[..., whole + 1 : whole + 1 + width]
        colours.append(mask * paint + (1 - mask) * back)
        masks.append(mask[None])
    return DiscClip(torch.stack(colours), torch.stack(masks))
