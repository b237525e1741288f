"""A linear layer of a GELU that keeps only the GELU's input for the backward pass.

Shapes: I input channels, O output channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``linear(gelu(x), weight, bias)``, in the precision of autocast where that is on.

    Args:
        x: ..., I.
        weight: O, I.
        bias: O.

    Returns:
        ..., O.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    return _GeluLinear.apply(x, weight, bias)


class _GeluLinear(torch.autograd.Function):
    """Computes the GELU twice instead of keeping its result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            rows = by_out.flatten(0, -2)  # N O
            by_weight = rows.t() @ F.gelu(x).flatten(0, -2)
            by_x = torch.ops.aten.gelu_backward(by_out @ weight, x)
            return by_x, by_weight, rows.sum(dim=0)
