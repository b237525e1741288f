"""Faster matrix products of linear layers on CPUs.

torch computes float32 linear layers with Intel's MKL, whose kernels reach half the speed of oneDNN's on processors of
other makers (AMD EPYC, one core: 100 against 215 GFLOP/s), and no more on Intel's. torch brings oneDNN, too, and its
compiler uses it; ``faster_linear_layers`` lets a network that is not compiled do so.
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """A linear layer, by oneDNN where that can do it.

    Args:
        x: ..., I.
        weight: O, I.
        bias: O, or None.
        activation: "none" or "relu".

    Returns:
        ..., O.
    """
    if _fits(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    y = F.linear(x, weight, bias)
    return y.relu_() if activation == "relu" else y


def faster_linear_layers(device: torch.device) -> contextlib.AbstractContextManager:
    """In this context every linear layer is computed by ``linear``; for inference without gradients only."""
    if device.type != "cpu" or torch.compiler.is_compiling() or not _has_onednn():
        return contextlib.nullcontext()
    return _FasterLinearLayers()


class _FasterLinearLayers(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return (linear if func is F.linear else func)(*args, **(kwargs or {}))


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _has_onednn()
    )


@cache
def _has_onednn() -> bool:
    """Whether this torch has the operator; it is there for torch's own compiler, and may change."""
    try:
        one = torch.ones(1, 1)
        return torch.ops.mkldnn._linear_pointwise(one, one, one, "relu", [], "").item() == 2
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
