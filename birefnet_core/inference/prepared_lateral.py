"""Lateral connections, prepared for inference.

A stage of the decoder reads ``lateral(level) + upsampled(feature)``, where a level may be two joined maps: of the
image, and of the half-size image upsampled. Both ways here leave the half-size map in its own size as long as nothing
but linear operations reads it.

Shapes: B batch, C channels of a level, O channels of a block's inside, h w a level's map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..network.layers import resize
from .folding import conv_from, padding_of, split_inputs
from .strips import add_conv

# Elements of an upsampled feature that exist at once for each image (2 Mi floats = 8 MiB).
UPSAMPLED_BUDGET = 2 * 2**20
LEAST_CHANNELS = 16  # fewer are multiplied too slowly


class PreparedLateral(nn.Module):
    """The sum, for blocks that read it more than once."""

    def __init__(self, lateral: nn.Conv2d, maps: int) -> None:
        """Prepares a lateral connection.

        Args:
            lateral: C -> C, 1 x 1.
            maps: Maps that make up the level, of as many channels each.
        """
        super().__init__()
        self.convs = nn.ModuleList(_shares(lateral, maps))

    def forward(self, level: list[Tensor], feature: Tensor) -> Tensor:
        """Maps of a level and B, C, h', w' -> B, C, h, w."""
        total = self.convs[0](level[0])
        for low in _coarse(self.convs[1:], level[1:], feature):
            total.add_(resize(low, total.shape[2:]))
        return total


class PreparedEntry(nn.Module):
    """The sum and the convolution that alone reads it, without ever making the sum."""

    def __init__(self, lateral: nn.Conv2d, maps: int, conv: nn.Conv2d) -> None:
        """Merges a lateral connection into the convolution after it.

        Args:
            lateral: C -> C, 1 x 1.
            maps: Maps that make up the level, of as many channels each.
            conv: C -> O.
        """
        super().__init__()
        assert lateral.bias is not None
        full, *halves = _shares(lateral, maps)
        weight, dtype = conv.weight.float(), conv.weight.dtype  # O C k k
        merged = torch.einsum("ocyx,ci->oiyx", weight, full.weight[:, :, 0, 0].float())
        self.full = conv_from(merged.to(dtype), conv.bias, padding_of(conv))
        # The lateral's bias is there inside of the map only, and zero in the padding around it.
        bias = torch.einsum("ocyx,c->oyx", weight, lateral.bias.float()).unsqueeze(1)
        self.inside = conv_from(bias.to(dtype), None, padding_of(conv))
        self.halves = nn.ModuleList(halves)
        self.upsampled = conv_from(conv.weight, None, padding_of(conv))

    def forward(self, level: list[Tensor], feature: Tensor) -> Tensor:
        """Maps of a level and B, C, h', w' -> B, O, h, w."""
        total = self.full(level[0])
        size = total.shape[2:]
        add_conv(total, self.inside, total.new_ones(1, 1, *size))
        step = max(LEAST_CHANNELS, UPSAMPLED_BUDGET // (size[0] * size[1]))
        for low in _coarse(self.halves, level[1:], feature):
            for first in range(0, low.shape[1], step):
                channels = slice(first, first + step)
                some = low[:, channels].contiguous(memory_format=torch.channels_last)
                add_conv(total, self.upsampled, resize(some, size), channels)
        return total


def _shares(lateral: nn.Conv2d, maps: int) -> list[nn.Conv2d]:
    """A lateral connection cut into those of the maps; the first has the bias."""
    return split_inputs(lateral, [lateral.in_channels // maps] * maps)


def _coarse(convs: nn.ModuleList, halves: list[Tensor], feature: Tensor) -> list[Tensor]:
    """What is to be upsampled: the feature, and the projected half-size map, added up where their sizes are equal."""
    if not halves:
        return [feature]
    low = convs[0](halves[0])
    return [low.add_(feature)] if low.shape == feature.shape else [low, feature]
