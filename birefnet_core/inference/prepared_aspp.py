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

from ..network.deform_conv import DeformableConv2d, deform_conv2d
from ..network.deform_routes import COLUMN_BUDGETS, best_route, rows_at_once
from ..network.layers import laid_out
from ..network.reconstruction_block import Aspp, AsppBranch
from .folding import conv_from, fold_norm, padding_of
from .products import linear
from .strips import conv_rows

# Elements of a chunk's columns, or of its fields where those are more, on the CPU: they should stay in the cache until
# they are multiplied, and be enough for all cores.
CHUNK_ELEMENTS = 3 * 2**20
# Rows whose offsets are predicted at once: the fewer, the less memory; the more, the fewer rows are read twice.
STRIP_ROWS = 32


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
        self.column_budget: int | None = None  # set where memory is short; see PreparedBiRefNet.spare_memory
        self.kernel = kernel.weight
        zeros = kernel.weight.new_zeros(len(kernel.weight))
        self.bias = kernel.bias if kernel.bias is not None else nn.Parameter(zeros, requires_grad=False)
        self.projection = nn.Parameter(projection.detach().clone(), requires_grad=False)
        # Rows (y and x of each point, point by point, then modulation) are regrouped to all y, all x, modulation.
        offset_weight, offset_bias = conv.offset.weight, conv.offset.bias
        assert offset_bias is not None and conv.modulator.bias is not None
        weight = torch.cat([offset_weight[0::2], offset_weight[1::2], conv.modulator.weight])
        bias = torch.cat([offset_bias[0::2], offset_bias[1::2], conv.modulator.bias])
        self.predictor = conv_from(weight, bias, self.padding)

    def add_to(self, total: Tensor, x: Tensor) -> None:
        """Adds the branch, brought to C channels, to ``total``."""
        route = best_route(x.device)
        if torch.compiler.is_compiling() or (route == "bag" and self.column_budget):  # also while exporting
            route = "pure"
        if route == "bag":
            for i in range(len(x)):
                self._add_by_bags(total[i], x[i])
            return
        predicted = self.predictor(x)  # B 3K H W
        kernel, bias = self.kernel, self.bias
        if x.dtype in (torch.float16, torch.bfloat16):  # as deform_conv2d would, once for each strip
            x, kernel, bias = x.float(), kernel.float(), bias.float()
        height, width = x.shape[2:]
        step = height
        if not torch.compiler.is_compiling():
            budget = self.column_budget or COLUMN_BUDGETS[route]
            step = budget // (len(x) * width * max(kernel[0].numel(), len(kernel)))
            step = rows_at_once(height - 1, step) if route == "torchvision" else max(1, step)
        for top in range(0, height, step):
            dy, dx, modulator = predicted[:, :, top : top + step].chunk(3, dim=1)
            offset = torch.stack([dy, dx], dim=2).flatten(1, 2)  # B 2K h W
            mask = 2 * torch.sigmoid(modulator)
            y = deform_conv2d(
                x, offset, kernel, mask=mask, bias=bias, padding=self.padding, top=top,
                route=route, column_budget=self.column_budget,
            )  # fmt: skip
            share = F.conv2d(F.relu_(y).to(total.dtype), self.projection[..., None, None])
            total[:, :, top : top + step].add_(share)

    def _add_by_bags(self, total: Tensor, x: Tensor) -> None:
        """One image on the CPU, in chunks of rows; see ``deform_routes.bag_route``.

        Args:
            total: C, H, W, channels last in memory; added to in place.
            x: C, H, W.
        """
        channels, height, width = x.shape
        size, points = self.kernel.shape[2], self.kernel.shape[2] * self.kernel.shape[3]
        # Zeros around the map take the place of every test whether a neighbour is inside.
        table = F.pad(x.float().permute(1, 2, 0), (0, 0, 1, 2, 1, 2)).view(-1, channels)  # (H+3)*(W+3) C
        stride = width + 3
        kernel = self.kernel.float().permute(0, 2, 3, 1).reshape(-1, points * channels)  # O K*C
        bias, projection = self.bias.float(), self.projection.float().t()  # O; O C
        point = torch.arange(size, dtype=torch.float32) - self.padding
        point_y, point_x = point.repeat_interleave(size), point.repeat(size)  # K each
        column = (torch.arange(width, dtype=torch.float32)[:, None] + point_x).repeat(1, 1)  # W K
        neighbours = torch.tensor([0, 1, stride, stride + 1], dtype=torch.int32)
        first = stride + 1  # row of the table that holds position (0, 0)
        sums = total.permute(1, 2, 0).view(-1, channels)  # H*W C

        rows = max(1, CHUNK_ELEMENTS // (width * max(points * channels, len(kernel))))
        strip = max(1, STRIP_ROWS // rows) * rows
        for top in range(0, height, rows):
            if top % strip == 0:
                predicted = self._predict(x, top, min(top + strip, height))
            part = predicted[top % strip : top % strip + rows]
            dy, dx, modulator = part.split(points, dim=-1)  # h W K each
            row = torch.arange(top, top + len(part), dtype=torch.float32)[:, None] + point_y  # h K
            y = (dy + row[:, None]).clamp_(-1, height)
            x_ = (dx + column).clamp_(-1, width)
            y0, x0 = y.floor(), x_.floor()
            index = torch.add(x0, y0, alpha=stride).to(torch.int32).add_(first)  # h W K
            down, right = y.sub_(y0), x_.sub_(x0)
            factor = torch.sigmoid(modulator).mul_(2)
            low = factor * down
            high = factor.sub_(low)
            low_right, high_right = low * right, high * right
            shares = torch.stack([high.sub_(high_right), high_right, low.sub_(low_right), low_right], dim=-1)
            columns = F.embedding_bag(
                index.view(-1, 1) + neighbours, table, mode="sum", per_sample_weights=shares.view(-1, 4)
            )  # h*W*K C
            fields = linear(columns.view(-1, points * channels), kernel, bias, "relu")  # n O
            into = sums[top * width : top * width + len(fields)]
            if into.dtype == torch.float32:
                into.addmm_(fields, projection)
            else:
                into.add_((fields @ projection).to(into.dtype))

    def _predict(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """Rows, columns and modulation of the samples in some rows.

        Args:
            x: C, H, W.
            top: First row.
            bottom: Last row + 1.

        Returns:
            h, W, 3K float32.
        """
        predicted = conv_rows(x[None], self.predictor.weight, self.predictor.bias, top, bottom)[0]  # 3K h W
        return predicted.permute(1, 2, 0).contiguous().float()
