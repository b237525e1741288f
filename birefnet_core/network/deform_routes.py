"""Routes of the deformable convolution: the same result by different means, for different devices.

Shapes: B batch, C input channels, O output channels, H W input map, Ho Wo output map,
K = kernel height * kernel width sampling points, h output rows of a chunk, S = h * Wo * K samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError
from .deform_training import BagFunction

# Largest column buffer (samples times channels) made at once, in elements. On the CPU the columns
# should stay in the cache between sampling and the matrix product; elsewhere fewer, larger steps are faster.
# The pure route holds two such buffers at a time.
COLUMN_BUDGETS = {"bag": 4 * 2**20, "pure": 16 * 2**20, "torchvision": 32 * 2**20}


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where the kernel's points fall before they are moved, (vertical, horizontal) each, and how much is done at once.

    Attributes:
        column_budget: Elements of the largest column buffer; None for the route's own choice.
        top: The output row that offsets begin with, where they are those of some rows only.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    column_budget: int | None = None
    top: int = 0


@cache
def torchvision_operator() -> Callable[..., Tensor] | None:
    """torchvision's compiled operator, or None where this installation has none."""
    try:
        from torchvision.ops import deform_conv2d as operator

        x = torch.zeros(1, 1, 1, 1)
        operator(x, torch.zeros(1, 2, 1, 1), x, mask=x)
    except (ImportError, RuntimeError, NotImplementedError):
        return None
    return operator


def torchvision_route(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
    """torchvision's compiled operator: the best there is on CUDA."""
    operator = torchvision_operator()
    if operator is None:
        raise ConfigError("route='torchvision': this torchvision has no compiled deform_conv2d; use route='auto'.")
    # Row of the padded map at which the kernel can begin last.
    last = x.shape[2] + 2 * geometry.padding[0] - geometry.dilation[0] * (weight.shape[2] - 1) - 1
    rows = offset.shape[2]
    budget = (geometry.column_budget or COLUMN_BUDGETS["torchvision"]) // (len(x) * weight[0].numel() * offset.shape[3])
    if geometry.top == 0 and rows == last // geometry.stride[0] + 1 and rows <= budget:
        return operator(x, offset, weight, None, geometry.stride, geometry.padding, geometry.dilation, mask)
    # It makes the columns of all output rows at once, and infers how many those are from the map's height and the
    # stride. With a larger stride there are fewer; where they fall is set right by the offsets.
    most, parts, first = rows_at_once(last, budget), [], 0
    while first < rows:
        wanted = min(most, rows - first)
        stride = last // (wanted - 1) if wanted > 1 else last + 1  # the largest that gives as many
        surplus = last // stride + 1 - wanted
        some = F.pad(offset[:, :, first : first + wanted], (0, 0, 0, surplus)).unflatten(1, (-1, 2))  # B K 2 h Wo
        row = torch.arange(wanted + surplus, dtype=offset.dtype, device=offset.device)
        moved = (geometry.top + first + row) * geometry.stride[0] - row * stride  # h
        some = torch.stack([some[:, :, 0] + moved[:, None], some[:, :, 1]], dim=2).flatten(1, 2)
        factors = None if mask is None else F.pad(mask[:, :, first : first + wanted], (0, 0, 0, surplus))
        strides = stride, geometry.stride[1]
        y = operator(x, some, weight, None, strides, geometry.padding, geometry.dilation, factors)
        parts.append(y[:, :, :wanted])
        first += wanted
    return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]


def rows_at_once(last: int, budget: int) -> int:
    """The most output rows within a budget that the operator can be made to do by a stride.

    Args:
        last: Row of the padded map at which the kernel can begin last.
        budget: Rows; at least one is done.
    """
    return last // (last // max(1, budget) + 1) + 1


def _added(total: Tensor, share: Tensor) -> Tensor:
    """The sum, in place where no gradients are wanted."""
    return total + share if torch.is_grad_enabled() else total.add_(share)


def pure_route(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
    """Plain gathers and a matrix product: runs on every device, and can be exported."""
    batch, channels = x.shape[:2]
    points = weight.shape[2] * weight.shape[3]
    kernel = weight.reshape(weight.shape[0], channels * points)
    table = x.flatten(2)  # B C H*W

    def chunk(rows: slice, table: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        samples = _place_samples(offset, mask, weight.shape[2:], geometry, rows)
        columns: Tensor | None = None  # B C K*h*Wo
        for index, share in _corners(*samples, x.shape[2:]):  # B K h Wo each
            index = index.flatten(1).unsqueeze(1).expand(-1, channels, -1)
            share = share.flatten(1).unsqueeze(1)
            corner = table.gather(2, index)
            corner = corner * share if torch.is_grad_enabled() else corner.mul_(share)
            columns = corner if columns is None else _added(columns, corner)
            del corner  # before the next one comes
        assert columns is not None
        product = kernel @ columns.reshape(batch, channels * points, -1)  # B O h*Wo
        return product.unflatten(2, (-1, offset.shape[3]))  # B O h Wo

    at_once = 1 if torch.compiler.is_compiling() else batch  # a file whose batch is open has the same pieces for all
    budget = (geometry.column_budget or COLUMN_BUDGETS["pure"]) // (at_once * channels * points * offset.shape[3])
    return torch.cat([_run(chunk, r, table, offset, mask) for r in _row_chunks(offset.shape[2], budget)], dim=2)


def bag_route(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
    """The map as a table of H * W rows; each sample is a weighted bag of its four neighbours' rows.

    On the CPU the rows of a sample's neighbours lie together in memory, and one vectorised kernel
    (``embedding_bag``) gathers, weighs and adds them.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, offset, weight, mask)):
        return BagFunction.apply(x, offset, weight, mask, geometry)
    return _bag_forward(x, offset, weight, mask, geometry)


def _bag_forward(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
    out_h, out_w = offset.shape[2:]
    kernel = weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0])  # K*C O, in the order of the columns
    budget = (geometry.column_budget or COLUMN_BUDGETS["bag"]) // (weight[0].numel() * out_w)
    out = x.new_empty(x.shape[0], out_h * out_w, weight.shape[0])  # B Ho*Wo O
    for i in range(x.shape[0]):
        table = x[i].flatten(1).t().contiguous()  # H*W C
        one_mask = None if mask is None else mask[i : i + 1]
        for rows in _row_chunks(out_h, budget):
            index, share = _bag_samples(offset[i : i + 1], one_mask, weight.shape[2:], geometry, rows, x.shape[2:])
            columns = F.embedding_bag(index, table, mode="sum", per_sample_weights=share)  # S C
            into = out[i, rows.start * out_w : rows.stop * out_w]
            torch.mm(columns.view(-1, kernel.shape[0]), kernel, out=into)
    return out.view(x.shape[0], out_h, out_w, -1).permute(0, 3, 1, 2)  # B O Ho Wo, channels last in memory


def _bag_samples(
    offset: Tensor,
    mask: Tensor | None,
    kernel_size: torch.Size,
    geometry: Geometry,
    rows: slice,
    size: torch.Size,
) -> tuple[Tensor, Tensor]:
    """Bags of one image's output rows: index and share, S, 4, output position major and kernel point minor.

    Args:
        offset: 1, 2K, Ho, Wo.
        mask: 1, K, Ho, Wo, or None.
        kernel_size: Kernel height and width.
        geometry: Where the points fall before they are moved.
        rows: The output rows wanted.
        size: Height and width of the map.
    """
    corners = list(_corners(*_place_samples(offset, mask, kernel_size, geometry, rows), size))
    # So that the columns of a position lie in one row.
    index = torch.stack([index for index, _ in corners], dim=-1)[0].permute(1, 2, 0, 3).reshape(-1, 4)
    share = torch.stack([share for _, share in corners], dim=-1)[0].permute(1, 2, 0, 3).reshape(-1, 4)
    return index, share


def _row_chunks(rows: int, at_once: int) -> Iterator[slice]:
    step = max(1, at_once)
    return (slice(top, min(top + step, rows)) for top in range(0, rows, step))


def _run(chunk: Callable[..., Tensor], rows: slice, *tensors: Tensor | None) -> Tensor:
    """Runs a chunk; for training it is run again in the backward pass, so that its columns need not be kept."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return checkpoint(chunk, rows, *tensors, use_reentrant=False, preserve_rng_state=False)
    return chunk(rows, *tensors)


def _place_samples(
    offset: Tensor,
    mask: Tensor | None,
    kernel_size: torch.Size,
    geometry: Geometry,
    rows: slice,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Row, column and factor of every sample of some output rows.

    Args:
        offset: B, 2K, Ho, Wo.
        mask: B, K, Ho, Wo, or None.
        kernel_size: Kernel height and width.
        geometry: Where the points fall before they are moved.
        rows: The output rows wanted.

    Returns:
        Three of B, K, h, Wo (the last may be None).
    """
    options: dict[str, Any] = {"device": offset.device, "dtype": offset.dtype}
    (stride_y, stride_x), (pad_y, pad_x), (step_y, step_x) = geometry.stride, geometry.padding, geometry.dilation
    point_y = torch.arange(kernel_size[0], **options) * step_y - pad_y
    point_x = torch.arange(kernel_size[1], **options) * step_x - pad_x
    point_y, point_x = (p.reshape(-1, 1, 1) for p in torch.meshgrid(point_y, point_x, indexing="ij"))  # K 1 1
    first = geometry.top
    top = torch.arange(first + rows.start, first + rows.stop, **options).unsqueeze(1) * stride_y  # h 1
    left = torch.arange(offset.shape[3], **options) * stride_x  # Wo
    offset, mask = offset[:, :, rows], None if mask is None else mask[:, :, rows]
    moved = offset.unflatten(1, (-1, 2))  # B K 2 h Wo
    return moved[:, :, 0] + point_y + top, moved[:, :, 1] + point_x + left, mask


def _corners(y: Tensor, x: Tensor, factor: Tensor | None, size: torch.Size) -> Iterator[tuple[Tensor, Tensor]]:
    """The four neighbours of every sample, and the share each has in it; outside the map the share is zero.

    Args:
        y: Rows of the samples, any shape.
        x: Columns, same shape.
        factor: Factors of the samples, same shape, or None for ones.
        size: Height and width of the map.

    Yields:
        Index into the flattened map (int64) and share, both of that shape.
    """
    height, width = size
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left  # in [0, 1)
    if factor is None:
        up_share, down_share = 1 - down, down
    else:
        up_share, down_share = (1 - down) * factor, down * factor
    rows = [_clip(row, height, share) for row, share in ((top, up_share), (top + 1, down_share))]
    columns = [_clip(column, width, share) for column, share in ((left, 1 - right), (left + 1, right))]
    for row, share_y in rows:
        for column, share_x in columns:
            yield row * width + column, share_y * share_x


def _clip(position: Tensor, length: int, share: Tensor) -> tuple[Tensor, Tensor]:
    """An integer position brought into the map, and its share, zero where it was outside."""
    inside = (position >= 0) & (position < length)
    return position.clamp(0, length - 1).long(), share * inside


ROUTES: dict[str, Callable[..., Tensor]] = {
    "torchvision": torchvision_route,
    "bag": bag_route,
    "pure": pure_route,
}


def best_route(device: torch.device) -> str:
    """The fastest route of a device."""
    if device.type == "cpu":
        return "bag"
    return "torchvision" if device.type == "cuda" and torchvision_operator() is not None else "pure"
