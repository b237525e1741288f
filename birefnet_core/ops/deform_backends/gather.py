"""Deformable convolution in plain tensor operations: for every device, and for compiling and exporting.

Shapes: B batch, C input channels, O output channels, Ho Wo output map, K sampling points, h output rows of a chunk,
S = B * h * Wo * K samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import execution
from ..deform_sampling import Geometry, Sampler, pad_to_table
from .epilogue import Epilogue


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """It runs everywhere."""
    return None


def run(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry, epilogue: Epilogue
) -> Tensor:
    """See ``deform_conv2d``; half precision is computed in float32."""
    table = pad_to_table(x)
    kernel = weight.permute(0, 2, 3, 1).flatten(1).to(table.dtype)  # O K*C
    sampler = Sampler(offset, mask, x.shape, weight.shape[3], geometry, table.dtype, torch.int64)
    batch, _, height, width = offset.shape

    def chunk(rows: slice, table: Tensor, kernel: Tensor) -> Tensor:
        samples = sampler.samples(slice(0, batch), rows)
        columns: Tensor | None = None  # S C
        for index, weight in zip(sampler.neighbours(samples).unbind(1), samples.weights(), strict=True):
            values = table.index_select(0, index)
            if torch.is_grad_enabled():
                values = values * weight.reshape(-1, 1)
                columns = values if columns is None else columns + values
            else:
                values.mul_(weight.reshape(-1, 1))
                columns = values if columns is None else columns.add_(values)
            del values  # before the next ones are made
        assert columns is not None
        y = epilogue.linear(columns.view(-1, kernel.shape[1]), kernel)
        return y.view(batch, rows.stop - rows.start, width, -1).permute(0, 3, 1, 2)

    def chunk_of_training(rows: slice) -> Tensor:
        # Run again in the backward pass, so that its columns need not be kept.
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return checkpoint(chunk, rows, table, kernel, use_reentrant=False, preserve_rng_state=False)
        return chunk(rows, table, kernel)

    tensors = [t for t in (table, offset, kernel, mask, epilogue.bias, epilogue.projection) if t is not None]
    # A file whose batch size is open has the same chunks for every size.
    images = 1 if torch.compiler.is_compiling() else batch
    per_row = images * width * max(kernel.shape)
    chunks = execution.row_chunks(height, per_row, "deform_gather", x.device, always=True)
    return epilogue.collect(((rows, chunk_of_training(rows)) for rows in chunks), x.dtype)
