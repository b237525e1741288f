"""The ASPP of a reconstruction block, prepared for inference.

The published block computes five maps of 256 channels, joins them to 1280, and brings them to 64 by a
1 x 1 convolution. Here each branch is brought to 64 channels at once and added up, in chunks of rows
for the deformable ones, so that no map of 256 channels ever exists as a whole.

Shapes: B batch, C = 64 channels, H W map, K sampling points of a kernel, n positions of a chunk.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network.deformable_conv import DeformableConv2d
from ..network.layers import laid_out
from ..network.reconstruction_block import Aspp, AsppBranch
from ..ops import execution
from ..ops.deform_conv import add_deform_conv2d
from .folding import conv_from, fold_norm, padding_of
from .strips import conv_rows


class PreparedAspp(nn.Module):
    """Aspp with norms folded in and without its 1280-channel map."""

    def __init__(self, aspp: Aspp) -> None:
        super().__init__()
        fuse = fold_norm(aspp.conv, aspp.norm)
        shares = fuse.weight[:, :, 0, 0].chunk(len(aspp.branches) + 1, dim=1)  # of C 256 each
        self.branches = nn.ModuleList(_branch(b, share) for b, share in zip(aspp.branches, shares, strict=False))
        self.pool = fold_norm(aspp.pool.conv, aspp.pool.norm)
        self.pool_projection = conv_from(shares[-1][..., None, None], fuse.bias, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, H, W (laid out as convolutions want it) -> the same."""
        pooled = F.relu(self.pool(x.mean(dim=(2, 3), keepdim=True)))
        total = laid_out(self.pool_projection(pooled).expand_as(x))
        for branch in self.branches:
            cast("PreparedPlainBranch | PreparedDeformableBranch", branch).add_to(total, x)
        return total.relu_()


def _branch(branch: nn.Module, projection: Tensor) -> nn.Module:
    assert isinstance(branch, AsppBranch)
    if isinstance(branch.conv, DeformableConv2d):
        return PreparedDeformableBranch(branch, projection)
    return PreparedPlainBranch(branch, projection)


class PreparedPlainBranch(nn.Module):
    """A branch with an ordinary convolution."""

    def __init__(self, branch: AsppBranch, projection: Tensor) -> None:
        super().__init__()
        assert isinstance(branch.conv, nn.Conv2d)
        self.conv = fold_norm(branch.conv, branch.norm)
        self.projection = conv_from(projection[..., None, None], None, padding=0)

    def add_to(self, total: Tensor, x: Tensor) -> None:
        """Adds the branch, brought to C channels, to ``total``."""
        total.add_(self.projection(F.relu_(self.conv(x))))


class PreparedDeformableBranch(nn.Module):
    """A branch with a deformable convolution; offsets and modulation come from one convolution."""

    def __init__(self, branch: AsppBranch, projection: Tensor) -> None:
        super().__init__()
        conv = branch.conv
        assert isinstance(conv, DeformableConv2d)
        kernel = fold_norm(conv.kernel, branch.norm)
        self.padding = padding_of(conv.kernel)
        self.kernel, self.bias = kernel.weight, kernel.bias
        self.projection = nn.Parameter(projection.detach().clone(), requires_grad=False)
        assert conv.offset.bias is not None and conv.modulator.bias is not None
        weight = torch.cat([conv.offset.weight, conv.modulator.weight])
        self.predictor = conv_from(weight, torch.cat([conv.offset.bias, conv.modulator.bias]), self.padding)

    def add_to(self, total: Tensor, x: Tensor) -> None:
        """Adds the branch, brought to C channels, to ``total``."""
        points = self.kernel.shape[2] * self.kernel.shape[3]
        height, width = x.shape[2:]
        for rows in execution.row_chunks(height, len(x) * width * 3 * points, "deform_offsets", x.device):
            predicted = conv_rows(x, self.predictor.weight, self.predictor.bias, rows.start, rows.stop)
            offset, modulation = predicted.split([2 * points, points], dim=1)
            add_deform_conv2d(
                total, x, offset, self.kernel, mask=2 * torch.sigmoid(modulation.float()), bias=self.bias,
                padding=self.padding, activation="relu", projection=self.projection, first_row=rows.start,
            )  # fmt: skip
