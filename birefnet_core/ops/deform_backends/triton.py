"""Deformable convolution as fused Triton kernels, for GPUs: no columns in memory, forward or backward.

Positions, bilinear weights and sums are in float32. Products are in the precision of autocast or of the map; those of
float32 are in TF32 where ``torch.backends.cuda.matmul`` allows it.

Shapes: B batch, C input channels, O output channels, P channels after the projection, H W input map, Ho Wo output
map, K sampling points.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ...text import first_line
from ..deform_sampling import Geometry
from . import BackendUnavailableError
from . import _triton_launch as launch
from . import _triton_ops as ops
from .epilogue import Epilogue


@cache
def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot be used for maps of that kind, or None where they can."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the Triton kernels do not compute in {str(dtype).removeprefix('torch.')}"
    if launch.INTERPRETED:
        if device.type != "cpu":
            return "TRITON_INTERPRET is set, which is for tests on the CPU"
        return "Triton's interpreter has no products of bfloat16" if dtype == torch.bfloat16 else None
    if device.type != "cuda":
        return f"the Triton kernels are for CUDA and ROCm devices, not for {device.type}"
    if not torch.cuda.is_available():
        return "this machine has no such device"
    if torch.version.hip is not None:
        architecture = torch.cuda.get_device_properties(device).gcnArchName
        if dtype == torch.float32 and not architecture.startswith("gfx9"):
            return f"{architecture} has no matrix products of float32"
        return None
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:  # Triton has dropped the tensor cores of older cards, and its kernels are slower there than torch's
        return f"the Triton kernels need compute capability 8.0; this device has {major}.{minor}"
    return None


def run(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry, epilogue: Epilogue
) -> Tensor:
    """See ``deform_conv2d``.

    Raises:
        BackendUnavailableError: The kernels could not be compiled or loaded.
    """
    tensors = (x, offset, weight, mask, epilogue.bias, epilogue.projection)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        compute = _differentiable
    else:
        compute = _fused
    if torch.compiler.is_compiling():
        return compute(x, offset, weight, mask, geometry, epilogue)
    try:
        return compute(x, offset, weight, mask, geometry, epilogue)
    except Exception as error:
        # What compiling or loading can raise is open-ended: no C compiler, no assembler, too little shared memory,
        # a Triton that does not fit this torch. Not so where memory is short or an earlier kernel failed.
        own = isinstance(error, torch.cuda.OutOfMemoryError) or "CUDA error" in str(error)
        if own or "out of memory" in str(error):
            raise
        raise BackendUnavailableError(f"the Triton kernels cannot be compiled here: {first_line(error)}") from error


def _differentiable(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry, epilogue: Epilogue
) -> Tensor:
    """The convolution by the kernels, what follows by torch."""
    y = ops.deform_conv2d(x.to(_product_dtype(x)), offset, weight, mask, *_lists(geometry))
    y = epilogue.finish(y.movedim(1, 3)).movedim(3, 1)
    return epilogue.collect([(slice(0, y.shape[2]), y)], x.dtype)


def _fused(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, geometry: Geometry, epilogue: Epilogue
) -> Tensor:
    """All by one kernel."""
    if epilogue.projection is not None and len(epilogue.projection) > launch.MOST_PROJECTED:
        y = _fused(x, offset, weight, mask, geometry, epilogue._replace(projection=None, into=None))
        y = Epilogue(projection=epilogue.projection).finish(y.movedim(1, 3)).movedim(3, 1)
        return epilogue.collect([(slice(0, y.shape[2]), y)], x.dtype)
    dtype, x = x.dtype, x.to(_product_dtype(x))
    out = epilogue.into
    if out is None:
        out = ops.empty(x, offset, epilogue.out_channels(weight))
    if torch.compiler.is_compiling() or type(x) not in (Tensor, torch.nn.Parameter):
        relu = epilogue.activation == "relu"
        ops.deform_conv2d_out(
            out, x, offset, weight, mask, *_lists(geometry), epilogue.bias, relu, epilogue.projection,
            epilogue.into is not None,
        )  # fmt: skip
    else:  # without the dispatcher, which takes longer than a small kernel
        launch.convolve(out, x, offset, weight, mask, geometry, epilogue)
    return out if epilogue.into is not None else out.to(dtype)


def _lists(geometry: Geometry) -> tuple[list[int], list[int], list[int], int]:
    return list(geometry.stride), list(geometry.padding), list(geometry.dilation), geometry.first_row


def _product_dtype(x: Tensor) -> torch.dtype:
    """Autocast narrows products; positions and sums stay in float32."""
    kind = x.device.type
    if x.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype
