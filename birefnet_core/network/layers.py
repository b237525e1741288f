"""Small shared pieces: the one kind of resizing the network uses, and norms that can be left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


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


def batch_norm(channels: int, enabled: bool) -> nn.Module:
    """BatchNorm, or nothing for networks trained at batch size 1 (``BiRefNetConfig.batch_norm``)."""
    return nn.BatchNorm2d(channels) if enabled else nn.Identity()
