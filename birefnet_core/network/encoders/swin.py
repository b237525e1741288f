"""Swin Transformer encoder (Liu et al., 2021, https://arxiv.org/abs/2103.14030) for dense prediction.

Written here rather than taken from timm because every BiRefNet was trained with the detection
form of Swin, which differs from the classification form in ways that change masks: maps are padded
*before* they are rolled, every odd block is shifted at every map size, padding takes part in
attention, and four output norms stand outside the stream.

Shapes: B batch, H W map, C channels, h heads; I rows of J windows of N = window * window tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp, trunc_normal_
from torch import Tensor, nn

from ..layers import inference_budget


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


def shifted_window_masks(width: int, window: int, device: torch.device) -> Tensor:
    """Which tokens of the windows in a rolled, padded map were neighbours before rolling.

    The roll by window // 2 brings opposite borders of the map into the windows of the last row and the last
    column. All rows of windows but the last need the same masks.

    Args:
        width: Width of the padded map.
        window: Side of a window.
        device: Where to make the masks.

    Returns:
        2, J, N, N bool, True where attention is allowed: for the J windows of an ordinary row and of the last.
    """
    shift = window // 2
    came_around = torch.arange(window, device=device) >= window - shift  # within a window of the last row or column
    ordinary = torch.zeros_like(came_around)
    columns = ordinary.repeat(width // window, 1)  # J window
    columns[-1] = came_around
    rows = torch.stack([ordinary, came_around])  # 2 window
    regions = rows[:, None, :, None] * 2 + columns[None, :, None, :] * 1  # 2 J window window
    regions = regions.flatten(2)  # 2 J N
    return regions[..., :, None] == regions[..., None, :]


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        # Persistent because it is in the published files.
        self.register_buffer("relative_position_index", relative_position_index(window_size))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def bias(self, mask: Tensor | None) -> Tensor:
        """What is added to the attention logits: relative position bias, and -inf where a mask forbids.

        Args:
            mask: J, N, N bool for the windows of a row, or None where all of them may attend to all.

        Returns:
            J * h, N, N, or h, N, N without a mask.
        """
        tokens = self.relative_position_index.shape[0]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(tokens, tokens, self.num_heads).permute(2, 0, 1)  # h N N
        if mask is None:
            return bias
        return bias.masked_fill(~mask.unsqueeze(1), float("-inf")).flatten(0, 1)  # J*h N N

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attends within the windows of some rows.

        Args:
            x: B, I, J, N, C: I rows of J windows.
            bias: From ``bias``; the same for all I rows.
        """
        batch, rows, columns = x.shape[:3]
        qkv = self.qkv(x)
        if bias.shape[0] == self.num_heads:  # windows are all alike
            q, k, v = rearrange(qkv, "b i j t (s h d) -> s (b i j) h t d", s=3, h=self.num_heads)
        else:  # the windows of a row differ: taken as more heads, so that one bias serves all rows
            q, k, v = rearrange(qkv, "b i j t (s h d) -> s (b i) (j h) t d", s=3, h=self.num_heads)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0).to(q.dtype))
        x = x.reshape(batch, rows, columns, self.num_heads, *x.shape[2:])
        x = x.transpose(-3, -2)  # b i j t h d
        if torch.compiler.is_compiling():
            # How attention lays out its result differs between tracing and exporting; a view would hold in one only.
            x = x.clone(memory_format=torch.contiguous_format)
        return self.proj(x.flatten(-2))


class SwinBlock(nn.Module):
    """Norm, (shifted) window attention, norm, MLP, both with a skip connection.

    In inference both work on some rows of the map at a time and change it in place, so that their wide inner tensors
    stay small.
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

    def forward(self, x: Tensor, masks: Tensor) -> Tensor:
        """One block.

        Args:
            x: B, H, W, C; changed in place in inference.
            masks: The stage's ``shifted_window_masks``; used by shifted blocks only.
        """
        budget = inference_budget(x, self.training)
        if budget is None:
            attended = torch.cat([self._attend(x, spans, bias) for spans, bias in self._strips(x, masks)], dim=1)
            attended = torch.roll(attended, self.shift, dims=1)[:, : x.shape[1]]
            x = x + self.drop_path(attended)
            return x + self.drop_path(self.mlp(self.norm2(x)))
        for spans, bias in self._strips(x, masks, budget):
            attended = self._attend(x, spans, bias)
            for (top, bottom), part in zip(spans, attended.split([b - t for t, b in spans], dim=1), strict=True):
                rows = x[:, top:bottom]
                rows.add_(part[:, : rows.shape[1]])
        step = max(1, budget // (x[:, 0].numel() * 4))
        for top in range(0, x.shape[1], step):
            rows = x[:, top : top + step]
            rows.add_(self.mlp(self.norm2(rows)))
        return x

    def _strips(
        self, x: Tensor, masks: Tensor, budget: int | None = None
    ) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
        """Cuts the padded, rolled map into rows of windows, as many at once as a budget allows.

        No row of the map is in two of them. Windows of the last row have their own mask, and in a rolled map they come
        from both ends of it.

        Args:
            x: B, H, W, C.
            masks: See ``forward``.
            budget: Elements of the widest tensor that attention makes.

        Yields:
            First and last + 1 of each span of the padded map's rows that make up the strip, and the strip's bias.
        """
        window, shift = self.window_size, self.shift
        height = x.shape[1] + -x.shape[1] % window
        inner = height - window if shift else height  # rows before those with a mask of their own
        step = window * max(1, budget // (x[:, 0].numel() * 3 * window)) if budget else max(inner, window)
        bias = self.attn.bias(masks[0] if shift else None)
        for top in range(0, inner, step):
            bottom = min(top + step, inner)
            yield [(top + shift, bottom + shift)], bias
        if shift:
            yield [(inner + shift, height), (0, shift)], self.attn.bias(masks[1])

    def _attend(self, x: Tensor, spans: list[tuple[int, int]], bias: Tensor) -> Tensor:
        """Attention of one strip.

        Args:
            x: B, H, W, C.
            spans: Rows of the padded map.
            bias: From ``WindowAttention.bias``.

        Returns:
            B, rows of the spans, W, C.
        """
        window, width = self.window_size, x.shape[2]
        parts = []
        for top, bottom in spans:  # padding comes before rolling; it is zero after the norm, and is attended to
            rows = self.norm1(x[:, top:bottom])
            parts.append(F.pad(rows, (0, 0, 0, -width % window, 0, bottom - top - rows.shape[1])))
        strip = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        strip = torch.roll(strip, -self.shift, dims=2) if self.shift else strip
        strip = rearrange(strip, "b (i y) (j x) c -> b i j (y x) c", y=window, x=window)  # B I J N C
        strip = self.attn(strip, bias)
        strip = rearrange(strip, "b i j (y x) c -> b (i y) (j x) c", y=window, x=window)
        strip = torch.roll(strip, self.shift, dims=2) if self.shift else strip
        return strip[:, :, :width]


class PatchMerging(nn.Module):
    """Halves the map: each 2 x 2 group of tokens becomes one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """B, H, W, C -> B, ceil(H / 2), ceil(W / 2), 2C."""
        budget = inference_budget(x, self.training)
        if budget is None:
            return self._merge(x)
        step = 2 * max(1, budget // (x[:, 0].numel() * 2))  # input rows
        return torch.cat([self._merge(x[:, top : top + step]) for top in range(0, x.shape[1], step)], dim=1)

    def _merge(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # Column-major order of the four: (row 0, col 0), (1, 0), (0, 1), (1, 1).
        x = rearrange(x, "b (h y) (w x) c -> b h w (x y c)", y=2, x=2)
        return self.reduction(self.norm(x))


class SwinStage(nn.Module):
    """Blocks at one stride, every second one shifted, after an optional halving of the map."""

    def __init__(self, dim: int, num_heads: int, window_size: int, drop_paths: list[float], downsample: bool) -> None:
        super().__init__()
        self.window_size = window_size
        self.downsample = PatchMerging(dim // 2) if downsample else nn.Identity()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, num_heads, window_size, shifted=i % 2 == 1, drop_path=rate)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)  # B H W C
        width = x.shape[2]
        masks = shifted_window_masks(width + -width % self.window_size, self.window_size, x.device)
        for block in self.blocks:
            x = block(x, masks)
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
            maps.append(norm(x).permute(0, 3, 1, 2))  # B C H W, channels last in memory
        return maps


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
