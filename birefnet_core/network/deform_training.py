"""The deformable convolution of a CPU in training: ``bag_route`` with a backward pass by hand.

Both passes treat the maps of a batch as one table, in pieces of some output positions; the backward pass makes the
columns again instead of keeping them. Its gradients are those of the definition:

- of the kernel and of the columns: matrix products;
- of the map: each cell gathers the columns' gradients from the samples beside it, sorted by cell. That is a weighted
  bag again, so it is as vectorised as the forward pass, and sums in a fixed order;
- of positions and factors: from the four shares, whose gradients are products of a column's gradient with a cell.

Shapes: B batch, C input channels, O output channels, H W input map, Ho Wo output map, P = B * Ho * Wo output
positions, K = kernel height * kernel width sampling points, R positions of a piece, S = R * K samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from .deform_routes import Geometry

# Elements of the columns made at once: with their gradients, they should stay in the cache of a CPU.
COLUMN_BUDGET = 2 * 2**20


class Axis(NamedTuple):
    """Samples along one axis: the two neighbours of each. All R, K.

    Attributes:
        cells: Their places, brought into the map; int32.
        shares: What each contributes, zero outside the map.
        inside: Whether they are in the map.
    """

    cells: tuple[Tensor, Tensor]
    shares: tuple[Tensor, Tensor]
    inside: tuple[Tensor, Tensor]


class BagFunction(torch.autograd.Function):
    """Keeps its inputs only. In autocast the matrix products of both passes have its precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
        kind = x.device.type
        narrow = torch.is_autocast_enabled(kind) and x.dtype == torch.float32
        ctx.precision = torch.get_autocast_dtype(kind) if narrow else x.dtype
        ctx.save_for_backward(x, offset, weight, mask)
        ctx.geometry = geometry
        samples = Samples(x, offset, mask, weight, geometry)
        kernel = _kernel(weight).to(ctx.precision)  # K*C O
        out = x.new_empty(samples.positions, kernel.shape[1], dtype=ctx.precision)  # P O
        with torch.autocast(kind, enabled=False):
            for piece in samples.pieces():
                index, share, *_ = samples.corners(piece)
                columns = F.embedding_bag(index, samples.table, mode="sum", per_sample_weights=share)  # S C
                torch.mm(columns.view(-1, kernel.shape[0]).to(ctx.precision), kernel, out=out[piece])
        return samples.as_map(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, offset, weight, mask = ctx.saved_tensors
        samples = Samples(x, offset, mask, weight, ctx.geometry)
        kernel = _kernel(weight).t().to(ctx.precision).contiguous()  # O K*C
        by_out = gradient.to(ctx.precision).permute(0, 2, 3, 1).reshape(samples.positions, -1)  # P O
        by_table, by_kernel = torch.zeros_like(samples.table), torch.zeros_like(kernel, dtype=x.dtype)
        by_offset = torch.empty_like(samples.offset)  # P K 2
        by_factor = None if samples.factor is None else torch.empty_like(samples.factor)  # P K
        table = samples.table.detach().requires_grad_()  # torch 2.4 fails where the shares alone want gradients
        for piece in samples.pieces():
            index, share, y_axis, x_axis = samples.corners(piece)
            share.requires_grad_()
            with torch.enable_grad():
                columns = F.embedding_bag(index, table, mode="sum", per_sample_weights=share)  # S C
            by_rows = by_out[piece]  # R O
            flat = columns.detach().view(len(by_rows), -1).to(ctx.precision)  # R K*C
            by_kernel += torch.mm(by_rows.t(), flat)
            by_columns = torch.mm(by_rows, kernel).to(x.dtype).view_as(columns)  # S C
            (by_share,) = torch.autograd.grad(columns, share, by_columns)  # S 4
            samples.add_to_cells(by_table, piece, index, share.detach(), by_columns)
            factor = None if samples.factor is None else samples.factor[piece]
            by_y, by_x, by_one = _by_place(by_share.view(*y_axis.cells[0].shape, 4), y_axis, x_axis, factor)
            by_offset[piece, :, 0], by_offset[piece, :, 1] = by_y, by_x
            if by_factor is not None and by_one is not None:
                by_factor[piece] = by_one
        by_weight = by_kernel.view(-1, *weight.shape[2:], x.shape[1]).permute(0, 3, 1, 2)  # O C kernel height, width
        by_weight = by_weight.contiguous()  # laid out as the kernel, which several processes' buckets expect
        by_image = by_table.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
        by_moves = samples.as_map(by_offset.flatten(1))
        return by_image, by_moves, by_weight, None if by_factor is None else samples.as_map(by_factor), None


class Samples:
    """Where the samples of a batch fall, and what they read.

    Attributes:
        table: B*H*W, C: the cells of all maps.
        offset: P, K, 2: row and column by which each sample is moved.
        factor: P, K, or None.
        positions: P.
    """

    def __init__(self, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry) -> None:
        self.batch, self.channels, self.height, self.width = x.shape
        self.out_size, self.kernel_size, self.geometry = tuple(offset.shape[2:]), tuple(weight.shape[2:]), geometry
        self.points = weight.shape[2] * weight.shape[3]
        self.positions = self.batch * self.out_size[0] * self.out_size[1]
        self.table = x.detach().permute(0, 2, 3, 1).reshape(-1, self.channels)
        self.offset = offset.detach().permute(0, 2, 3, 1).reshape(self.positions, self.points, 2)
        self.factor = None if mask is None else mask.detach().permute(0, 2, 3, 1).reshape(self.positions, self.points)

    def pieces(self) -> Iterator[slice]:
        """Output positions to be done at once; at most one row where a row alone is beyond the budget."""
        budget = self.geometry.column_budget or COLUMN_BUDGET
        step = max(1, budget // (self.points * self.channels))
        count = -(-self.positions // step)
        step = -(-self.positions // count)  # all of about the same size
        return (slice(a, min(a + step, self.positions)) for a in range(0, self.positions, step))

    def corners(self, piece: slice) -> tuple[Tensor, Tensor, Axis, Axis]:
        """Index (int32) into the table and share of the four cells around each sample, S, 4; and both axes."""
        device, dtype = self.offset.device, self.offset.dtype
        (stride_y, stride_x), (pad_y, pad_x), (step_y, step_x) = (
            self.geometry.stride, self.geometry.padding, self.geometry.dilation
        )  # fmt: skip
        place = torch.arange(piece.start, piece.stop, dtype=torch.int32, device=device).unsqueeze(1)  # R 1
        point = torch.arange(self.points, dtype=torch.int32, device=device)  # K
        out_h, out_w = self.out_size
        row = place // out_w % out_h + self.geometry.top
        top = row * stride_y - pad_y + point // self.kernel_size[1] * step_y  # R K
        left = place % out_w * stride_x - pad_x + point % self.kernel_size[1] * step_x
        y_axis = _axis(self.offset[piece, :, 0] + top.to(dtype), self.height)
        x_axis = _axis(self.offset[piece, :, 1] + left.to(dtype), self.width)
        first = place // (out_h * out_w) * (self.height * self.width)  # R 1, of each image in the table
        index = torch.empty(*top.shape, 4, dtype=torch.int32, device=device)
        share = torch.empty(*top.shape, 4, dtype=dtype, device=device)
        corner = 0
        for cell, share_y in zip(y_axis.cells, y_axis.shares, strict=True):
            start = cell * self.width + first
            if self.factor is not None:
                share_y = share_y * self.factor[piece]
            for column, share_x in zip(x_axis.cells, x_axis.shares, strict=True):
                torch.add(start, column, out=index[..., corner])
                torch.mul(share_y, share_x, out=share[..., corner])
                corner += 1
        return index.view(-1, 4), share.view(-1, 4), y_axis, x_axis

    def add_to_cells(self, by_table: Tensor, piece: slice, index: Tensor, share: Tensor, by_columns: Tensor) -> None:
        """Gives the cells their shares in the gradients of the columns S, C."""
        area, cells = self.out_size[0] * self.out_size[1], self.height * self.width
        start, stop = piece.start // area * cells, -(-piece.stop // area) * cells  # of the images in this piece
        ordered, order = index.flatten().sort()
        edges = torch.arange(start, stop + 1, dtype=index.dtype, device=index.device)
        by_table[start:stop] += F.embedding_bag(
            order >> 2,  # four shares a sample
            by_columns,
            torch.searchsorted(ordered, edges),
            mode="sum",
            per_sample_weights=share.flatten()[order],
            include_last_offset=True,
        )

    def as_map(self, rows: Tensor) -> Tensor:
        """P, N -> B, N, Ho, Wo, channels last in memory."""
        return rows.view(self.batch, *self.out_size, -1).permute(0, 3, 1, 2)


def _kernel(weight: Tensor) -> Tensor:
    """O, C, kernel height, kernel width -> K*C, O, in the order of the columns."""
    return weight.detach().permute(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _axis(place: Tensor, length: int) -> Axis:
    """Neighbours of the samples along an axis of the map. A place that is no number has shares that are none."""
    low = place.floor()
    part = place - low
    inside = ((low >= 0) & (low < length), (low >= -1) & (low < length - 1))
    cell = low.to(torch.int32)
    cells = (cell.clamp(0, length - 1), (cell + 1).clamp_(0, length - 1))
    return Axis(cells, ((1 - part) * inside[0], part * inside[1]), inside)


def _by_place(
    by_share: Tensor, y_axis: Axis, x_axis: Axis, factor: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of rows, columns and factors, R, K each, from those of the shares, R, K, 4."""
    upper_left, upper_right, lower_left, lower_right = by_share.unbind(-1)
    (up, down), (left, right) = y_axis.shares, x_axis.shares
    by_up, by_down = upper_left * left + upper_right * right, lower_left * left + lower_right * right
    by_left, by_right = upper_left * up + lower_left * down, upper_right * up + lower_right * down
    by_y = by_down * y_axis.inside[1] - by_up * y_axis.inside[0]
    by_x = by_right * x_axis.inside[1] - by_left * x_axis.inside[0]
    if factor is None:
        return by_y, by_x, None
    return by_y * factor, by_x * factor, by_up * up + by_down * down
