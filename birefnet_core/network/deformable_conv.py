"""The deformable convolution of the network, which predicts its own offsets and modulation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.deform_conv import deform_conv2d


class DeformableConv2d(nn.Module):
    """Deformable convolution that predicts its own offsets and modulation from its input.

    Departure from DCNv2: the modulation is 2 * sigmoid, in (0, 2), as in the published network.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        points, padding = kernel_size**2, kernel_size // 2
        self.padding = padding
        self.offset = nn.Conv2d(in_channels, 2 * points, kernel_size, padding=padding)
        self.modulator = nn.Conv2d(in_channels, points, kernel_size, padding=padding)
        self.kernel = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        for predictor in (self.offset, self.modulator):  # start as a plain convolution
            for parameter in predictor.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, H, W -> B, O, H, W."""
        mask = 2 * torch.sigmoid(self.modulator(x))
        return deform_conv2d(x, self.offset(x), self.kernel.weight, mask=mask, padding=self.padding)
