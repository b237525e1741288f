"""Validation, common to all terms."""

from __future__ import annotations

import torch
from torch import Tensor

from ..autocast import at_least_float32
from ..errors import ImageError


def check_tensor(x: object, what: str, shape: str) -> None:
    """Raises ImageError unless ``x`` is a tensor."""
    if not isinstance(x, Tensor):
        raise ImageError(f"{what}: found a {type(x).__name__}, expected a tensor {shape}; torch.as_tensor makes one.")


def check_map(x: Tensor, what: str) -> None:
    """Raises ImageError unless ``x`` is a map: B, 1, H, W, not empty, of a type that can hold [0, 1]."""
    check_tensor(x, what, "B, 1, H, W")
    if x.ndim != 4 or x.shape[1] != 1 or x.numel() == 0:
        raise ImageError(f"{what} must have the shape B, 1, H, W; found {tuple(x.shape)}.")
    if not x.is_floating_point() and x.dtype != torch.bool:
        raise ImageError(f"{what} must be floats or bools; found {x.dtype}. Divide 8-bit masks by 255.")


def check_logits_and_label(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Checks logits and their label, and gives both in float32 at least.

    Raises:
        ImageError: Not maps, or of different shapes: broadcasting would compare each with all.
    """
    check_map(logits, "logits")
    check_map(label, "the label")
    if logits.shape != label.shape:
        raise ImageError(
            f"logits {tuple(logits.shape)} and label {tuple(label.shape)} must have the same shape; "
            "HybridLoss resizes maps to their label."
        )
    logits = at_least_float32(logits)
    return logits, label.to(logits.dtype)
