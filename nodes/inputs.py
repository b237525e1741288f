"""Inputs of nodes, brought to one form: what other nodes send is not always what the socket's name promises.

Masks come as H, W, as B, 1, H, W, as bool; images in float8; numbers and options over links, which ComfyUI does not
check. What cannot be understood is refused with a sentence.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..birefnet_core import ConfigError, ImageError
from ..birefnet_core.image_ops import check_dense, mask_batch
from .comfy_compat import io
from .readable_errors import readable_errors

CHANNELS = (1, 3, 4)
COMPUTABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # float8 has hardly any operation


def checked(execute: Callable) -> Callable:
    """Makes an ``execute`` whose images, masks, numbers, switches and texts are what its schema says.

    Its errors are shown without a module path, see ``readable_errors``.

    Raises:
        ImageError: An image or mask that is none.
        ConfigError: Another value of the wrong type, or a number out of its range.
    """
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def run(cls: type[io.ComfyNode], *args: Any, **kwargs: Any) -> io.NodeOutput:
        bound = signature.bind(cls, *args, **kwargs)
        further = bound.arguments.get(_rest(signature), {})
        for wanted in cls.define_schema().inputs:
            for values in (bound.arguments, further):
                if wanted.id in values:
                    values[wanted.id] = _read(wanted, values[wanted.id])
        return execute(*bound.args, **bound.kwargs)

    return readable_errors(run)


def as_images(value: Any, name: str) -> Tensor:
    """Images B, H, W, C with C of 1, 3 or 4, as they came but for float8.

    Raises:
        ImageError: No such images, or none of them.
    """
    images = _tensor(value, name, "an image")
    if images.ndim != 4 or (images.shape[-1] not in CHANNELS and 0 not in images.shape):
        hint = " It looks like a mask: Convert Mask to Image makes an image of it." if images.ndim < 4 else ""
        hint = " It is one image without a batch." if images.ndim == 3 and images.shape[-1] in (3, 4) else hint
        raise ImageError(f"{name} has shape {_shape(images)}, expected images B x H x W with 1, 3 or 4 channels.{hint}")
    return images


def as_masks(value: Any, name: str) -> Tensor:
    """Masks B, H, W in a type that can be computed with: H, W and B, 1, H, W and B, H, W, 1 are taken, and bool.

    Raises:
        ImageError: No mask.
    """
    masks = _tensor(value, name, "a mask")
    if masks.ndim == 4 and 1 not in (masks.shape[1], masks.shape[3]):
        raise ImageError(
            f"{name} has shape {_shape(masks)}, expected masks B x H x W. It looks like an image: Convert Image to "
            "Mask makes a mask of it."
        )
    return mask_batch(masks, name)


def expect(value: Any, kind: type, name: str, source: str) -> None:
    """Raises a ConfigError if a value is not what the named node makes."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {_found(value)}, expected what {source} gives: connect that node.")


def _read(wanted: Any, value: Any) -> Any:
    for kind, read in _READERS.items():
        if isinstance(wanted, kind):
            optional_socket = value is None and wanted.optional and kind in (io.Image.Input, io.Mask.Input)
            return None if optional_socket else read(wanted, value)
    return value  # a custom type, or an option, which `pick` checks


def _tensor(value: Any, name: str, what: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ImageError(f"{name} is {_found(value)}, expected {what}: check the node that is connected to it.")
    check_dense(value, name)
    return value if value.dtype in COMPUTABLE or not value.is_floating_point() else value.float()


def _number(wanted: Any, value: Any, whole: bool) -> int | float:
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    try:
        approximate = float(number)
        number = number if isinstance(number, int) else approximate
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    kind = "a whole number" if whole else "a number"
    low, high = getattr(wanted, "min", None), getattr(wanted, "max", None)
    limits = f" from {low:.10g} to {high:.10g}" if low is not None and high is not None else ""
    fits = math.isfinite(number) and (not whole or number == int(number))
    # Sliders send 0.99 as 0.9900000000000001.
    fits = fits and (low is None or number >= low - 1e-6) and (high is None or number <= high + 1e-6)
    if not fits:
        raise ConfigError(f"{wanted.id} is {_found(value)}, expected {kind}{limits}.")
    number = number if low is None else max(number, low)
    number = number if high is None else min(number, high)
    return int(number) if whole else float(number)


def _switch(wanted: Any, value: Any) -> bool:
    if isinstance(value, bool | int | float) and value in (True, False):
        return bool(value)
    raise ConfigError(f"{wanted.id} is {_found(value)}, expected true or false.")


def _text(wanted: Any, value: Any) -> str:
    if value is None and wanted.optional:
        return ""
    if isinstance(value, str):
        return value
    raise ConfigError(f"{wanted.id} is {_found(value)}, expected text.")


def _found(value: Any) -> str:
    """A value in a message."""
    if value is None:
        return "empty (None)"
    if isinstance(value, Tensor):
        return f"a tensor of shape {_shape(value)}"
    return f"{value!r}" if isinstance(value, str | int | float | bool) else type(value).__name__


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "()"


def _rest(signature: inspect.Signature) -> str:
    """Name of the parameter that takes all further keyword arguments, or ""."""
    return next((p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), "")


_READERS: dict[type, Callable[[Any, Any], Any]] = {
    io.Image.Input: lambda wanted, value: as_images(value, wanted.id),
    io.Mask.Input: lambda wanted, value: as_masks(value, wanted.id),
    io.Int.Input: lambda wanted, value: _number(wanted, value, whole=True),
    io.Float.Input: lambda wanted, value: _number(wanted, value, whole=False),
    io.Boolean.Input: _switch,
    io.String.Input: _text,
}
