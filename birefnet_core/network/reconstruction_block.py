"""Reconstruction block (Sec. 3.3, Fig. 4): convolutions with hierarchical receptive fields.

Shapes: B batch, C channels, H W the stage's map.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import BiRefNetConfig
from ..ops.execution import chunking
from ..ops.split_conv import SplitConv2d, match_dtype
from .checkpointing import checkpoint
from .deformable_conv import DeformableConv2d
from .layers import batch_norm, fold_norm, to_conv_memory_format

INNER_CHANNELS = 64  # width inside a block, published
BRANCH_CHANNELS = 256  # channels of each ASPP branch, published


class AsppBranch(nn.Module):
    """One receptive field: convolution, norm, ReLU.

    Attributes:
        grad_checkpointing: Whether to keep for the backward pass only what the convolution gives: the branches are
            wider than all else in the block. On GPUs, where it costs next to nothing, always.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.relu = nn.ReLU()
        self.grad_checkpointing = False

    def forward(self, total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Adds the branch, through its part of the joining convolution.

        Args:
            total: B, O, H, W, or B, O, 1, 1; in inference B, O, H, W that is changed in place.
            x: B, C, H, W.
            weight: O, 256, 1, 1.

        Returns:
            B, O, H, W.
        """
        in_place = chunking(x, self.training)
        if in_place and isinstance(self.conv, DeformableConv2d) and isinstance(self.norm, nn.Identity):
            return self.conv.add_to(total, x, weight.flatten(1))
        field = self.conv(x)  # B 256 H W
        if self.grad_checkpointing or (x.is_cuda and self.training):
            y = checkpoint(self.norm, self._project, field, weight)
        else:
            y = self._project(field, weight)
        return total.add_(y) if in_place else total + y

    def _project(self, field: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(self.relu(self.norm(field)), weight)

    def fuse(self) -> None:
        """Folds the norm."""
        conv = self.conv.kernel if isinstance(self.conv, DeformableConv2d) else self.conv
        assert isinstance(conv, nn.Conv2d)
        self.norm = fold_norm(conv, self.norm)


class GlobalPoolBranch(nn.Module):
    """The receptive field of the whole map: mean, 1 x 1 convolution, norm, ReLU. The same at every place."""

    def __init__(self, in_channels: int, out_channels: int, normed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = batch_norm(out_channels, normed)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, H, W -> B, 256, 1, 1."""
        return self.relu(self.norm(self.conv(x.mean(dim=(2, 3), keepdim=True))))

    def fuse(self) -> None:
        """Folds the norm."""
        self.norm = fold_norm(self.conv, self.norm)


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: branches side by side, joined by a 1 x 1 convolution.

    The paper's form has deformable branches with kernels 1, 1, 3, 7 (two distinct 1 x 1 branches, as
    published); the plain form has the dilated branches of DeepLabv3 (https://arxiv.org/abs/1706.05587).

    The joining convolution is computed branch by branch and summed, so that the branches, five times as wide as all
    else in the block, are never concatenated.
    """

    DEFORMABLE_KERNELS = (1, 1, 3, 7)
    DILATIONS = (1, 6, 12, 18)  # the first is a 1 x 1 convolution

    def __init__(self, channels: int, *, deformable: bool, normed: bool) -> None:
        super().__init__()
        if deformable:
            convs: list[nn.Module] = [DeformableConv2d(channels, BRANCH_CHANNELS, k) for k in self.DEFORMABLE_KERNELS]
        else:
            convs = [_dilated_conv(channels, BRANCH_CHANNELS, d) for d in self.DILATIONS]
        self.branches = nn.ModuleList(AsppBranch(c, batch_norm(BRANCH_CHANNELS, normed)) for c in convs)
        self.pool = GlobalPoolBranch(channels, BRANCH_CHANNELS, normed)
        self.conv = nn.Conv2d((len(convs) + 1) * BRANCH_CHANNELS, channels, 1, bias=False)
        self.norm = batch_norm(channels, normed)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, H, W -> B, C, H, W."""
        *weights, pooled = self.conv.weight.split(BRANCH_CHANNELS, dim=1)  # C 256 1 1 each
        y = F.conv2d(self.pool(x), pooled, self.conv.bias)  # B C 1 1
        if chunking(x, self.training):  # branches are added in place, in float32
            y = to_conv_memory_format(y.to(torch.promote_types(x.dtype, torch.float32)).expand_as(x))
        for branch, weight in zip(self.branches, weights, strict=True):
            y = branch(y, x, weight)
        return self.dropout(self.relu(self.norm(match_dtype(y, x))))

    def fuse(self) -> None:
        """Folds the norm."""
        self.norm = fold_norm(self.conv, self.norm)


def _dilated_conv(in_channels: int, out_channels: int, dilation: int) -> nn.Conv2d:
    if dilation == 1:
        return nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)


class ReconstructionBlock(nn.Module):
    """RB (Sec. 3.3): 3 x 3 convolution, ASPP, 3 x 3 convolution, with norms; no ReLU at the end."""

    def __init__(self, in_channels: int, out_channels: int, *, deformable: bool, normed: bool) -> None:
        super().__init__()
        self.conv_in = SplitConv2d(in_channels, INNER_CHANNELS, 3, padding=1)
        self.norm_in = batch_norm(INNER_CHANNELS, normed)
        self.relu = nn.ReLU(inplace=True)
        self.aspp = Aspp(INNER_CHANNELS, deformable=deformable, normed=normed)
        self.conv_out = nn.Conv2d(INNER_CHANNELS, out_channels, 3, padding=1)
        self.norm_out = batch_norm(out_channels, normed)

    def forward(self, maps: Iterable[Tensor]) -> Tensor:
        """Maps whose channels, side by side, are B, C_in, H, W -> B, C_out, H, W."""
        x = self.relu(self.norm_in(self.conv_in(maps)))
        return self.norm_out(self.conv_out(self.aspp(x)))

    def fuse(self) -> None:
        """Folds the norms."""
        self.norm_in = fold_norm(self.conv_in, self.norm_in)
        self.norm_out = fold_norm(self.conv_out, self.norm_out)


class ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions beside a skip connection."""

    def __init__(self, in_channels: int, out_channels: int, normed: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, INNER_CHANNELS, 3, padding=1)
        self.norm1 = batch_norm(INNER_CHANNELS, normed)
        self.conv2 = nn.Conv2d(INNER_CHANNELS, out_channels, 3, padding=1)
        self.norm2 = batch_norm(out_channels, normed)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.skip(x))

    def fuse(self) -> None:
        """Folds the norms."""
        self.norm1, self.norm2 = fold_norm(self.conv1, self.norm1), fold_norm(self.conv2, self.norm2)


class ResidualBlocks(nn.Sequential):
    """The baseline of Tab. 2 (reconstruction module off): two residual blocks."""

    def __init__(self, in_channels: int, out_channels: int, normed: bool) -> None:
        units = (in_channels, out_channels), (out_channels, out_channels)
        super().__init__(*(ResidualUnit(a, b, normed) for a, b in units))

    def forward(self, maps: Iterable[Tensor]) -> Tensor:
        """Maps whose channels, side by side, are B, C_in, H, W -> B, C_out, H, W."""
        return super().forward(torch.cat(tuple(maps), dim=1))


def decoder_block(in_channels: int, out_channels: int, config: BiRefNetConfig) -> nn.Module:
    """The decoder block that ``config.reconstruction_block`` names."""
    if config.reconstruction_block == "residual":
        return ResidualBlocks(in_channels, out_channels, config.batch_norm)
    deformable = config.reconstruction_block == "deformable_aspp"
    return ReconstructionBlock(in_channels, out_channels, deformable=deformable, normed=config.batch_norm)
