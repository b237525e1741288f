"""Foreground colours by blurring in two scales (Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021).

The variant published with the network, on the CPU: box blurs of 90, then 6 pixels.

Shapes: B batch, H W image, h rows of one band.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import strips, window_sum

SIZES = (90, 6)  # published: a wide blur finds colours far inside the subject, a narrow one brings detail back
TINY = 1e-5  # published: keeps the division finite where a window holds no foreground, or nothing else


def blur_fusion(image: Tensor, alpha: Tensor) -> Tensor:
    """Estimates foreground colours.

    Args:
        image: B, 3, H, W.
        alpha: B, 1, H, W.

    Returns:
        B, 3, H, W in [0, 1]. As published, it fits the image together with the blurred background of the last
        pass. Peak memory is 4 times the image.
    """
    foreground = background = image
    for size in SIZES:
        foreground, background = _fuse(image, alpha, foreground, background, size)
    return foreground


def _fuse(image: Tensor, alpha: Tensor, foreground: Tensor, background: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """One pass, in bands of rows: both layers blurred, then the image's detail added to the foreground."""
    frames, _, height, width = image.shape
    rows = mirrored(height, size, image.device)
    fronts, backs = torch.empty_like(image), torch.empty_like(image)
    for top, bottom in strips(height, frames * width, image.device, least=2 * size):
        near = rows[top : bottom + size - 1]
        a = alpha[:, :, near]
        band = torch.cat([foreground[:, :, near] * a, background[:, :, near] * (1 - a), a], dim=1)
        front, back, weight = _blur_band(band, size).split((3, 3, 1), dim=1)  # B 3 h W, B 3 h W, B 1 h W
        front = front / (weight + TINY)
        back = torch.div(back, (1 - weight) + TINY, out=backs[:, :, top:bottom])
        a = alpha[:, :, top:bottom]
        residual = image[:, :, top:bottom] - a * front - (1 - a) * back
        torch.addcmul(front, a, residual, out=fronts[:, :, top:bottom]).clamp_(0, 1)
    return fronts, backs


def _blur_band(band: Tensor, size: int) -> Tensor:
    """Mean over ``size`` x ``size`` pixels of a band that brings its ``size`` - 1 further rows along."""
    width = band.shape[-1]
    columns = mirrored(width, size, band.device)
    band = window_sum(band, size, -2)  # B C h W
    band = torch.cat([band[..., columns[: size // 2]], band, band[..., columns[size // 2 + width :]]], dim=-1)
    return window_sum(band, size, -1).div_(size * size)


def mirrored(length: int, size: int, device: torch.device) -> Tensor:
    """Indices that extend a line by what a window needs, as OpenCV's box blur does by default.

    The border is mirrored without repeating its pixel, as often as it takes; the window of pixel x covers
    x - ``size`` // 2 to x + (``size`` - 1) // 2, so an even one reaches further back.

    Args:
        length: Pixels of the line.
        size: Width of the window.

    Returns:
        ``length`` + ``size`` - 1 indices.
    """
    at = torch.arange(-(size // 2), length + (size - 1) // 2, device=device)
    period = max(2 * (length - 1), 1)
    at = at % period
    return torch.minimum(at, period - at).clamp_(max=length - 1)
