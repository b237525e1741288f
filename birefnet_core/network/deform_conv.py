"""Modulated deformable convolution (DCNv2, Zhu et al., 2019, https://arxiv.org/abs/1811.11168).

Shapes: B batch, C input channels, O output channels, H W input map, Ho Wo output map,
K = kernel height * kernel width sampling points, P = Ho * Wo output positions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ..errors import ConfigError

# Largest column buffer the pure route makes at once, in elements (64 Mi floats = 256 MiB).
COLUMN_BUDGET = 64 * 2**20


@cache
def _torchvision_operator() -> Callable[..., Tensor] | None:
    """torchvision's compiled operator, or None where this installation has none."""
    try:
        from torchvision.ops import deform_conv2d as operator

        x = torch.zeros(1, 1, 1, 1)
        operator(x, torch.zeros(1, 2, 1, 1), x, mask=x)
    except (ImportError, RuntimeError, NotImplementedError):
        return None
    return operator


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    route: str = "auto",
) -> Tensor:
    """Convolution whose sampling points move by learned offsets and are weighted by a learned mask.

    Conventions are those of ``torchvision.ops.deform_conv2d``: the map is zero outside its borders, and
    sampling is bilinear. Positions are computed in float32 (float64 for float64 input) on every route,
    so that half precision never loses them.

    Args:
        x: B, C, H, W.
        offset: B, 2K, Ho, Wo in pixels, (y, x) pairs in the order of the kernel's points.
        weight: O, C, kernel height, kernel width.
        mask: B, K, Ho, Wo factors of the samples, or None for ones.
        bias: O, or None.
        stride: Step between output positions, in pixels.
        padding: Zeros around the map, in pixels.
        dilation: Step between kernel points, in pixels.
        route: "torchvision" for its compiled operator, "pure" for plain PyTorch operations that run on
            any device, "auto" for the compiled one where it exists for the device.

    Returns:
        B, O, Ho, Wo in the dtype of ``x``.

    Raises:
        ConfigError: An unknown route, one that is missing here, or shapes that do not fit.
    """
    _check_shapes(x, offset, weight, mask)
    if route == "auto":
        compiled = x.device.type in ("cpu", "cuda") and _torchvision_operator() is not None
        route = "torchvision" if compiled else "pure"
    if route not in ROUTES:
        raise ConfigError(f"route={route!r} is not known; choose 'auto' or one of {', '.join(map(repr, ROUTES))}.")
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x, offset, weight = x.float(), offset.float(), weight.float()
        mask = None if mask is None else mask.float()
    else:
        offset = offset.to(dtype)
        mask = None if mask is None else mask.to(dtype)
    y = ROUTES[route](x, offset, weight, mask, _pair(stride), _pair(padding), _pair(dilation)).to(dtype)
    return y if bias is None else y + bias.to(dtype)[:, None, None]


def _check_shapes(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None) -> None:
    points = weight.shape[2] * weight.shape[3]
    if x.shape[1] != weight.shape[1]:
        raise ConfigError(f"weight {tuple(weight.shape)} expects {weight.shape[1]} channels, x has {x.shape[1]}.")
    if offset.shape[1] != 2 * points or (mask is not None and mask.shape[1] != points):
        found = f"offset {tuple(offset.shape)}" + ("" if mask is None else f", mask {tuple(mask.shape)}")
        raise ConfigError(f"{points} kernel points take {2 * points} offset and {points} mask channels; found {found}.")


def _torchvision_route(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    operator = _torchvision_operator()
    if operator is None:
        raise ConfigError("route='torchvision': this torchvision has no compiled deform_conv2d; use route='auto'.")
    return operator(x, offset, weight, None, stride, padding, dilation, mask)


def _pure_route(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Gathers the four neighbours of every sample, blends them, and multiplies with the kernel.

    Output rows are taken in chunks, so that the columns never exceed ``COLUMN_BUDGET``.
    """
    batch, channels = x.shape[:2]
    out_channels, _, kernel_h, kernel_w = weight.shape
    out_h, out_w = offset.shape[-2:]
    points = kernel_h * kernel_w
    device, dtype = x.device, x.dtype
    kernel_y, kernel_x = torch.meshgrid(
        torch.arange(kernel_h, device=device, dtype=dtype) * dilation[0] - padding[0],
        torch.arange(kernel_w, device=device, dtype=dtype) * dilation[1] - padding[1],
        indexing="ij",
    )
    col = torch.arange(out_w, device=device, dtype=dtype) * stride[1]
    kernel = weight.reshape(out_channels, channels * points)
    table = x.flatten(2)  # B C H*W
    rows_at_once = max(1, COLUMN_BUDGET // (batch * channels * points * out_w))
    chunks = []
    for top in range(0, out_h, rows_at_once):
        bottom = min(top + rows_at_once, out_h)
        row = torch.arange(top, bottom, device=device, dtype=dtype) * stride[0]
        delta = offset[:, :, top:bottom].unflatten(1, (points, 2))  # B K 2 h Wo
        y = delta[:, :, 0] + kernel_y.reshape(points, 1, 1) + row[:, None]  # B K h Wo
        x_ = delta[:, :, 1] + kernel_x.reshape(points, 1, 1) + col
        sampled = _bilinear(table, x.shape[2:], y.flatten(1), x_.flatten(1))  # B C K*h*Wo
        sampled = sampled.unflatten(2, (points, -1))  # B C K h*Wo
        if mask is not None:
            sampled = sampled * mask[:, :, top:bottom].flatten(2).unsqueeze(1)
        chunk = kernel @ sampled.reshape(batch, channels * points, -1)  # B O h*Wo
        chunks.append(chunk.unflatten(2, (bottom - top, out_w)))
    return torch.cat(chunks, dim=2)  # B O Ho Wo


def _bilinear(table: Tensor, size: torch.Size, y: Tensor, x: Tensor) -> Tensor:
    """Samples a map at real positions; what lies outside is zero.

    Args:
        table: B, C, H * W.
        size: (H, W).
        y: B, S rows.
        x: B, S columns.

    Returns:
        B, C, S.
    """
    height, width = size
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left  # B S, in [0, 1)
    total = None
    for row, share_y in ((top, 1 - down), (top + 1, down)):
        for col, share_x in ((left, 1 - right), (left + 1, right)):
            inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
            share = share_y * share_x * inside  # B S
            index = row.clamp(0, height - 1).long() * width + col.clamp(0, width - 1).long()
            neighbour = table.gather(2, index.unsqueeze(1).expand(-1, table.shape[1], -1))  # B C S
            part = neighbour * share.unsqueeze(1)
            total = part if total is None else total + part
    return total


ROUTES: dict[str, Callable[..., Tensor]] = {"torchvision": _torchvision_route, "pure": _pure_route}


class DeformableConv2d(nn.Module):
    """Deformable convolution that predicts its own offsets and modulation from its input.

    Departure from DCNv2: the modulation is 2 * sigmoid, in (0, 2), as in the published network.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        points, padding = kernel_size**2, kernel_size // 2
        self.offset = nn.Conv2d(in_channels, 2 * points, kernel_size, padding=padding)
        self.modulator = nn.Conv2d(in_channels, points, kernel_size, padding=padding)
        self.kernel = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        for predictor in (self.offset, self.modulator):  # start as a plain convolution
            nn.init.zeros_(predictor.weight)
            nn.init.zeros_(predictor.bias)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, H, W -> B, O, H, W."""
        mask = 2 * torch.sigmoid(self.modulator(x))
        return deform_conv2d(x, self.offset(x), self.kernel.weight, mask=mask, padding=self.kernel.padding)
