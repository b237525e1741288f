"""What follows the product of a deformable convolution, chunk by chunk, so that its widest map never exists as a whole.

Shapes: O output channels, P channels after the projection, B h Wo output rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Epilogue(NamedTuple):
    """Bias, activation, projection, in this order.

    Attributes:
        bias: O, or None.
        activation: "none" or "relu".
        projection: P, O, a 1 x 1 convolution without bias; or None.
        into: B, P or O, h, Wo that the result is added to in place, or None for a new map. For inference only.
    """

    bias: Tensor | None = None
    activation: str = "none"
    projection: Tensor | None = None
    into: Tensor | None = None

    def out_channels(self, weight: Tensor) -> int:
        """Channels of the result of a convolution with a kernel O, C, kernel height, kernel width."""
        return len(weight if self.projection is None else self.projection)

    def linear(self, columns: Tensor, kernel: Tensor) -> Tensor:
        """The convolution's product and what follows.

        Args:
            columns: N, K*C.
            kernel: O, K*C.

        Returns:
            N, O or N, P.
        """
        bias = None if self.bias is None else self.bias.to(kernel.dtype)
        return self._after_bias(F.linear(columns, kernel, bias))

    def finish(self, y: Tensor) -> Tensor:
        """..., O -> ..., O or ..., P."""
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return self._after_bias(y)

    def _after_bias(self, y: Tensor) -> Tensor:
        """Activation and projection: ..., O -> ..., O or ..., P."""
        if self.activation == "relu":
            y = F.relu(y) if torch.is_grad_enabled() else F.relu_(y)
        return y if self.projection is None else F.linear(y, self.projection.to(y.dtype))

    def collect(self, chunks: Iterable[tuple[slice, Tensor]], dtype: torch.dtype) -> Tensor:
        """Joins chunks of output rows, or adds each of them to ``into`` as soon as it is there.

        Args:
            chunks: Rows, and B, O or P, rows, Wo.
            dtype: Of the result.
        """
        if self.into is None:
            parts = [y.to(dtype) for _, y in chunks]
            return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        for rows, y in chunks:
            self.into[:, :, rows].add_(y.to(self.into.dtype))
        return self.into
