"""What the terms share: checks, precision, and the one kind of resizing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError


def full_precision(x: Tensor) -> Tensor:
    """float32 for anything narrower; float64 stays, so that gradients can be checked."""
    return x if x.dtype == torch.float64 else x.float()


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Keeps autocast from narrowing what is computed on the device of ``x``; nothing where it has no autocast."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize with aligned corners, as published training does with every supervised map.

    The same as in ``network.layers``: losses work without any network, so they share no module with it.

    Args:
        x: B, C, H, W.
        size: Target (height, width).

    Returns:
        B, C, height, width; ``x`` itself where nothing is to be done.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def check_map(x: Tensor, what: str) -> None:
    """Raises ImageError unless ``x`` is a map: B, 1, H, W, not empty, of a type that can hold [0, 1]."""
    if x.ndim != 4 or x.shape[1] != 1 or x.numel() == 0:
        raise ImageError(f"{what} must have the shape B, 1, H, W; found {tuple(x.shape)}.")
    if not x.is_floating_point() and x.dtype != torch.bool:
        raise ImageError(f"{what} must be floats or bools; found {x.dtype}. Divide 8-bit masks by 255.")


def prepare(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Checks a map and its label and gives both in full precision.

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
    logits = full_precision(logits)
    return logits, label.to(logits.dtype)
