"""Files -> colours and mask.

Shapes: H W pixels; floats in [0, 1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ...errors import DatasetError, ImageError
from ...image_ops import resize
from ...images import read_image
from ...mask_files import MaskFile, read_mask
from ...text import first_line
from .folders import Pair

# Relative difference of aspect ratios above which a mask does not belong to its image.
_OTHER_SHAPE = 0.01
# What Pillow raises for files that are missing, truncated, malformed or too large.
READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError)


def read_label(path: Path) -> MaskFile:
    """Reads a mask to train on, by the rule scoring reads it by; floats out of [0, 1] are clamped.

    Raises:
        DatasetError: Not readable.
    """
    return read_mask(path, clamp=True)


def read_pair(pair: Pair) -> tuple[Tensor, Tensor]:
    """An image and its mask.

    Returns:
        Colours H, W, 3 and mask H, W.

    Raises:
        DatasetError: One cannot be read, or they are of different shapes.
    """
    if pair.mask is None:
        return read_cutout(pair.image)
    try:
        colours = read_image(pair.image)
    except ImageError as error:
        raise DatasetError(str(error)) from error
    mask = torch.from_numpy(read_label(pair.mask).values)  # h w
    check_shapes(mask.shape, colours.shape[:2], pair)
    return colours, resize(mask[None, None], colours.shape[:2])[0, 0]


def read_cutout(path: Path) -> tuple[Tensor, Tensor]:
    """An image whose alpha channel is the mask: colours H, W, 3 and mask H, W.

    Raises:
        DatasetError: Not readable, or without alpha channel.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if "A" not in image.getbands() and "transparency" not in image.info:
                raise DatasetError(
                    f"{path}: no alpha channel ({image.mode}), so there is no mask. Give masks by --images and --masks."
                )
            pixels = torch.from_numpy(np.array(image.convert("RGBA"))).float() / 255  # H W 4
    except READ_ERRORS as error:
        raise DatasetError(f"{path}: the image cannot be read ({first_line(error)}).") from error
    return pixels[..., :3], pixels[..., 3]


def check_shapes(mask: tuple[int, ...], image: tuple[int, ...], pair: Pair) -> None:
    """Checks that a mask has its image's aspect ratio, at any scale.

    Args:
        mask: Height and width of the mask.
        image: Height and width of the image.
        pair: For the message.

    Raises:
        DatasetError: It has another.
    """
    stretch = mask[0] * image[1] / (mask[1] * image[0])
    if max(stretch, 1 / stretch) > 1 + _OTHER_SHAPE:
        turned = " The image may be turned by its EXIF orientation." if tuple(mask) == tuple(image[::-1]) else ""
        raise DatasetError(
            f"{pair.mask}: the mask is {mask[1]} x {mask[0]} pixels, its image {image[1]} x {image[0]}; they must have "
            f"the same aspect ratio.{turned}"
        )
