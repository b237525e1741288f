"""Convolutions of some rows of a map, so that what is only added up never exists as a whole.

Shapes: B batch, C input channels, O output channels, H W map, k kernel size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folding import padding_of

# Elements of a convolution's result that exist at once. Less stays in a processor's cache; more keeps a GPU busy.
CPU_BUDGET = 2**20
DEVICE_BUDGET = 64 * 2**20


def conv_rows(conv: nn.Conv2d, x: Tensor, top: int, bottom: int, channels: slice = slice(None)) -> Tensor:
    """Some rows of what a convolution that keeps the size gives.

    Args:
        conv: I -> O, k x k, without stride or dilation.
        x: B, C, H, W.
        top: First row.
        bottom: Last row + 1.
        channels: Those of the convolution's inputs that ``x`` has.

    Returns:
        B, O, bottom - top, W.
    """
    padding, weight = padding_of(conv), conv.weight[:, channels]
    above, below = max(0, top - padding), min(bottom + padding, x.shape[2])
    y = F.conv2d(x[:, :, above:below].to(weight.dtype), weight, conv.bias, padding=padding)
    return y[:, :, top - above : bottom - above]  # the rows next to a cut saw zeros there


def add_conv(total: Tensor, conv: nn.Conv2d, x: Tensor, channels: slice = slice(None)) -> None:
    """Adds what a convolution gives to a map.

    Args:
        total: B, O, H, W; changed in place.
        conv: See ``conv_rows``.
        x: B, C, H, W.
        channels: See ``conv_rows``.
    """
    height = total.shape[2]
    step = height
    if not torch.compiler.is_compiling():  # also while exporting
        budget = CPU_BUDGET if total.device.type == "cpu" else DEVICE_BUDGET
        step = max(1, budget // total[:, :, 0].numel())
    for top in range(0, height, step):
        bottom = min(top + step, height)
        total[:, :, top:bottom].add_(conv_rows(conv, x, top, bottom, channels))
