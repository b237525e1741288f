"""What a Segmenter takes besides batches of images, and its masks in the same kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ImageError
from ..image_ops import check_dense, validate_images
from ..image_reading import ImageFile, read_image_file, read_pil_image
from ..images import to_bytes

ImageInput = Tensor | np.ndarray | Image.Image | str | os.PathLike
CHANNELS = (1, 3, 4)
TOPS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # values of white


class Batch(NamedTuple):
    """Images as the network takes them.

    Attributes:
        images: B, H, W, C float in [0, 1] with C = 1, 3 or 4.
        in_kind: Makes what the caller gets of the masks B, H, W.
    """

    images: Tensor
    in_kind: Callable[[Tensor], Any]


def as_batch(value: ImageInput) -> Batch:
    """Images of any kind as a batch.

    Args:
        value: A tensor B, H, W, C or H, W, C, float in [0, 1]; an array B, H, W, C or H, W, C or H, W, float in [0, 1]
            or uint8 or uint16; a PIL image of any mode; the path of an image file, which is turned upright.

    Returns:
        The batch. Masks in kind are a tensor or a float32 array without the dimensions that were missing, and a PIL
        image of mode "L" for a PIL image or a path.

    Raises:
        ImageError: None of these, or of another shape, type or range; a file that is no image.
        MemoryLimitError: Too little memory to read a file.
    """
    if isinstance(value, Image.Image):
        return _of_file(read_pil_image(value))
    if isinstance(value, str | os.PathLike):
        return _of_file(read_image_file(os.fspath(value)))
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, Tensor):
        check_dense(value, "images")
    single = isinstance(value, Tensor) and value.ndim == 3 and value.shape[-1] in CHANNELS
    images = value[None] if single else value
    validate_images(images, channels=CHANNELS)
    return Batch(images, _first if single else _unchanged)


def _of_file(file: ImageFile) -> Batch:
    channels = [file.colours] if file.alpha is None else [file.colours, file.alpha[..., None]]
    return Batch(torch.cat(channels, dim=-1)[None], lambda masks: Image.fromarray(to_bytes(masks[0])))


def _of_array(array: np.ndarray) -> Batch:
    expected = "expected H, W or H, W, C or B, H, W, C with 1, 3 or 4 channels"
    if array.ndim not in (2, 3, 4) or (array.ndim > 2 and array.shape[-1] not in CHANNELS):
        hint = ""
        if array.ndim > 2 and array.shape[-3] in CHANNELS:
            hint = ": channels come last, use np.moveaxis(images, -3, -1)"
        raise ImageError(f"images is an array of shape {array.shape}, {expected}{hint}.")
    top = TOPS.get(array.dtype.newbyteorder("="))
    if top is None and array.dtype.kind != "f":
        raise ImageError(f"images is an array of {array.dtype}, expected uint8, uint16, or floats in [0, 1].")
    values = torch.from_numpy(np.require(array, np.float32, ["C", "W", "E"]))  # torch warns of read-only arrays
    if top is not None:
        values = values / top
    images = values[..., None] if array.ndim == 2 else values  # H W C or B H W C
    images = images if array.ndim == 4 else images[None]
    validate_images(images, channels=CHANNELS)
    return Batch(images, lambda masks: (masks if array.ndim == 4 else masks[0]).numpy())


def _first(masks: Tensor) -> Tensor:
    return masks[0]


def _unchanged(masks: Tensor) -> Tensor:
    return masks
