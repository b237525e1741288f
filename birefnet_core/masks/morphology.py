"""Outlines of a mask: grow, shrink, feather, smooth.

Shapes: masks B H W in [0, 1], image H W.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import double_max, strips, window_max

ELEMENTS = ("circle", "square")
GAUSSIAN_REACH = 3.0  # the kernel ends at three sigmas, where the Gaussian is 1 % of its peak
WIDEST_SIGMA = 2**20  # pixels; within any image wider ones are as flat


def grow(masks: Tensor, pixels: int, element: str = "circle") -> Tensor:
    """Grows the subject by some pixels, or shrinks it by a negative number of them.

    Grey-level dilation (erosion): each pixel takes the largest (smallest) value within reach. The
    mask is continued beyond the image's border, so shrinking does not erode it from there.

    Args:
        masks: B, H, W.
        pixels: Reach.
        element: "circle" reaches pixels at a distance of at most ``pixels``, "square" grows both axes by it.

    Returns:
        B, H, W. Peak memory about 6 times the masks with the reach added around them.
    """
    if pixels == 0:
        return masks
    height, width = masks.shape[-2:]
    farthest = math.hypot(height - 1, width - 1) if element == "circle" else max(height, width) - 1
    radius = min(abs(pixels), math.ceil(farthest))  # from there on every pixel reaches all others
    dilate = _dilate_disc if element == "circle" else _dilate_square
    return dilate(masks, radius) if pixels > 0 else 1 - dilate(1 - masks, radius)


def _dilate_square(masks: Tensor, radius: int) -> Tensor:
    y = window_max(F.pad(masks, (radius, radius)), 2 * radius + 1, -1)
    return window_max(F.pad(y, (0, 0, radius, radius)), 2 * radius + 1, -2)


def _dilate_disc(masks: Tensor, radius: int) -> Tensor:
    """Maximum over a disc, row by row of the disc: rows as far above as below have the same half width.

    From the disc's poles to its equator the half widths grow, so the row maxima of windows 1, 2, 4, ...
    long are built once, each from the one before.
    """
    height, width = masks.shape[-2:]
    down, across = min(radius, height - 1), min(radius, width - 1)  # what is farther lies outside the image
    maxima, span = F.pad(masks, (across, across, down, down)), 1  # B H+2d W+2a
    out, half_before = masks, -1  # the centre of the disc
    for dy in range(down, -1, -1):
        half = min(math.isqrt(radius * radius - dy * dy), across)
        if half != half_before:
            length = 2 * half + 1
            while 2 * span <= length:
                maxima, span = double_max(maxima, span, -1), 2 * span
            left, right = across - half, across + half + 1 - span
            widest = torch.maximum(maxima[..., left : left + width], maxima[..., right : right + width])
            half_before = half
        above = widest[..., down - dy : down - dy + height, :]
        below = widest[..., down + dy : down + dy + height, :]
        out = torch.maximum(torch.maximum(out, above), below)
    return out


def feather(masks: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with a standard deviation of ``sigma`` pixels; borders are repeated outwards.

    A subject cut off by the border stays opaque there.

    Args:
        masks: B, H, W.
        sigma: Pixels; 0 returns the masks.

    Returns:
        B, H, W. Works in bands of rows: peak memory is three masks and 20 numbers for each pixel of a band.
    """
    if sigma == 0:
        return masks
    frames, height, width = masks.shape
    column, row = (_gaussian(min(sigma, WIDEST_SIGMA), length, masks.device) for length in (height, width))
    above, beside = len(column) // 2, len(row) // 2
    x = F.pad(masks[:, None], (0, 0, above, above), mode="replicate")
    out = torch.empty_like(masks)
    # In bands, because convolutions of one channel may take many times its memory inside.
    for top, bottom in strips(height, frames * width, masks.device, least=2 * above):
        band = F.conv2d(x[:, :, top : bottom + 2 * above], column.view(1, 1, -1, 1))
        band = F.pad(band, (beside, beside, 0, 0), mode="replicate")
        out[:, top:bottom] = F.conv2d(band, row.view(1, 1, 1, -1))[:, 0]  # B h W
    return out.clamp_(0, 1)


def _gaussian(sigma: float, length: int, device: torch.device) -> Tensor:
    """Weights of a Gaussian for a line of some pixels, an odd number of them.

    What would reach farther than the line is long always falls on its border, which is repeated outwards: the outermost
    weights stand for it.
    """
    reach = math.ceil(GAUSSIAN_REACH * sigma)
    at = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    beyond = reach - (length - 1)
    if beyond <= 0:
        return kernel
    tail = kernel[:beyond].sum()
    kernel = kernel[beyond:-beyond].clone()
    kernel[0] += tail
    kernel[-1] += tail
    return kernel


def smooth_edge(masks: Tensor, sigma: float) -> Tensor:
    """Rounds off jagged outlines: blurs, then steepens the edge until it is about one pixel wide.

    Meant for hard masks. Detail thinner than about ``sigma`` pixels goes, and so does a soft edge; to keep
    hair, use the guided filter.

    Args:
        masks: B, H, W.
        sigma: Pixels of the blur; 0 returns the masks.

    Returns:
        B, H, W.
    """
    if sigma == 0:
        return masks
    # A step blurred by sigma crosses 0.5 with the slope 1 / (sigma * sqrt(2 pi)) per pixel.
    gain = max(1.0, sigma * math.sqrt(2 * math.pi))
    return feather(masks, sigma).sub_(0.5).mul_(gain).add_(0.5).clamp_(0, 1)
