"""Resizing, memory format, optional norms and their folding, for all parts of the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights

from .. import image_ops

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # the second in trainings on several GPUs


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of B, C, H, W to (height, width) with aligned corners, as everywhere in the published network."""
    return image_ops.resize(x, size, align_corners=True)


def conv_memory_format(device: torch.device) -> torch.memory_format:
    """The memory format in which a device's convolutions are fast and correct.

    On MPS they have read slices of channels-last maps wrongly (https://github.com/pytorch/pytorch/issues/180984).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def to_conv_memory_format(x: Tensor) -> Tensor:
    """B, C, H, W in the memory format of its device; a copy only where it is in another one."""
    return x.contiguous(memory_format=conv_memory_format(x.device))


def batch_norm(channels: int, enabled: bool) -> nn.Module:
    """BatchNorm, or nothing for networks trained at batch size 1 (``BiRefNetConfig.batch_norm``)."""
    return nn.BatchNorm2d(channels) if enabled else nn.Identity()


def fold_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Folds the BatchNorm after a convolution into the convolution's weight and bias, which are replaced.

    Computed in float32 or above, because half precision would round twice.

    Args:
        conv: The convolution, changed in place.
        norm: The norm, or Identity where there is none.

    Returns:
        What takes the place of the norm: Identity; the norm itself where it is of a kind that cannot be folded.
    """
    if not isinstance(norm, BATCH_NORMS) or not norm.affine or norm.running_mean is None or norm.running_var is None:
        return norm
    wide = torch.promote_types(conv.weight.dtype, torch.float32)
    weight, bias = fuse_conv_bn_weights(
        conv.weight.to(wide), None if conv.bias is None else conv.bias.to(wide),
        norm.running_mean.to(wide), norm.running_var.to(wide), norm.eps, norm.weight.to(wide), norm.bias.to(wide),
    )  # fmt: skip
    set_weights(conv, weight, bias)
    return nn.Identity()


def set_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
    """Replaces the parameters of a convolution by constants, in its dtype and the memory format of its device."""
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(to_conv_memory_format(weight.detach().to(dtype)), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
