"""Convolutions that keep the size of their map, for maps that are never concatenated and rows that are made one by one.

Shapes: B batch, C input channels, O output channels, H W map, k kernel size, odd; h some of H rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .execution import chunking, row_chunks


def match_dtype(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` in the dtype of the weight that is to be multiplied with it; as it is under autocast, which casts both."""
    if x.dtype == weight.dtype:
        return x
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return x if autocast else x.to(weight.dtype)


def conv2d_rows(x: Tensor, weight: Tensor, bias: Tensor | None, rows: slice) -> Tensor:
    """Some output rows of a convolution with padding k // 2; no other row is computed.

    Args:
        x: B, C, H, W, in any dtype.
        weight: O, C, k, k.
        bias: O, or None.
        rows: Which, with start and stop.

    Returns:
        B, O, h, W.
    """
    halo = weight.shape[2] // 2
    above, below = halo - rows.start, rows.stop + halo - x.shape[2]  # rows of padding
    if (rows.start, rows.stop) == (0, x.shape[2]):
        return F.conv2d(match_dtype(x, weight), weight, bias, padding=halo)
    x = match_dtype(x[:, :, max(0, -above) : rows.stop + halo], weight)
    if above > 0 or below > 0:
        x = F.pad(x, (0, 0, max(0, above), max(0, below)))
    return F.conv2d(x, weight, bias, padding=(0, halo))


def add_conv2d(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """Adds a convolution with padding k // 2 to ``total``, in chunks of rows; for inference.

    Args:
        total: B, O, H, W; changed in place.
        x: B, C, H, W.
        weight: O, C, k, k.
    """
    for rows in row_chunks(total.shape[2], total[:, :, 0].numel(), "map", total.device):
        total[:, :, rows].add_(conv2d_rows(x, weight, None, rows))


class SplitConv2d(nn.Conv2d):
    """A convolution of maps that would be concatenated: the sum of the convolutions of each, which is the same.

    Its parameters are those of the convolution of the concatenated maps. Its kernel size is odd and its padding keeps
    the size of the map.
    """

    def forward(self, maps: Iterable[Tensor]) -> Tensor:  # type: ignore[override]
        """Maps of B, C_i, H, W, whose channels add up to ``in_channels`` -> B, O, H, W.

        In inference each map is freed before the next one is taken from the iterable, if nothing else holds it.
        """
        total: Tensor | None = None
        first = 0
        for x in maps:
            weight = self.weight[:, first : first + x.shape[1]]
            first += x.shape[1]
            if total is None:
                total = conv2d_rows(x, weight, self.bias, slice(0, x.shape[2]))
            elif chunking(x, self.training):
                add_conv2d(total, x, weight)
            else:
                total = total + conv2d_rows(x, weight, None, slice(0, x.shape[2]))
            del x
        if total is None or first != self.in_channels:
            raise ValueError(f"maps of {self.in_channels} channels in all expected, found {first}.")
        return total
