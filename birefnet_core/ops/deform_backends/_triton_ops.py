"""Launches of the Triton kernels, and their registration as operators of torch.

``torch.library.triton_op`` lets compile and export see the kernels; before torch 2.6 they are opaque.

Shapes: B batch, C input channels, O output channels, P channels after the projection, H W input map, Ho Wo output
map, K = kernel height * kernel width sampling points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ..deform_sampling import Geometry
from . import _triton_kernels as kernels
from .epilogue import Epilogue

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
# cards, which have no asynchronous copies, take one stage.
FORWARD = {
    "half": Settings((8, 8), 64, 256, 8, 2),
    "half small": Settings((4, 4), 64, 256, 4, 2),
    "float": Settings((4, 8), 32, 128, 8, 2),
}
SAMPLES = {
    "half": Settings((8, 8), 64, 256, 8, 1),
    "float": Settings((4, 8), 32, 64, 8, 1),
}
WEIGHT = {
    "half": Settings((8, 8), 64, 256, 8, 2),
    "float": Settings((4, 8), 32, 128, 8, 1),
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
    positions = settings.tile[0] * settings.tile[1]
    tile_width = _power_of_two(width, 1, settings.tile[1])
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


def _channels_last(x: Tensor) -> Tensor:
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
    if hasattr(torch.library, "wrap_triton") and isinstance(kernel, triton.runtime.JITFunction):
        kernel = torch.library.wrap_triton(kernel)
    device = tensors[0].device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
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
    x, taps = _channels_last(x), _by_tap(weight, x.dtype)
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
    by_x = torch.zeros(batch, *map_size, channels, dtype=torch.float32, device=x.device)
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


# Operators. Their schemas are given because torch 2.4 cannot infer those of postponed annotations.

_register: Any = getattr(torch.library, "triton_op", torch.library.custom_op)
_GEOMETRY = "int[] stride, int[] padding, int[] dilation, int first_row"
_INPUTS = f"Tensor x, Tensor offset, Tensor weight, Tensor? mask, {_GEOMETRY}"


def empty(x: Tensor, offset: Tensor, channels: int) -> Tensor:
    """B, channels, Ho, Wo, channels last."""
    size = (x.shape[0], channels, *offset.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _make_geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], first_row: int) -> Geometry:
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), first_row)


@_register("birefnet::deform_conv2d", mutates_args=(), schema=f"({_INPUTS}) -> Tensor")
def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    first_row: int,
) -> Tensor:
    """The convolution alone, which has a backward pass: B, O, Ho, Wo in x's dtype."""
    out = empty(x, offset, len(weight))
    convolve(
        out, x, offset, weight, mask, _make_geometry(stride, padding, dilation, first_row), Epilogue()
    )
    return out


@_register(
    "birefnet::deform_conv2d_out",
    mutates_args=("out",),
    schema=f"(Tensor(a!) out, {_INPUTS}, Tensor? bias, bool relu, Tensor? projection, bool accumulate) -> ()",
)
def deform_conv2d_out(
    out: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    first_row: int,
    bias: Tensor | None,
    relu: bool,
    projection: Tensor | None,
    accumulate: bool,
) -> None:
    """``convolve``, for inference."""
    epilogue = Epilogue(bias, "relu" if relu else "none", projection, out if accumulate else None)
    geometry = _make_geometry(stride, padding, dilation, first_row)
    convolve(out, x, offset, weight, mask, geometry, epilogue)


@_register(
    "birefnet::deform_conv2d_backward",
    mutates_args=(),
    schema=f"(Tensor by_out, {_INPUTS}, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor)",
)
def deform_conv2d_backward(
    by_out: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    first_row: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, offset, weight and mask, empty where they are not wanted."""
    geometry = _make_geometry(stride, padding, dilation, first_row)
    by_out, x = _channels_last(by_out.to(x.dtype)), _channels_last(x)
    by_x, by_offset, by_weight, by_mask = (x.new_empty(0) for _ in range(4))
    map_wanted, places_wanted = wanted[0], wanted[1] or wanted[3]
    if map_wanted or places_wanted:
        both = (map_wanted, places_wanted)
        by_x, by_offset, by_mask = backward_samples(by_out, x, offset, weight, mask, geometry, both)
    if wanted[2]:
        # Dense as the weight, which the buckets of DistributedDataParallel expect.
        by_weight = backward_weight(by_out, x, offset, weight, mask, geometry).to(weight.dtype).contiguous()
    return by_x.to(x.dtype), by_offset, by_weight, by_mask


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.arguments = inputs[4:]


def _backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, ...]:
    if torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(
            "The backward pass of deform_conv2d with backend='triton' adds gradients in no fixed order, but "
            "torch.use_deterministic_algorithms(True) is set; use backend='gather'."
        )
    wanted = ctx.needs_input_grad[:4]
    gradients = deform_conv2d_backward(by_out, *ctx.saved_tensors, *ctx.arguments, list(wanted))
    some = [gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)]
    return (*some, None, None, None, None)


deform_conv2d.register_autograd(_backward, setup_context=_setup_context)
