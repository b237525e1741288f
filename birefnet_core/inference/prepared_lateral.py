"""Lateral connections, prepared for inference.

A stage of the decoder reads ``lateral(level) + upsampled(feature)``. A level may be two joined maps, of the image and
of the half-size image upsampled, or a plain vision transformer's, which is coarser than the stage. Both ways here leave
coarse maps in their own size as long as nothing but linear operations reads them.

Shapes: B batch, C channels of a level, O of the sum, P of a block's inside, h w the stage's map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..network.layers import laid_out, resize
from ..ops import execution
from .folding import conv_from, padding_of, split_inputs
from .strips import add_conv

LEAST_CHANNELS = 16  # fewer are multiplied too slowly


class Connection(NamedTuple):
    """A lateral connection as it is before.

    Attributes:
        conv: C -> O, 1 x 1, with bias.
        maps: Maps that make up the level, of as many channels each.
        coarse: Whether all of them are coarser than the stage; otherwise the first one is of its size.
    """

    conv: nn.Conv2d
    maps: int
    coarse: bool = False

    def parts(self) -> tuple[list[nn.Conv2d], list[nn.Conv2d]]:
        """The convolution cut into those of the maps: of the stage's size, and coarser. The first has the bias."""
        parts = split_inputs(self.conv, [self.conv.in_channels // self.maps] * self.maps)
        fine = 0 if self.coarse else 1
        return parts[:fine], parts[fine:]


class PreparedLateral(nn.Module):
    """The sum, for blocks that read it more than once."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.fine, self.coarse = map(nn.ModuleList, connection.parts())

    def forward(self, level: list[Tensor], feature: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps of a level and B, O, h', w' -> B, O, h, w."""
        shares = (resize(low, size) for low in _lows(self.coarse, level, feature))
        total = self.fine[0](level[0]) if len(self.fine) else next(shares)
        for share in shares:
            total.add_(share)
        return total


class PreparedEntry(nn.Module):
    """The sum and the convolution that alone reads it, without ever making the sum."""

    def __init__(self, connection: Connection, conv: nn.Conv2d) -> None:
        """Merges a lateral connection into the convolution after it, O -> P with bias, k x k."""
        super().__init__()
        fine, coarse = connection.parts()
        self.fine = self.inside = self.bias = None
        self.coarse = nn.ModuleList(coarse)
        self.weight = nn.Parameter(conv.weight.detach().clone(), requires_grad=False)
        if not fine:
            self.bias = conv.bias
            return
        assert fine[0].bias is not None
        weight, dtype = conv.weight.float(), conv.weight.dtype  # P O k k
        merged = torch.einsum("poyx,oc->pcyx", weight, fine[0].weight[:, :, 0, 0].float())
        self.fine = conv_from(merged.to(dtype), conv.bias, padding_of(conv))
        # The lateral's bias is there inside of the map only, and zero in the padding around it.
        inside = torch.einsum("poyx,o->pyx", weight, fine[0].bias.float()).unsqueeze(1)
        self.inside = nn.Parameter(inside.to(dtype), requires_grad=False)  # P 1 k k

    def forward(self, level: list[Tensor], feature: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps of a level and B, O, h', w' -> B, P, h, w."""
        if self.fine is None:
            total = laid_out(self.weight.new_zeros(1, len(self.weight), 1, 1).expand(len(feature), -1, *size))
            if self.bias is not None:
                total.add_(self.bias[:, None, None])
        else:
            assert self.inside is not None
            total = self.fine(level[0])
            add_conv(total, total.new_ones(1, 1, *size), self.inside)
        for low in _lows(self.coarse, level, feature):
            channels = execution.row_chunks(
                low.shape[1], size[0] * size[1], "upsampled", low.device, minimum=LEAST_CHANNELS, always=True
            )
            for some in channels:
                add_conv(total, resize(laid_out(low[:, some]), size), self.weight[:, some])
        return total


def _lows(convs: nn.ModuleList, level: list[Tensor], feature: Tensor) -> list[Tensor]:
    """What is to be upsampled: the feature, and the projected coarse maps, added up where their sizes are equal."""
    lows = [feature]
    for conv, one in zip(convs, level[len(level) - len(convs) :], strict=True):
        low = conv(one)
        lows[0:1] = [low.add_(lows[0])] if low.shape == lows[0].shape else [low, lows[0]]
    return lows
