"""The deformable convolution of the network, which predicts its own offsets and modulation.

Shapes: B batch, C input channels, O output channels, P channels after a projection, H W map, h some of its rows,
K = kernel height * kernel width sampling points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..ops.deform_conv import add_deform_conv2d, deform_conv2d
from ..ops.execution import row_chunks
from ..ops.split_conv import conv2d_rows
from .layers import set_weights


class DeformableConv2d(nn.Module):
    """Deformable convolution that predicts its own offsets and modulation from its input.

    Departure from DCNv2: the modulation is 2 * sigmoid, in (0, 2), as in the published network.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        points, padding = kernel_size**2, kernel_size // 2
        self.offset: nn.Conv2d | None = nn.Conv2d(in_channels, 2 * points, kernel_size, padding=padding)
        self.modulator: nn.Conv2d | None = nn.Conv2d(in_channels, points, kernel_size, padding=padding)
        self.predictor: nn.Conv2d | None = None  # both of them as one convolution, once fused
        self.kernel = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        for predictor in (self.offset, self.modulator):  # start as a plain convolution
            for parameter in predictor.parameters():
                nn.init.zeros_(parameter)

    @property
    def padding(self) -> int:
        """Rows and columns of zeros around the map."""
        return self.kernel.kernel_size[0] // 2

    def forward(self, x: Tensor) -> Tensor:
        """B, C, H, W -> B, O, H, W."""
        offset, mask = self._predict(x, slice(0, x.shape[2]))
        kernel = self.kernel
        return deform_conv2d(x, offset, kernel.weight, mask=mask, bias=kernel.bias, padding=self.padding)

    def add_to(self, total: Tensor, x: Tensor, projection: Tensor) -> Tensor:
        """Adds ReLU and a 1 x 1 convolution of what ``forward`` gives, without making that map; for inference.

        Args:
            total: B, P, H, W; changed in place.
            x: B, C, H, W.
            projection: Weight of the 1 x 1 convolution, P, O.

        Returns:
            ``total``.
        """
        points = math.prod(self.kernel.kernel_size)
        for rows in row_chunks(x.shape[2], 3 * points * x.shape[3] * x.shape[0], "deform_offsets", x.device):
            offset, mask = self._predict(x, rows)
            add_deform_conv2d(
                total, x, offset, self.kernel.weight, mask=mask, bias=self.kernel.bias, padding=self.padding,
                activation="relu", projection=projection, first_row=rows.start,
            )  # fmt: skip
        return total

    def _predict(self, x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Offsets B, 2K, h, W and modulation B, K, h, W of some output rows."""
        if self.predictor is not None:
            predicted = conv2d_rows(x, self.predictor.weight, self.predictor.bias, rows)
            offset, modulation = predicted.split([predicted.shape[1] // 3 * 2, predicted.shape[1] // 3], dim=1)
        else:
            assert self.offset is not None and self.modulator is not None
            offset = conv2d_rows(x, self.offset.weight, self.offset.bias, rows)
            modulation = conv2d_rows(x, self.modulator.weight, self.modulator.bias, rows)
        return offset, 2 * torch.sigmoid(modulation)

    def fuse(self) -> None:
        """Merges the convolutions that predict offsets and modulation into one."""
        if self.offset is None or self.modulator is None:
            return
        parts = self.offset, self.modulator
        biases = [part.bias for part in parts if part.bias is not None]
        self.predictor, self.offset, self.modulator = self.offset, None, None
        self.predictor.out_channels += parts[1].out_channels
        set_weights(self.predictor, torch.cat([part.weight for part in parts]), torch.cat(biases))
