"""Deformable convolution by torchvision's compiled operator.

Shapes: B batch, C input channels, O output channels, H W input map, Ho Wo output map, K sampling points.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d as operator

from .. import execution
from ..deform_sampling import Geometry, position_dtype
from .epilogue import Epilogue


@cache
def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Whether this installation has the operator, which torchvision keeps apart from its Python code."""
    if device.type not in ("cpu", "cuda", "meta"):
        return f"torchvision has no deform_conv2d for {device.type}"
    try:
        x = torch.zeros(1, 1, 1, 1, dtype=torch.float32, device="cpu")
        operator(x, x.new_zeros(1, 2, 1, 1), x, mask=x)
    except (RuntimeError, NotImplementedError):
        return "this torchvision has no compiled deform_conv2d"
    return None


def run(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry, epilogue: Epilogue
) -> Tensor:
    """See ``deform_conv2d``; half precision is computed in float32, because the operator's positions are in x's."""
    dtype = x.dtype
    wide = position_dtype(dtype)
    offset, mask = _without_nan(offset.to(wide), None if mask is None else mask.to(wide), x.shape, geometry)
    bias, rest = epilogue.bias, epilogue._replace(bias=None)

    def chunks() -> Iterator[tuple[slice, Tensor]]:
        for rows, y in _chunks(x.to(wide), offset, weight.to(wide), mask, geometry, bias):
            yield rows, rest.finish(y.movedim(1, 3)).movedim(3, 1)

    return epilogue.collect(chunks(), dtype)


def _chunks(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor, geometry: Geometry, bias: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Runs the operator on some output rows at a time, since it makes the columns of all its output rows at once.

    The operator infers its output rows from the map's height and the stride. A larger stride gives fewer; the offsets
    make up for where it would have put them.
    """
    height, rows = x.shape[2] + 2 * geometry.padding[0], offset.shape[2]
    starts = height - geometry.dilation[0] * (weight.shape[2] - 1)  # rows at which the kernel can begin
    per_row = len(x) * offset.shape[3] * max(weight[0].numel(), len(weight))
    most = execution.row_chunks(rows, per_row, "deform_columns", x.device, always=True)[0].stop
    stride = max(geometry.stride[0], -(-starts // most))
    step = (starts - 1) // stride + 1  # output rows with that stride
    bias = None if bias is None else bias.to(x.dtype)
    row = torch.arange(step, dtype=offset.dtype, device=offset.device)
    for start in range(0, rows, step):
        chunk = slice(start, min(start + step, rows))
        missing = step - (chunk.stop - chunk.start)
        moved = (geometry.first_row + start + row) * geometry.stride[0] - row * stride  # step
        dy, dx = F.pad(offset[:, :, chunk], (0, 0, 0, missing)).unflatten(1, (-1, 2)).unbind(2)  # B K step Wo
        some = torch.stack([dy + moved[:, None], dx], dim=2).flatten(1, 2)
        factors = F.pad(mask[:, :, chunk], (0, 0, 0, missing))
        strides = stride, geometry.stride[1]
        y = operator(x, some, weight, bias, strides, geometry.padding, geometry.dilation, factors)
        yield chunk, y[:, :, : chunk.stop - chunk.start]


def _without_nan(
    offset: Tensor, mask: Tensor | None, map_shape: torch.Size, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """Puts NaN of offsets into the mask, and brings offsets into a range that is safe to cast to integers.

    On a CPU the operator ends the process at an offset that is NaN.

    Args:
        offset: B, 2K, Ho, Wo.
        mask: B, K, Ho, Wo, or None for ones.
        map_shape: Of the input, B, C, H, W.
        geometry: Where the points are before they are moved.
    """
    nan = offset.detach().unflatten(1, (-1, 2)).isnan().any(dim=2)  # B K Ho Wo
    mask = torch.where(nan, float("nan"), torch.ones_like(nan, dtype=offset.dtype) if mask is None else mask)
    outside = 2.0 * max(size + 2 * pad + 1 for size, pad in zip(map_shape[2:], geometry.padding, strict=True))
    return offset.nan_to_num(nan=outside).clamp(-outside, outside), mask
