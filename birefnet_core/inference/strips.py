"""Convolutions of some rows of a map, so that what is only added up never exists as a whole.

Shapes: B batch, C input channels, O output channels, H W map, k kernel size, odd.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..network.layers import inference_budget, laid_out


def conv_rows(x: Tensor, weight: Tensor, bias: Tensor | None, top: int, bottom: int) -> Tensor:
    """Some rows of what a convolution gives that keeps the map's size.

    Args:
        x: B, C, H, W.
        weight: O, C, k, k.
        bias: O, or None.
        top: First row.
        bottom: Last row + 1.

    Returns:
        B, O, bottom - top, W, of the weight's dtype.
    """
    padding = weight.shape[2] // 2
    above, below = max(0, top - padding), min(bottom + padding, x.shape[2])
    y = F.conv2d(laid_out(x[:, :, above:below]).to(weight.dtype), weight, bias, padding=padding)
    return y[:, :, top - above : bottom - above]  # the rows next to a cut saw zeros there


def add_conv(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """Adds what a convolution gives that keeps the map's size.

    Args:
        total: B, O, H, W; changed in place.
        x: B, C, H, W; B may be 1 for all.
        weight: O, C, k, k.
    """
    height, budget = total.shape[2], inference_budget(total)
    step = max(1, budget // total[:, :, 0].numel()) if budget else height
    for top in range(0, height, step):
        bottom = min(top + step, height)
        total[:, :, top:bottom].add_(conv_rows(x, weight, None, top, bottom))
