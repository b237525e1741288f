"""Flicker of the masks of a clip.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ImageError
from ..image_ops import warp


def flicker(masks: Tensor, motion: Tensor, visible: Tensor, truths: Tensor | None = None) -> float:
    """Mean absolute difference of consecutive masks along the motion.

    Over the pixels x of every frame t > 0 that are visible in frame t - 1 too, at x + v(x):
    mean |M_t(x) - M_{t-1}(x + v(x))|. With the true masks A, what they change themselves does not count:
    mean |(M_t(x) - A_t(x)) - (M_{t-1}(x + v(x)) - A_{t-1}(x + v(x)))|, which is 0 for masks that are right, and for
    those that are wrong in the same way all the time. After the temporal measures of M. Erofeev et al., "Perceptually
    Motivated Benchmark for Video Matting", BMVC 2015, with absolute instead of squared differences.

    Args:
        masks: T, H, W in [0, 1].
        motion: T - 1, 2, H, W, x and y in pixels: from each pixel of frame t to where it was in frame t - 1.
        visible: T - 1, H, W, true where that is known and visible in both; nowhere across a scene cut.
        truths: T, H, W, or None.

    Returns:
        A mean in [0, 1], or up to 2 with ``truths``; 0 if nothing is visible twice.

    Raises:
        ImageError: Shapes that do not fit.
    """
    steps, size = len(masks) - 1, masks.shape[1:]
    wanted = {"motion": (steps, 2, *size), "visible": (steps, *size), "truths": masks.shape}
    for (name, shape), found in zip(wanted.items(), (motion, visible, truths), strict=True):
        if found is not None and tuple(found.shape) != tuple(shape):
            raise ImageError(f"{name} has shape {tuple(found.shape)}, expected {tuple(shape)} for these masks.")
    total = count = 0.0
    for t in range(steps):
        layers = masks[t : t + 2] if truths is None else masks[t : t + 2] - truths[t : t + 2]
        before, now = layers.float()
        change = (now - warp(before[None, None], motion[t : t + 1].float())[0, 0]).abs()
        total += float(change[visible[t]].sum(dtype=torch.float64))
        count += int(visible[t].sum())
    return total / count if count else 0.0
