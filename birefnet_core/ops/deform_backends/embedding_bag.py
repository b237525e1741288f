"""Deformable convolution by ``torch.nn.functional.embedding_bag``: the fastest on a CPU, and a fallback on CUDA.

Each sample is a bag of its four neighbours, which a single kernel reads, weighs and adds. The channels of a pixel are
next to each other in memory, so that it is vectorised. Samples are in float32. Their product with the kernel is in the
precision of the map on a GPU, which has tensor cores for it, and in float32 on a CPU.

Shapes: B batch, C input channels, O output channels, P channels after the projection, Ho Wo output map, K sampling
points, b h images and output rows of a block, S = b * h * Wo * K samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import execution
from ..deform_sampling import Geometry, Sampler, Samples, crop_from_table, pad_to_table
from .epilogue import Epilogue


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """It runs on CPUs and CUDA devices."""
    return None if device.type in ("cpu", "cuda") else f"embedding_bag has not been tried on {device.type}"


def run(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry, epilogue: Epilogue
) -> Tensor:
    """See ``deform_conv2d``."""
    inputs = (x, offset, weight, mask)
    learned = (t for t in (*inputs, epilogue.bias, epilogue.projection) if t is not None)
    if torch.is_grad_enabled() and any(t.requires_grad for t in learned):
        y = DeformConv2dFunction.apply(*inputs, geometry)  # B Ho Wo O
        return epilogue.finish(y).permute(0, 3, 1, 2).to(x.dtype)
    out = epilogue.into
    if out is None:
        out = x.new_empty(len(x), *offset.shape[2:], epilogue.out_channels(weight)).permute(0, 3, 1, 2)
    _convolve(*inputs, geometry, epilogue, out.permute(0, 2, 3, 1))
    return out


class DeformConv2dFunction(torch.autograd.Function):
    """The convolution, B, Ho, Wo, O, with a backward pass by hand; it keeps its inputs only.

    The backward pass makes the columns again, block by block. Its gradients are those of the definition:

    - of the kernel and of the columns: matrix products;
    - of the map: each pixel sums the gradients of the samples that read it, sorted by pixel. That is an embedding_bag
      again, so it is as vectorised as the forward pass, and sums in a fixed order;
    - of offsets and mask: from those of the bilinear weights, each a product of a column's gradient with a pixel.

    Under autocast the matrix products of both passes are in its precision.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, offset, weight, mask)
        ctx.geometry, ctx.product_dtype = geometry, _product_dtype(x)
        out = x.new_empty(len(x), *offset.shape[2:], len(weight), dtype=ctx.product_dtype)  # B Ho Wo O
        _convolve(x, offset, weight, mask, geometry, Epilogue(), out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, ...]:
        x, offset, weight, mask = ctx.saved_tensors
        table, kernel, sampler = _prepare(x, offset, weight, mask, ctx.geometry)
        by_table, by_kernel = torch.zeros_like(table), torch.zeros_like(kernel)
        kernel, by_out = kernel.to(ctx.product_dtype), by_out.to(ctx.product_dtype)
        by_offset = torch.empty_like(offset, dtype=table.dtype, memory_format=torch.channels_last)
        by_mask = None if mask is None else torch.empty_like(mask, dtype=table.dtype, memory_format=torch.channels_last)
        table.requires_grad_()  # torch 2.4 fails where the weights alone require gradients
        for images, rows in _blocks(offset, weight, buffers=2):
            samples = sampler.samples(images, rows)
            index, weights = sampler.neighbours(samples), _stack_weights(samples).requires_grad_()
            with torch.enable_grad():
                columns = F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)  # S C
            by_rows = by_out[images, rows].flatten(0, 2)  # b*h*Wo O
            by_kernel += by_rows.t() @ columns.detach().view(len(by_rows), -1).to(kernel.dtype)
            by_columns = (by_rows @ kernel).to(table.dtype).view_as(columns)  # S C
            (by_weights,) = torch.autograd.grad(columns, weights, by_columns)  # S 4
            pixels = slice(images.start * sampler.table_rows(), images.stop * sampler.table_rows())
            by_table[pixels] += _sum_by_pixel(index, weights.detach(), by_columns, pixels)
            by_y, by_x, by_factor = samples.gradients(by_weights.view(*samples.upper_left.shape, 4))
            by_offset[images, :, rows] = torch.stack([by_y, by_x], dim=-1).flatten(3).permute(0, 3, 1, 2)
            if by_mask is not None and by_factor is not None:
                by_mask[images, :, rows] = by_factor.permute(0, 3, 1, 2)
        by_weight = by_kernel.view(-1, *weight.shape[2:], x.shape[1]).permute(0, 3, 1, 2)  # O C kernel height, width
        # Contiguous as the kernel, which the buckets of DistributedDataParallel expect.
        by_weight = by_weight.contiguous().to(weight.dtype)
        by_map = crop_from_table(by_table, x.shape).to(x.dtype)
        if mask is not None and by_mask is not None:
            by_mask = by_mask.to(mask.dtype)
        return by_map, by_offset.to(offset.dtype), by_weight, by_mask, None


def _convolve(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
    epilogue: Epilogue,
    out: Tensor,
) -> None:
    """Writes the result to ``out`` B, Ho, Wo, O or P, or adds it where that is the epilogue's ``into``."""
    table, kernel, sampler = _prepare(x, offset, weight, mask, geometry)
    kernel = kernel.to(_product_dtype(x))
    for images, rows in _blocks(offset, weight):
        samples = sampler.samples(images, rows)
        columns = F.embedding_bag(  # S C, output position major and kernel point minor
            sampler.neighbours(samples), table, mode="sum", per_sample_weights=_stack_weights(samples)
        )
        y = epilogue.linear(columns.view(-1, kernel.shape[1]).to(kernel.dtype), kernel)
        del samples, columns  # before the next ones are made
        block = out[images, rows]
        y = y.view(block.shape)
        if epilogue.into is None:
            block.copy_(y)
        else:
            block.add_(y.to(block.dtype))


def _prepare(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry
) -> tuple[Tensor, Tensor, Sampler]:
    """The map as a table, the kernel as O, K*C in the order of the columns, and what places samples."""
    table = pad_to_table(x.detach())
    kernel = weight.detach().permute(0, 2, 3, 1).flatten(1).to(table.dtype)
    index_dtype = torch.int32 if len(table) < 2**31 else torch.int64
    offset, mask = offset.detach(), None if mask is None else mask.detach()
    return table, kernel, Sampler(offset, mask, x.shape, weight.shape[3], geometry, table.dtype, index_dtype)


def _product_dtype(x: Tensor) -> torch.dtype:
    """The precision of matrix products for a map."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return torch.float32 if kind == "cpu" and x.dtype != torch.float64 else x.dtype


def _blocks(offset: Tensor, weight: Tensor, buffers: int = 1) -> Iterator[tuple[slice, slice]]:
    """Images and output rows of a chunk; one image at a time where a row of all is beyond the chunk size.

    Args:
        offset: B, 2K, Ho, Wo.
        weight: O, C, kernel height, kernel width.
        buffers: As large as the columns, at once.
    """
    batch, _, rows, width = offset.shape
    per_row = buffers * width * max(weight[0].numel(), len(weight))
    limit = execution.chunk_elements("deform_columns", offset.device)
    together = batch if limit is None or batch * per_row <= limit else 1
    for first in range(0, batch, together):
        for chunk in execution.row_chunks(rows, together * per_row, "deform_columns", offset.device, always=True):
            yield slice(first, first + together), chunk


def _stack_weights(samples: Samples) -> Tensor:
    """S, 4."""
    return torch.stack(samples.weights(), dim=-1).view(-1, 4)


def _sum_by_pixel(index: Tensor, weights: Tensor, by_columns: Tensor, pixels: slice) -> Tensor:
    """Gradients of some rows of the table.

    Args:
        index: S, 4, rows that the samples read.
        weights: S, 4, of those rows in the samples.
        by_columns: S, C, gradients of the samples.
        pixels: Rows of the table wanted, all that ``index`` holds among them.

    Returns:
        N, C for the N rows.
    """
    ordered, order = index.flatten().sort()
    edges = torch.arange(pixels.start, pixels.stop + 1, dtype=index.dtype, device=index.device)
    return F.embedding_bag(
        order >> 2,  # four weights for each sample
        by_columns,
        torch.searchsorted(ordered, edges),
        mode="sum",
        per_sample_weights=weights.flatten()[order],
        include_last_offset=True,
    )
