"""Modulated deformable convolution (DCNv2, Zhu et al., 2019, https://arxiv.org/abs/1811.11168).

Shapes: B batch, C input channels, O output channels, P channels after the projection, H W input map, Ho Wo output map,
K = kernel height * kernel width sampling points.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.utils import _pair

from ..errors import ConfigError
from ..text import first_line
from . import deform_backends
from .deform_backends import BACKENDS, BackendUnavailableError
from .deform_backends.epilogue import Epilogue
from .deform_sampling import Geometry

ACTIVATIONS = ("none", "relu")

_auto: ContextVar[str] = ContextVar("backend of backend='auto'", default="auto")


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
    activation: str = "none",
    projection: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Convolution whose sampling points are moved by offsets and weighted by a mask.

    Conventions are those of ``torchvision.ops.deform_conv2d``: the map is zero outside its borders, and sampling is
    bilinear. In half precision, positions, bilinear weights and sums are in float32. Outputs that read a sample with an
    offset of NaN are NaN; a sample at an infinite offset is outside the map, and zero.

    Args:
        x: B, C, H, W.
        offset: B, 2K, Ho, Wo in pixels, (y, x) pairs in the order of the kernel's points.
        weight: O, C, kernel height, kernel width.
        mask: B, K, Ho, Wo factors of the samples, or None for ones.
        bias: O, or None.
        stride: Step between output positions, in pixels.
        padding: Zeros around the map, in pixels.
        dilation: Step between kernel points, in pixels.
        activation: "none", or "relu" after the bias.
        projection: P, O, a 1 x 1 convolution without bias after the activation, or None. Without gradients, the O
            channels before it exist for some rows at a time only.
        backend: One of ``BACKENDS``; "auto" is the fastest one that the device has.

    Returns:
        B, O, Ho, Wo, or B, P, Ho, Wo with a projection, in the dtype of ``x``; differentiable in all tensors.

    Raises:
        ConfigError: An unknown backend, one that cannot be used here, or shapes that do not fit.
    """
    geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation))
    epilogue = Epilogue(bias, activation, projection)
    _check_shapes(x, offset, weight, mask, epilogue)
    _check_output_size(x, offset, weight, geometry)
    return _run(backend, x, offset, weight, mask, geometry, epilogue)


def add_deform_conv2d(
    total: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    padding: int | tuple[int, int] = 0,
    activation: str = "none",
    projection: Tensor | None = None,
    first_row: int = 0,
    backend: str = "auto",
) -> None:
    """Adds a deformable convolution of stride 1 to a map, in place; for inference, where gradients are not wanted.

    Args:
        total: B, O, Ho, Wo, or B, P, Ho, Wo with a projection; changed in place.
        x: See ``deform_conv2d``; so are all others not named here.
        offset: B, 2K, h, Wo, of h output rows from ``first_row`` on; only these rows of ``total`` are changed.
        weight: O, C, kernel height, kernel width.
        mask: B, K, h, Wo, or None for ones.
        bias: O, or None.
        padding: Zeros around the map, in pixels.
        activation: "none" or "relu".
        projection: P, O, or None.
        first_row: The output row that ``offset`` and ``mask`` begin with.
        backend: One of ``BACKENDS``, or "auto".

    Raises:
        ConfigError: An unknown backend, one that cannot be used here, or shapes that do not fit.
    """
    rows = total[:, :, first_row : first_row + offset.shape[2]]
    epilogue = Epilogue(bias, activation, projection, rows)
    _check_shapes(x, offset, weight, mask, epilogue)
    expected = (x.shape[0], epilogue.out_channels(weight), *offset.shape[2:])
    if tuple(rows.shape) != expected:
        raise ConfigError(
            f"total {tuple(total.shape)} has {tuple(rows.shape)} from row {first_row} on; expected {expected}."
        )
    geometry = Geometry(padding=_pair(padding), first_row=first_row)
    _run(backend, x, offset, weight, mask, geometry, epilogue)


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """In this context ``backend="auto"`` means this one (for tests and benchmarks).

    Args:
        backend: One of ``BACKENDS``, or "auto".
    """
    token = _auto.set(backend)
    try:
        yield
    finally:
        _auto.reset(token)


def backend_in_use() -> str:
    """What ``backend="auto"`` means in this context: the backend of ``use_backend``, or "auto"."""
    return _auto.get()


def best_backend(device: torch.device, dtype: torch.dtype) -> str:
    """The fastest backend of a device outside of ``torch.compile`` and export.

    Args:
        device: Where the maps are.
        dtype: Of the maps.
    """
    if device.type == "cpu":
        return "embedding_bag"
    if device.type != "cuda":
        return "gather"
    reason = deform_backends.unavailable("triton", device, dtype)
    if reason is None:
        return "triton"
    _warn_once(reason)
    # torchvision computes positions in the precision of the map, so half precision would have to be float32.
    half = dtype in (torch.float16, torch.bfloat16)
    torchvision = not half and deform_backends.unavailable("torchvision", device, dtype) is None
    return "torchvision" if torchvision else "embedding_bag"


@cache
def _warn_once(reason: str) -> None:
    logging.getLogger(__name__).warning(
        "Deformable convolutions run without the Triton kernel, which is several times as fast: %s. "
        "Masks are the same.",
        reason,
    )


def _run(backend: str, x: Tensor, *arguments: Any) -> Tensor:
    """Runs a backend, or with "auto" the next one where it turns out that the best one cannot be used."""
    if torch.compiler.is_compiling():
        return getattr(deform_backends, _load_for_compiling(backend, x.device, x.dtype)).run(x, *arguments)
    automatic = backend == _auto.get() == "auto"
    name = _choose(backend, x)
    try:
        return deform_backends.load(name).run(x, *arguments)
    except BackendUnavailableError as error:
        deform_backends.remember_failure(name, x.device, x.dtype, first_line(error))
        if not automatic:
            raise ConfigError(f"backend={name!r} cannot be used here: {first_line(error)}; use 'auto'.") from error
    return _run(backend, x, *arguments)


def _choose(backend: str, x: Tensor) -> str:
    if backend == "auto":
        backend = _auto.get()
    if backend == "auto":
        return best_backend(x.device, x.dtype)
    if backend not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        raise ConfigError(f"backend={backend!r} is not known; choose 'auto' or one of {known}.")
    reason = deform_backends.unavailable(backend, x.device, x.dtype)
    if reason is not None:
        raise ConfigError(f"backend={backend!r} cannot be used here: {reason}; use backend='auto'.")
    return backend


@torch.compiler.assume_constant_result
def _load_for_compiling(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Imports the backend that is to be compiled, since the compiler cannot trace an import, and gives its name."""
    if backend == "auto":
        fused = device.type == "cuda" and deform_backends.unavailable("triton", device, dtype) is None
        backend = "triton" if fused else "gather"
    deform_backends.load(backend)
    return backend


def _check_shapes(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, epilogue: Epilogue) -> None:
    points = weight.shape[2] * weight.shape[3]
    if x.shape[1] != weight.shape[1]:
        raise ConfigError(f"weight {tuple(weight.shape)} expects {weight.shape[1]} channels, x has {x.shape[1]}.")
    if offset.shape[1] != 2 * points or (mask is not None and mask.shape[1] != points):
        found = f"offset {tuple(offset.shape)}" + ("" if mask is None else f", mask {tuple(mask.shape)}")
        raise ConfigError(f"{points} kernel points take {2 * points} offset and {points} mask channels; found {found}.")
    batch = x.shape[0]  # len() would fix the batch size of an exported file
    masks_fit = mask is None or (mask.shape[0] == batch and mask.shape[2:] == offset.shape[2:])
    if offset.shape[0] != batch or not masks_fit:
        found = f"x {tuple(x.shape)}, offset {tuple(offset.shape)}"
        found += "" if mask is None else f", mask {tuple(mask.shape)}"
        raise ConfigError(f"x, offset and mask must agree in batch size, offset and mask in height and width; {found}.")
    channels = len(weight)
    if epilogue.bias is not None and tuple(epilogue.bias.shape) != (channels,):
        raise ConfigError(f"bias has shape {tuple(epilogue.bias.shape)}; expected {(channels,)}.")
    projection = epilogue.projection
    if projection is not None and (projection.dim() != 2 or projection.shape[1] != channels):
        raise ConfigError(f"projection has shape {tuple(projection.shape)}; expected (channels, {channels}).")
    if epilogue.activation not in ACTIVATIONS:
        raise ConfigError(f"activation={epilogue.activation!r} is not known; choose 'none' or 'relu'.")


def _check_output_size(x: Tensor, offset: Tensor, weight: Tensor, geometry: Geometry) -> None:
    expected = tuple(
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, pad, dilation, stride in zip(
            x.shape[2:], weight.shape[2:], geometry.padding, geometry.dilation, geometry.stride, strict=True
        )
    )
    if tuple(offset.shape[2:]) != expected or min(expected) < 1:
        raise ConfigError(
            f"offset has height and width {tuple(offset.shape[2:])}; "
            f"a map of {tuple(x.shape[2:])} with this kernel, stride, padding and dilation gives {expected}."
        )
