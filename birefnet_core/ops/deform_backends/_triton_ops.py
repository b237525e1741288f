"""The Triton kernels as operators of torch, with a backward pass.

torch's ``triton_op`` lets compile and export see the kernels. Before torch 2.6, and where the kernels are
interpreted, they are opaque.

Shapes: B batch, C input channels, O output channels, P channels after the projection, H W input map, Ho Wo output
map, K = kernel height * kernel width sampling points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, library

from ..deform_sampling import Geometry
from . import _triton_launch as launch
from .epilogue import Epilogue


def empty(x: Tensor, offset: Tensor, channels: int) -> Tensor:
    """B, channels, Ho, Wo in x's dtype, channels last."""
    size = (x.shape[0], channels, *offset.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _make_geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], first_row: int) -> Geometry:
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), first_row)


def _operator(signature: str, fake: Callable[..., Any], mutates: Sequence[str] = ()) -> Callable[..., Any]:
    """Registers a function with torch.

    Args:
        signature: Name and schema, which torch 2.4 cannot infer from annotations that are strings.
        fake: Results of the right shapes, where the function itself cannot be traced.
        mutates: Names of the arguments that it changes.
    """
    name, _, schema = signature.partition("(")
    options: dict[str, Any] = {"mutates_args": mutates, "schema": f"({schema}"}

    def register(function: Callable[..., Any]) -> Any:
        if hasattr(library, "triton_op") and not launch.INTERPRETED:
            return library.triton_op(f"birefnet::{name}", **options)(function)
        operator = library.custom_op(f"birefnet::{name}", **options)(function)
        operator.register_fake(fake)
        return operator

    return register


_INPUTS = (
    "Tensor x, Tensor offset, Tensor weight, Tensor? mask, int[] stride, int[] padding, int[] dilation, int first_row"
)


def _fake_backward(by_out: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, *rest: Any) -> Any:
    wanted = rest[-1]
    factors = offset if mask is None else mask
    by_x = empty(x, x, x.shape[1]) if wanted[0] else x.new_empty(0)
    by_weight = torch.empty_like(weight, memory_format=torch.contiguous_format) if wanted[2] else x.new_empty(0)
    if wanted[1] or wanted[3]:
        points = offset.shape[1] // 2
        return by_x, empty(offset, offset, 2 * points), by_weight, empty(factors, factors, points)
    return by_x, x.new_empty(0), by_weight, x.new_empty(0)


@_operator(f"deform_conv2d({_INPUTS}) -> Tensor", lambda x, offset, weight, *_: empty(x, offset, len(weight)))
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
    launch.convolve(out, x, offset, weight, mask, _make_geometry(stride, padding, dilation, first_row), Epilogue())
    return out


@_operator(
    f"deform_conv2d_out(Tensor(a!) out, {_INPUTS}, Tensor? bias, bool relu, Tensor? projection, bool accumulate) -> ()",
    lambda *_: None,
    ("out",),
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
    """``launch.convolve``, for inference."""
    epilogue = Epilogue(bias, "relu" if relu else "none", projection, out if accumulate else None)
    geometry = _make_geometry(stride, padding, dilation, first_row)
    launch.convolve(out, x, offset, weight, mask, geometry, epilogue)


@_operator(
    f"deform_conv2d_backward(Tensor by_out, {_INPUTS}, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
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
    by_out, x = launch.channels_last(by_out.to(x.dtype)), launch.channels_last(x)
    by_x, by_offset, by_weight, by_mask = (x.new_empty(0) for _ in range(4))
    places = wanted[1] or wanted[3]
    if wanted[0] or places:
        samples = launch.backward_samples(by_out, x, offset, weight, mask, geometry, (wanted[0], places))
        if wanted[0]:
            by_x = samples[0].to(x.dtype)
        if places:
            by_offset, by_mask = samples[1:]
    if wanted[2]:
        # Dense as the weight, which the buckets of DistributedDataParallel expect.
        by_weight = launch.backward_weight(by_out, x, offset, weight, mask, geometry).to(weight.dtype).contiguous()
    return by_x, by_offset, by_weight, by_mask


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
