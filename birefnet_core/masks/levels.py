"""Values of a mask: black and white point, threshold.

Shapes: masks B H W in [0, 1].
"""

from __future__ import annotations

from torch import Tensor


def stretch_levels(masks: Tensor, black_point: float, white_point: float) -> Tensor:
    """Maps [black_point, white_point] to [0, 1]; what lies outside becomes 0 or 1."""
    return ((masks - black_point) / (white_point - black_point)).clamp_(0, 1)


def binarize(masks: Tensor, threshold: float) -> Tensor:
    """1 where the mask is above the threshold, else 0."""
    return (masks > threshold).to(masks.dtype)
