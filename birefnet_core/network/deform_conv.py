"""Modulated deformable convolution (DCNv2, Zhu et al., 2019, https://arxiv.org/abs/1811.11168).

Shapes: B batch, C input channels, O output channels, H W input map, Ho Wo output map,
K = kernel height * kernel width sampling points, P = Ho * Wo output positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ..errors import ConfigError
from .deform_routes import ROUTES, Geometry, best_route


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
    top: int = 0,
    route: str = "auto",
    column_budget: int | None = None,
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
        top: The output row that ``offset`` and ``mask`` begin with; they may be those of some rows, and so is the
            result.
        route: "torchvision" for its compiled operator, "bag" for the fastest one on CPUs, "pure" for plain
            PyTorch operations that run on any device; "auto" chooses by device.
        column_budget: Elements (samples times channels) of the largest buffer to make at once; None for the
            route's own choice. At least one output row is done at a time.

    Returns:
        B, O, Ho, Wo in the dtype of ``x``.

    Raises:
        ConfigError: An unknown route, one that is missing here, or shapes that do not fit.
    """
    _check_shapes(x, offset, weight, mask)
    if route == "auto":
        route = best_route(x.device)
    if route not in ROUTES:
        raise ConfigError(f"route={route!r} is not known; choose 'auto' or one of {', '.join(map(repr, ROUTES))}.")
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x, offset, weight = x.float(), offset.float(), weight.float()
        mask = None if mask is None else mask.float()
    else:
        offset = offset.to(dtype)
        mask = None if mask is None else mask.to(dtype)
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), column_budget, top)
    y = ROUTES[route](x, offset, weight, mask, geometry).to(dtype)
    return y if bias is None else y + bias.to(dtype)[:, None, None]


def _check_shapes(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None) -> None:
    points = weight.shape[2] * weight.shape[3]
    if x.shape[1] != weight.shape[1]:
        raise ConfigError(f"weight {tuple(weight.shape)} expects {weight.shape[1]} channels, x has {x.shape[1]}.")
    if offset.shape[1] != 2 * points or (mask is not None and mask.shape[1] != points):
        found = f"offset {tuple(offset.shape)}" + ("" if mask is None else f", mask {tuple(mask.shape)}")
        raise ConfigError(f"{points} kernel points take {2 * points} offset and {points} mask channels; found {found}.")


class DeformableConv2d(nn.Module):
    """Deformable convolution that predicts its own offsets and modulation from its input.

    Departure from DCNv2: the modulation is 2 * sigmoid, in (0, 2), as in the published network.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        points, padding = kernel_size**2, kernel_size // 2
        self.padding = padding
        self.offset = nn.Conv2d(in_channels, 2 * points, kernel_size, padding=padding)
        self.modulator = nn.Conv2d(in_channels, points, kernel_size, padding=padding)
        self.kernel = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        for predictor in (self.offset, self.modulator):  # start as a plain convolution
            for parameter in predictor.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """B, C, H, W -> B, O, H, W."""
        mask = 2 * torch.sigmoid(self.modulator(x))
        return deform_conv2d(x, self.offset(x), self.kernel.weight, mask=mask, padding=self.padding)
