"""Swin Transformer encoder (Liu et al., 2021, https://arxiv.org/abs/2103.14030) for dense prediction.

Written here rather than taken from timm because every BiRefNet was trained with the detection
form of Swin, which differs from the classification form in ways that change masks: maps are padded
*before* they are rolled, every odd block is shifted at every map size, padding takes part in
attention, and four output norms stand outside the stream.

Shapes: B batch, H W map, C channels, N = window * window tokens, n number of windows, h heads.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn


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
    rows, cols = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = rows.flatten(), cols.flatten()
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


def shifted_window_mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Which tokens of a rolled, padded map were neighbours before rolling.

    The roll by window // 2 brings opposite borders into the same windows; nine regions tell apart what
    belongs together.

    Returns:
        n, N, N bool, True where attention is allowed.
    """
    shift = window // 2

    def region(length: int) -> Tensor:
        position = torch.arange(length, device=device)
        return (position >= length - window).long() + (position >= length - shift).long()

    regions = region(height)[:, None] * 3 + region(width)[None, :]  # H W
    regions = rearrange(regions, "(a y) (b x) -> (a b) (y x)", y=window, x=window)  # n N
    return regions[:, :, None] == regions[:, None, :]


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for each relative position."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        # Persistent because it is in the published files.
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def bias(self) -> Tensor:
        """Relative position bias. h, N, N."""
        tokens = self.relative_position_index.shape[0]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(tokens, tokens, self.num_heads).permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attends.

        Args:
            x: B * n, N, C; the windows of one image follow each other.
            mask: n, N, N bool, True where attention is allowed, or None.
        """
        q, k, v = rearrange(self.qkv(x), "w t (s h d) -> s w h t d", s=3, h=self.num_heads)  # each: B*n h N d
        bias = self.bias().unsqueeze(0).to(q.dtype)  # 1 h N N
        if mask is not None:
            bias = bias.masked_fill(~mask.unsqueeze(1), float("-inf"))  # n h N N
            bias = bias.repeat(x.shape[0] // mask.shape[0], 1, 1, 1)  # B*n h N N
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(rearrange(x, "w h t d -> w t (h d)"))


class SwinBlock(nn.Module):
    """Norm, (shifted) window attention, norm, MLP, both with a skip connection."""

    def __init__(self, dim: int, num_heads: int, window_size: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = window_size // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """One block.

        Args:
            x: B, H, W, C.
            mask: The stage's shifted-window mask on the padded map; used by shifted blocks only.
        """
        x = x + self.drop_path(self._attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        window = self.window_size
        # Padding comes before rolling. It is zero after the norm, and unshifted windows attend to it.
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))  # B Hp Wp C
        padded_height, padded_width = x.shape[1:3]
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        x = rearrange(x, "b (i y) (j x) c -> (b i j) (y x) c", y=window, x=window)  # B*n N C
        x = self.attn(x, mask if self.shift else None)
        x = rearrange(
            x, "(b i j) (y x) c -> b (i y) (j x) c",
            b=batch, i=padded_height // window, j=padded_width // window, y=window, x=window,
        )  # B Hp Wp C  # fmt: skip
        if self.shift:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]  # B H W C


class PatchMerging(nn.Module):
    """Halves the map: each 2 x 2 group of tokens becomes one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B, H, W, C -> B, ceil(H / 2), ceil(W / 2), 2C."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Column-major order of the four: (row 0, col 0), (1, 0), (0, 1), (1, 1).
        x = rearrange(x, "b (h y) (w x) c -> b h w (x y c)", y=2, x=2)
        return self.reduction(self.norm(x))


class SwinStage(nn.Module):
    """Blocks at one stride, every second one shifted, after an optional halving of the map."""

    def __init__(
        self, dim: int, num_heads: int, window_size: int, drop_paths: list[float], downsample: bool
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.downsample = PatchMerging(dim // 2) if downsample else nn.Identity()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, num_heads, window_size, shifted=i % 2 == 1, drop_path=rate)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)  # B H W C
        padded = [side + -side % self.window_size for side in x.shape[1:3]]
        mask = shifted_window_mask(*padded, self.window_size, x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x


class PatchEmbed(nn.Module):
    """Cuts the image into 4 x 4 patches, each one token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """B, 3, H, W -> B, ceil(H / 4), ceil(W / 4), C."""
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


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
            maps.append(norm(x).permute(0, 3, 1, 2).contiguous())  # B C H W
        return maps


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
