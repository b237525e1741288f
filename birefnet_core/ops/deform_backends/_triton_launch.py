"""Launches of the Triton kernels, cut into programs by a fixed table of settings.

Shapes: B batch, C input channels, O output channels, P channels after the projection, H W input map, Ho Wo output
map, K = kernel height * kernel width sampling points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor, library

from ..deform_sampling import Geometry
from . import _triton_kernels as kernels
from .epilogue import Epilogue

# TRITON_INTERPRET=1, set before Triton is imported: the kernels run on the CPU, step by step, for tests.
INTERPRETED = not isinstance(kernels.forward, triton.runtime.JITFunction)
# Programs that share the gradient of the weights: several for each multiprocessor of a large card.
WEIGHT_PROGRAMS = 512
# A projection to more channels is done by torch: the kernel would need more shared memory than consumer cards have.
MOST_PROJECTED = 64


class Settings(NamedTuple):
    """How a kernel is cut into programs.

    Attributes:
        tile: Height and width of a program's tile of output positions.
        channels: Input channels of a step, at most.
        outputs: Output channels of a program, at most.
        warps: Warps of a program.
        stages: Depth of the pipeline of loads.
    """

    tile: tuple[int, int]
    channels: int
    outputs: int
    warps: int
    stages: int


# Forward, gradients of samples, gradient of weights. "small" is for maps of few positions, which larger tiles would
# leave most of the card without. All stay below the 99 KB of shared memory of consumer cards; the 64 KB of ROCm's
# cards, which have no asynchronous copies, take one stage. The fastest of those tried on an H100 for 7 x 7 and 3 x 3
# kernels, 64 -> 256 channels, at 256 x 256.
FORWARD = {
    "half": Settings((8, 8), 32, 256, 8, 3),
    "half small": Settings((4, 4), 64, 256, 4, 2),
    "float": Settings((4, 8), 32, 128, 8, 1),
}
SAMPLES = {
    "half": Settings((4, 8), 64, 256, 4, 1),
    "float": Settings((8, 8), 16, 64, 8, 1),
}
WEIGHT = {
    "half": Settings((4, 8), 64, 256, 4, 1),
    "float": Settings((8, 8), 32, 64, 8, 1),
}
SMALL_POSITIONS = 64 * 132  # one tile of 8 x 8 for each multiprocessor of an H100


def _settings(table: dict[str, Settings], x: Tensor, offset: Tensor) -> Settings:
    row = "half" if x.dtype.itemsize == 2 else "float"
    positions = x.shape[0] * offset.shape[2] * offset.shape[3]
    if positions <= SMALL_POSITIONS and f"{row} small" in table:
        row = f"{row} small"
    settings = table[row]
    return settings if torch.version.hip is None else settings._replace(channels=32, stages=1)


def _power_of_two(number: int, least: int, most: int) -> int:
    return min(max(1 << (number - 1).bit_length(), least), most)


def _blocks(settings: Settings, x: Tensor, outputs: int, width: int) -> dict[str, int]:
    """The kernel's constants that follow from the settings; none reaches far beyond the channels or the map."""
    positions, tile_width = settings.tile[0] * settings.tile[1], settings.tile[1]
    if width < tile_width:  # asked first, so that compiling does not fix the width
        tile_width = _power_of_two(int(width), 1, tile_width)
    return {
        "TILE_H": positions // tile_width,
        "TILE_W": tile_width,
        "BLOCK_C": _power_of_two(x.shape[1], 16, settings.channels),
        "BLOCK_O": _power_of_two(outputs, 16, settings.outputs),
        "num_warps": settings.warps,
        "num_stages": settings.stages,
    }


def _tiles(size: Sequence[int], blocks: dict[str, int]) -> int:
    return -(-size[0] // blocks["TILE_H"]) * -(-size[1] // blocks["TILE_W"])


def _float32_precision(device: torch.device) -> str:
    """How products of float32 are made: in TF32 where torch may do so, else with three TF32 products for each.

    Those are as exact as float32, and run on tensor cores; Triton's products in float32 itself do not, and need more
    registers than there are.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return "ieee"
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # torch >= 2.9, where reading the old flag may be an error
    tf32 = matmul.allow_tf32 if precision is None else precision == "tf32"
    return "tf32" if tf32 else "tf32x3"


def _span(tensor: Tensor) -> int:
    """Elements from the first to the last of one image."""
    sides = zip(tensor.shape[1:], tensor.stride()[1:], strict=True)
    return 1 + sum((side - 1) * stride for side, stride in sides)


def _is_wide(*tensors: Tensor) -> bool:
    return any(_span(tensor) >= 2**31 for tensor in tensors)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _by_tap(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weights in the dtype of products: kernel height, kernel width, C, O, of one stride for all taps.

    Weights that are channels last, or dense in the order kernel height, kernel width, C, O, are not copied.
    """
    taps = weight.permute(2, 3, 1, 0)  # kernel height, kernel width, C, O
    dense = taps.stride(0) == taps.shape[1] * taps.stride(1) or taps.shape[0] == 1
    if weight.dtype != dtype or not dense or 1 not in taps.stride()[2:]:
        copy = torch.empty(taps.shape, dtype=dtype, device=weight.device)
        taps = copy.copy_(taps)
    return taps


def _weight_strides(taps: Tensor) -> dict[str, int]:
    return {"weight_tap": taps.stride(1), "weight_in": taps.stride(2), "weight_out": taps.stride(3)}


def _common(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry) -> dict[str, int]:
    """Arguments of all kernels."""
    (stride_y, stride_x), (dilation_y, dilation_x) = geometry.stride, geometry.dilation
    return {
        "height": x.shape[2],
        "width": x.shape[3],
        "out_height": offset.shape[2],
        "out_width": offset.shape[3],
        "kernel_width": weight.shape[3],
        "stride_y": stride_y,
        "stride_x": stride_x,
        "origin_y": geometry.first_row * stride_y - geometry.padding[0],
        "origin_x": -geometry.padding[1],
        "dilation_y": dilation_y,
        "dilation_x": dilation_x,
        **_strides("offset", offset),
        **_strides("mask", offset if mask is None else mask),
        "C": x.shape[1],
        "OUT": weight.shape[0],
        "MASKED": mask is not None,
    }


def _strides(name: str, tensor: Tensor) -> dict[str, int]:
    parts = ("image", "channel", "row", "column")
    return {f"{name}_{part}": stride for part, stride in zip(parts, tensor.stride(), strict=True)}


def _launch(kernel: Any, grid: tuple[int, ...], *tensors: Tensor, **arguments: Any) -> None:
    # Only tracing, whose tensors are of classes of their own, needs the wrapper. A launch through it takes half a
    # millisecond, and torch keeps something of each for ever.
    traced = type(tensors[0]) not in (Tensor, torch.nn.Parameter)
    if traced and hasattr(library, "wrap_triton") and not INTERPRETED:
        kernel = library.wrap_triton(kernel)
    # Triton launches on the current device, which need not be that of the tensors.
    device = tensors[0].device
    several = device.type == "cuda" and torch.cuda.device_count() > 1
    with torch.cuda.device(device) if several else contextlib.nullcontext():
        kernel[grid](*tensors, **arguments)


def convolve(
    out: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
    epilogue: Epilogue,
    settings: Settings | None = None,
) -> None:
    """Writes a convolution and its epilogue to ``out``, or adds them to it where it is ``epilogue.into``.

    Args:
        out: B, O, Ho, Wo, or B, P, Ho, Wo with a projection.
        x: B, C, H, W.
        offset: B, 2K, Ho, Wo.
        weight: O, C, kernel height, kernel width.
        mask: B, K, Ho, Wo, or None.
        geometry: Where the kernel's points are before they are moved.
        epilogue: A projection must be to MOST_PROJECTED channels at most.
        settings: How the work is cut; None for the table's.
    """
    batch, _, *size = offset.shape
    x, taps = channels_last(x), _by_tap(weight, x.dtype)
    settings = settings or _settings(FORWARD, x, offset)
    blocks = _blocks(settings, x, len(weight), size[1])
    factors = offset if mask is None else mask
    bias = x if epilogue.bias is None else epilogue.bias
    projected = 0 if epilogue.projection is None else len(epilogue.projection)
    projection = weight[:, :, 0, 0] if epilogue.projection is None else epilogue.projection.to(x.dtype)
    _launch(
        kernels.forward,
        (batch * _tiles(size, blocks), 1 if projected else -(-len(weight) // blocks["BLOCK_O"])),
        out, x, offset, factors, taps, bias, projection,
        **_common(x, offset, weight, mask, geometry), **_weight_strides(taps), **_strides("out", out), **blocks,
        taps=weight.shape[2] * weight.shape[3],
        projection_in=projection.stride(1), projection_out=projection.stride(0),
        PROJECTED=projected, BLOCK_P=_power_of_two(projected, 16, MOST_PROJECTED),
        BIASED=epilogue.bias is not None, RELU=epilogue.activation == "relu", ACCUMULATE=epilogue.into is not None,
        WIDE=_is_wide(x, offset, factors, out), PRECISION=_float32_precision(x.device),
    )  # fmt: skip


def backward_samples(
    by_out: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
    wanted: Sequence[bool] = (True, True),
    settings: Settings | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the map, the offsets and the mask.

    Args:
        by_out: B, O, Ho, Wo in x's dtype.
        x: B, C, H, W, channels last.
        offset: B, 2K, Ho, Wo.
        weight: O, C, kernel height, kernel width.
        mask: B, K, Ho, Wo, or None.
        geometry: Where the kernel's points are before they are moved.
        wanted: Whether those of the map, and whether those of offsets and mask are to be computed.
        settings: How the work is cut; None for the table's.

    Returns:
        In the shapes of x (float32), offset and mask.
    """
    batch, channels, *map_size = x.shape
    size, points = offset.shape[2:], weight.shape[2] * weight.shape[3]
    taps = _by_tap(weight, x.dtype)
    settings = settings or _settings(SAMPLES, x, offset)
    blocks = _blocks(settings, x, len(weight), size[1])
    factors = offset if mask is None else mask
    sum_shape = (batch, *map_size, channels) if wanted[0] else (1, 1, 1, 1)
    by_x = torch.zeros(sum_shape, dtype=torch.float32, device=x.device)
    by_offset = torch.empty(batch, *size, 2 * points, dtype=offset.dtype, device=x.device)
    by_mask = torch.empty(batch, *size, points, dtype=factors.dtype, device=x.device)
    _launch(
        kernels.backward_samples,
        (batch * _tiles(size, blocks),),
        by_out, x, offset, factors, taps, by_x, by_offset, by_mask,
        **_common(x, offset, weight, mask, geometry), **_weight_strides(taps), **_strides("out", by_out), **blocks,
        taps=points, MAP=wanted[0], PLACES=wanted[1],
        WIDE=_is_wide(x, offset, factors, by_out), PRECISION=_float32_precision(x.device),
    )  # fmt: skip
    return by_x.permute(0, 3, 1, 2), by_offset.permute(0, 3, 1, 2), by_mask.permute(0, 3, 1, 2)


def backward_weight(
    by_out: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
    settings: Settings | None = None,
) -> Tensor:
    """Gradient of the weights, in their shape and float32. Arguments as of ``backward_samples``."""
    batch, channels = x.shape[:2]
    size, points = offset.shape[2:], weight.shape[2] * weight.shape[3]
    settings = settings or _settings(WEIGHT, x, offset)
    blocks = _blocks(settings, x, len(weight), size[1])
    factors = offset if mask is None else mask
    by_weight = torch.zeros(*weight.shape[2:], channels, len(weight), dtype=torch.float32, device=x.device)
    tiles = batch * _tiles(size, blocks)
    parts = -(-channels // blocks["BLOCK_C"]) * -(-len(weight) // blocks["BLOCK_O"])
    splits = min(tiles, max(1, WEIGHT_PROGRAMS // (points * parts)))
    _launch(
        kernels.backward_weight,
        (points, parts, splits),
        by_out, x, offset, factors, by_weight,
        **_common(x, offset, weight, mask, geometry), **_strides("out", by_out), **blocks,
        tiles=tiles, splits=splits,
        WIDE=_is_wide(x, offset, factors, by_out), PRECISION=_float32_precision(x.device),
    )  # fmt: skip
    return by_weight.permute(3, 2, 0, 1)
