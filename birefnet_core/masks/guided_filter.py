"""Guided filter with a colour guide (He, Sun and Tang, "Guided Image Filtering", ECCV 2010, Sec. 3.5).

Shapes: B batch, H W image, h rows of one band.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import box_mean, strips

# Pairs of channels of the symmetric 3 x 3 covariance, row by row of its upper half.
UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def guided_filter(masks: Tensor, images: Tensor, radius: int, epsilon: float) -> Tensor:
    """Pulls the mask's edges onto the image's.

    In every window the mask is fitted by a linear function of the colour; each pixel takes the mean of the
    functions of all windows that hold it. Windows that reach over the border are averaged over their
    pixels inside the image.

    Args:
        masks: B, H, W.
        images: B, H, W, 3, the guide.
        radius: Windows are 2 ``radius`` + 1 pixels wide.
        epsilon: Regularisation, in squared colour units; a standard deviation of colour below its root
            counts as flat and is smoothed over.

    Returns:
        B, H, W. Works in bands of rows: peak memory is the result and some 100 numbers for each pixel of a band.
    """
    height = masks.shape[1]
    halo = 2 * radius  # two box means, one after the other
    out = torch.empty_like(masks)
    for top, bottom in strips(height, masks.shape[0] * masks.shape[2], masks.device, least=4 * radius):
        first, last = max(top - halo, 0), min(bottom + halo, height)
        band = _filter_band(masks[:, first:last], images[:, first:last], radius, epsilon)
        out[:, top:bottom] = band[:, top - first : bottom - first]
    return out


def _filter_band(masks: Tensor, images: Tensor, radius: int, epsilon: float) -> Tensor:
    guide = images.permute(0, 3, 1, 2) - 0.5  # B 3 h W; around zero the variances keep more digits
    mask = masks[:, None]
    squares = [guide[:, i] * guide[:, j] for i, j in UPPER]
    means = box_mean(torch.cat([guide, mask, guide * mask, torch.stack(squares, dim=1)], dim=1), radius)
    guide_mean, mask_mean, cross, square = means.split((3, 1, 3, 6), dim=1)
    cross = cross - guide_mean * mask_mean  # covariance of colour and mask
    covariance = {
        (i, j): square[:, n] - guide_mean[:, i] * guide_mean[:, j] + (epsilon if i == j else 0.0)
        for n, (i, j) in enumerate(UPPER)
    }
    slope = _solve_symmetric(covariance, cross, epsilon)
    offset = mask_mean - (slope * guide_mean).sum(dim=1, keepdim=True)
    slope, offset = box_mean(torch.cat([slope, offset], dim=1), radius).split((3, 1), dim=1)
    return ((slope * guide).sum(dim=1) + offset[:, 0]).clamp_(0, 1)  # B h W


def _solve_symmetric(matrix: dict[tuple[int, int], Tensor], right: Tensor, least: float) -> Tensor:
    """Solves a symmetric positive 3 x 3 system for every pixel.

    Elimination (L D L^T) rather than cofactors: on a grey image the matrix is of rank one but for epsilon,
    and cofactors lose everything to rounding. Pivots are at least epsilon in exact arithmetic.

    Args:
        matrix: Upper half, B, h, W each.
        right: B, 3, h, W.
        least: Epsilon.

    Returns:
        B, 3, h, W.
    """
    d0 = matrix[0, 0].clamp(min=least)
    l10, l20 = matrix[0, 1] / d0, matrix[0, 2] / d0
    d1 = (matrix[1, 1] - l10 * matrix[0, 1]).clamp(min=least)
    e21 = matrix[1, 2] - l20 * matrix[0, 1]
    l21 = e21 / d1
    d2 = (matrix[2, 2] - l20 * matrix[0, 2] - l21 * e21).clamp(min=least)
    y0 = right[:, 0]
    y1 = right[:, 1] - l10 * y0
    y2 = right[:, 2] - l20 * y0 - l21 * y1
    x2 = y2 / d2
    x1 = y1 / d1 - l21 * x2
    x0 = y0 / d0 - l10 * x1 - l20 * x2
    return torch.stack([x0, x1, x2], dim=1)
