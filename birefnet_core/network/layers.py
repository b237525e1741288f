"""Small shared pieces: the one kind of resizing the network uses, norms that can be left out, strips of maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import execution


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize with aligned corners and no antialiasing, as everywhere in the published network.

    Args:
        x: B, C, H, W.
        size: Target (height, width).

    Returns:
        B, C, height, width; ``x`` itself where nothing is to be done.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def conv_layout(device: torch.device) -> torch.memory_format:
    """The order in memory in which a device's convolutions are fast, and right.

    On MPS they have read parts of maps with channels last wrongly (https://github.com/pytorch/pytorch/issues/180984).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def laid_out(x: Tensor) -> Tensor:
    """B, C, H, W in the ``conv_layout`` of its device; a copy only where it is not."""
    return x.contiguous(memory_format=conv_layout(x.device))


def batch_norm(channels: int, enabled: bool) -> nn.Module:
    """BatchNorm, or nothing for networks trained at batch size 1 (``BiRefNetConfig.batch_norm``)."""
    return nn.BatchNorm2d(channels) if enabled else nn.Identity()


def inference_budget(x: Tensor, training: bool = False) -> int | None:
    """How much of a map to work on at once.

    Args:
        x: The map, for its device.
        training: Whether the module that works on it is being trained.

    Returns:
        Elements of the widest tensor to make; None for all of the map at once.
    """
    return execution.chunk_elements("map", x.device) if execution.chunking(x, training) else None
