"""Smoothing over the frames of a video.

Shapes: T frames, H W picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import box_mean

PATCH_RADIUS = 2  # two frames are compared over 5 x 5 pixels: noise averages out, a moved edge does not
MASK_TOLERANCE = 0.1  # an edge of full contrast that moves by one pixel changes a patch by 0.2
MOTION = 0.05  # mean colour change of a patch that is sure to be motion; film grain stays below
STILL = 0.25  # share of the mask's change that counts where the image stands still


def smooth_over_time(masks: Tensor, radius: int, images: Tensor | None = None) -> Tensor:
    """Averages each frame with its neighbours where nothing moves.

    A neighbour's weight falls off with its distance in time, and steeply with the change of the mask
    around the pixel; so flicker goes and motion leaves no ghost. With the images at hand, a change of the
    mask where the image stands still counts for less: it is more likely flicker.

    Args:
        masks: T, H, W, consecutive frames.
        radius: Frames looked at before and after.
        images: T, H, W, 3, or None.

    Returns:
        T, H, W. Frame by frame: peak memory is the result and about 10 masks.
    """
    frames = masks.shape[0]
    out = torch.empty_like(masks)
    for t in range(frames):
        total, weights = masks[t].clone(), torch.ones_like(masks[t])
        for s in range(max(t - radius, 0), min(t + radius + 1, frames)):
            if s == t:
                continue
            change = box_mean((masks[s] - masks[t]).abs(), PATCH_RADIUS)
            if images is not None:
                motion = box_mean((images[s] - images[t]).abs().mean(dim=-1), PATCH_RADIUS)
                change = change * (motion / MOTION).clamp_(STILL, 1)
            near = 1 - abs(s - t) / (radius + 1)
            weight = torch.exp(-((change / MASK_TOLERANCE) ** 2)).mul_(near)
            total.addcmul_(weight, masks[s])
            weights.add_(weight)
        out[t] = total / weights
    return out
