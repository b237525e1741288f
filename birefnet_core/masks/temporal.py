"""Smoothing over the frames of a video.

Shapes: T frames, H W image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import Progress, box_mean

# Chosen by hand for masks in [0, 1] and images in [0, 1], from what one pixel of motion and the noise of a video do to
# the mean over a patch; not fitted to data.
PATCH_RADIUS = 2  # two frames are compared over 5 x 5 pixels, which averages noise out
# An edge of full contrast that moves by one pixel changes one column in five, so a patch by 0.2, and gets the weight
# exp(-(0.2 / MASK_TOLERANCE)^2) = 0.02; noise of a tenth of that keeps 0.96.
MASK_TOLERANCE = 0.1
# Mean change of colour that is certainly motion: 13 of 255 levels. Independent noise of standard deviation s changes a
# patch by 2 s / sqrt(pi), so film grain of up to 0.04 stays below.
MOTION = 0.05
STILL = 0.25  # factor of the mask's change where the image stands still: flicker may be four times as strong


def smooth_over_time(
    masks: Tensor, radius: int, images: Tensor | None = None, progress: Progress | None = None
) -> Tensor:
    """Averages each frame with its neighbours where nothing moves.

    A neighbour's weight decreases with its distance in time, and steeply with the change of the mask around the pixel;
    so flicker is averaged out and motion leaves no ghost. With the images at hand, a change of the mask where the
    image stands still counts less: it is more likely flicker.

    Args:
        masks: T, H, W, consecutive frames.
        radius: Frames before and after that are averaged.
        images: T, H, W, 3, or None.
        progress: Called before each frame.

    Returns:
        T, H, W. Peak memory is the result, ``radius`` + 1 maps of weights and about 8 masks.
    """
    frames = masks.shape[0]
    out = masks.clone()  # weighted sums until a frame's last neighbour has been added
    weights = {0: torch.ones_like(masks[0])}
    for t in range(frames):
        if progress:
            progress(t, frames)
        for s in range(t + 1, min(t + radius + 1, frames)):  # the weight of s for t is that of t for s
            weight = _weight(masks, images, t, s).mul_(1 - (s - t) / (radius + 1))
            out[t].addcmul_(weight, masks[s])
            out[s].addcmul_(weight, masks[t])
            weights[t].add_(weight)
            weights[s] = weights[s].add_(weight) if s in weights else weight.add_(1)
        out[t].div_(weights.pop(t))
    return out


def _weight(masks: Tensor, images: Tensor | None, t: int, s: int) -> Tensor:
    """H, W: how alike two frames are, 1 where nothing changes."""
    change = box_mean((masks[s] - masks[t]).abs(), PATCH_RADIUS)
    if images is not None:
        motion = box_mean((images[s] - images[t]).abs().mean(dim=-1), PATCH_RADIUS)
        change = change * (motion / MOTION).clamp_(STILL, 1)
    return torch.exp(-((change / MASK_TOLERANCE) ** 2))
