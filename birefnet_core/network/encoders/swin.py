"""Swin Transformer encoder (Liu et al., 2021, https://arxiv.org/abs/2103.14030): maps are padded, then rolled.

timm rolls before it pads, which gives other masks wherever a map is not a multiple of the window. Every BiRefNet was
trained with this, the detection form of Swin. It also shifts every second block at every map size, lets padding take
part in attention, and applies the four output norms to the outputs only.

Shapes: B batch, H W map, C channels, h heads, N = window * window tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from ...ops import execution
from ...ops.gelu_linear import gelu_linear
from ...ops.window_attention import BIAS_ALIGNMENT, WindowLayouts, window_attention
from ..checkpointing import checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Hyperparameters of one Swin (Table 7 of the Swin paper)."""

    embed_dim: int
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]
    window_size: int
    drop_path_rate: float = 0.2


def relative_position_index(window: int) -> Tensor:
    """For each pair of tokens in a window, the row of the bias table that holds their offset. N, N."""
    return torch.tensor(_relative_positions(window))


@lru_cache(maxsize=4)
def _relative_positions(window: int) -> np.ndarray:
    y, x = np.divmod(np.arange(window * window, dtype=np.int64), window)
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for each relative position."""

    relative_position_index: Tensor
    relative_bias: Tensor | None

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.window_size, self.num_heads = window_size, num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        # Persistent because it is in the published files.
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.register_buffer("relative_bias", None, persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def bias(self) -> Tensor:
        """The relative position bias of the logits: h, N, N; once fused, its last dimension is padded."""
        if self.relative_bias is not None:
            return self.relative_bias
        tokens = self.relative_position_index.shape[0]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(tokens, tokens, self.num_heads).permute(2, 0, 1).contiguous()

    def _load_from_state_dict(self, *args: Any) -> None:
        """After ``fuse`` the bias is that of the weights that were there; it is gathered again from those that come."""
        super()._load_from_state_dict(*args)
        if self.relative_bias is not None:
            self.fuse()

    @torch.no_grad()
    def fuse(self) -> None:
        """Keeps the bias instead of gathering it in each call; for weights that do not change any more."""
        self.relative_bias = None
        bias = self.bias()
        self.relative_bias = F.pad(bias, (0, -bias.shape[2] % BIAS_ALIGNMENT))

    def forward(
        self,
        x: Tensor,
        shift: tuple[int, int] = (0, 0),
        bias: Tensor | None = None,
        layouts: WindowLayouts | None = None,
    ) -> Tensor:
        """Attends within the windows of a map.

        Args:
            x: B, H, W, C.
            shift: Rows and columns by which the padded map is rolled.
            bias: From ``bias``, for calls that share it.
            layouts: For calls that share them.

        Returns:
            B, H, W, C.
        """
        x = window_attention(
            self.qkv(x), self.qkv.bias, self.bias() if bias is None else bias,
            window=self.window_size, num_heads=self.num_heads, shift=shift, layouts=layouts,
        )  # fmt: skip
        return self.proj(x)


class SwinBlock(nn.Module):
    """Norm, (shifted) window attention, norm, MLP, both with a skip connection.

    In inference both change the map in place, and in chunks of rows where ``execution`` says so, so that their wide
    inner tensors stay small.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = window_size // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, layouts: WindowLayouts | None = None) -> Tensor:
        """One block.

        Args:
            x: B, H, W, C; changed in place in inference.
            layouts: Shared by the blocks of a stage.
        """
        layouts = layouts or WindowLayouts(self.window_size)
        if not execution.chunking(x, self.training):
            x = x + self.drop_path(self.attn(self.norm1(x), (self.shift, self.shift), layouts=layouts))
            return x + self.drop_path(self._feed_forward(self.norm2(x)))
        bias = self.attn.bias()
        for spans, shift in self._strips(x):
            rows = [x[:, span] for span in spans]
            normed = [self.norm1(some) for some in rows]
            attended = self.attn(torch.cat(normed, dim=1) if len(normed) > 1 else normed[0], shift, bias, layouts)
            for some, part in zip(rows, attended.split([some.shape[1] for some in rows], dim=1), strict=True):
                some.add_(part)
        mlp = self.mlp  # without its dropout, three modules that do nothing here
        for chunk in execution.row_chunks(x.shape[1], x.numel() // x.shape[1] * 4, "map", x.device):
            some = x[:, chunk]
            some.add_(mlp.fc2(mlp.act(mlp.fc1(self.norm2(some)))))
        return x

    def _feed_forward(self, x: Tensor) -> Tensor:
        """The MLP; in training on a GPU the activation is computed again in the backward pass: it is as wide as four
        maps, and takes a hundredth of the block's time."""
        if not (x.is_cuda and self.training and torch.is_grad_enabled()):
            return self.mlp(x)
        output = self.mlp.fc2
        return gelu_linear(self.mlp.fc1(x), output.weight, cast("Tensor", output.bias))

    def _strips(self, x: Tensor) -> Iterator[tuple[list[slice], tuple[int, int]]]:
        """Cuts the map into strips of rows of windows, each of which can be attended to as a map of its own.

        Rolling brings the first rows of the map into the last row of windows. A strip with that row is therefore made
        of the first and the last rows of the map, and is rolled as the map would be. Others are rolled sideways only.

        Args:
            x: B, H, W, C.

        Yields:
            The rows of a strip, and by how much to roll it. Each row of the map is in one strip.
        """
        window, shift, height = self.window_size, self.shift, x.shape[1]
        count = -(-height // window)
        for chunk in execution.row_chunks(count, x.numel() // height * 3 * window, "attention", x.device):
            top, bottom = chunk.start * window + shift, chunk.stop * window + shift
            if chunk.stop < count or not shift:
                yield [slice(top, min(bottom, height))], (0, shift)
            elif chunk.start == 0:
                yield [slice(0, height)], (shift, shift)
            else:
                yield [slice(0, shift), slice(min(top, height), height)], (shift, shift)


class PatchMerging(nn.Module):
    """Halves the map: each 2 x 2 group of tokens becomes one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B, H, W, C -> B, ceil(H / 2), ceil(W / 2), 2C."""
        chunks = execution.row_chunks(x.shape[1], x[:, 0].numel(), "map", x.device, multiple=2)
        parts = [self._merge(x[:, chunk]) for chunk in chunks]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _merge(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2 or x.shape[2] % 2:
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Column-major order of the four: (row 0, col 0), (1, 0), (0, 1), (1, 1).
        x = rearrange(x, "b (h y) (w x) c -> b h w (x y c)", y=2, x=2)
        return self.reduction(self.norm(x))


class SwinStage(nn.Module):
    """Blocks at one stride, every second one shifted, after an optional halving of the map."""

    def __init__(self, dim: int, num_heads: int, window_size: int, drop_paths: list[float], downsample: bool) -> None:
        super().__init__()
        self.window_size = window_size
        self.grad_checkpointing = False
        self.downsample = PatchMerging(dim // 2) if downsample else nn.Identity()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, num_heads, window_size, shifted=i % 2 == 1, drop_path=rate)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """B, H, W, C -> the same, or B, ceil(H / 2), ceil(W / 2), 2C after a halving."""
        x = self.downsample(x)
        layouts = WindowLayouts(self.window_size)
        for block in self.blocks:
            x = checkpoint(block, block, x, layouts) if self.grad_checkpointing else block(x, layouts)
        return x


class PatchEmbed(nn.Module):
    """Cuts the image into 4 x 4 patches, each one token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """B, 3, H, W -> B, ceil(H / 4), ceil(W / 4), C."""
        if x.shape[2] % 4 or x.shape[3] % 4:
            x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        if not x.is_cuda:
            return self.norm(self.proj(x).permute(0, 2, 3, 1))
        # cuDNN has no tensor core kernel for three channels; the patches do not overlap, so a matrix product does it.
        patches = rearrange(x.to(self.proj.weight.dtype), "b c (h y) (w x) -> b h w (c y x)", y=4, x=4)
        return self.norm(F.linear(patches, self.proj.weight.flatten(1), self.proj.bias))


class SwinTransformer(nn.Module):
    """Swin as an encoder: four maps at strides 4, 8, 16, 32.

    The output norms act on the four maps only; the stream into the next stage is not normed.
    """

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        dims = [config.embed_dim * 2**i for i in range(4)]
        rates = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu").tolist()
        starts = [sum(config.depths[:i]) for i in range(4)]
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.stages = nn.ModuleList(
            SwinStage(dim, heads, config.window_size, rates[start : start + depth], downsample=i > 0)
            for i, (dim, heads, start, depth) in enumerate(
                zip(dims, config.num_heads, starts, config.depths, strict=True)
            )
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in dims)
        self.apply(_init_linear)

    def forward(self, x: Tensor) -> list[Tensor]:
        """B, 3, H, W -> four maps B, C_i, H / 2^(i+2), W / 2^(i+2)."""
        x = self.patch_embed(x)
        maps = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            maps.append(norm(x).permute(0, 3, 1, 2))  # B C H W, channels last in memory
        return maps


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear) and not module.weight.is_meta:  # slow there, for nothing
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
