"""Files -> colours and mask, for every kind of mask people have.

Shapes: H W pixels; floats in [0, 1].
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import DatasetError, ImageError
from ..images import read_image
from .data import Pair

# Relative difference of aspect ratios above which a mask does not belong to its image.
_OTHER_SHAPE = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask:
    """A mask as read.

    Attributes:
        values: H, W float32.
        labels: Whether the file holds the labels 0 and 1 instead of grey levels.
    """

    values: Tensor
    labels: bool = False


def read_mask(path: Path) -> Mask:
    """Reads a mask: 1, 8 or 16 bits of grey, colours, or a palette (any colour but the first is the object).

    A file of the labels 0 and 1 is brought to 0 and 255; an RGB file is averaged.

    Raises:
        DatasetError: Not readable.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode == "P" and not _is_grey(image):
                return Mask(values=torch.from_numpy((np.asarray(image) > 0).astype(np.float32)), labels=True)
            if image.mode.startswith("I"):
                return Mask(values=torch.from_numpy(np.asarray(image).astype(np.float32) / 65535).clamp(0, 1))
            if image.mode == "1":
                return Mask(values=torch.from_numpy(np.asarray(image).astype(np.float32)))
            if image.mode == "F":
                return Mask(values=torch.from_numpy(np.array(image)).clamp(0, 1))
            grey = np.array(image if image.mode == "L" else image.convert("RGB").convert("L"))
    except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: the mask cannot be read ({_first_line(error)}).") from error
    labels = bool(grey.size) and int(grey.max()) == 1
    return Mask(values=torch.from_numpy(grey).float() / (1 if labels else 255), labels=labels)


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
    return colours, fit_mask(read_mask(pair.mask).values, tuple(colours.shape[:2]), pair)


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
    except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: the image cannot be read ({_first_line(error)}).") from error
    return pixels[..., :3], pixels[..., 3]


def fit_mask(mask: Tensor, size: tuple[int, ...], pair: Pair) -> Tensor:
    """Brings a mask to its image's height and width, if it is the same picture at another scale.

    Raises:
        DatasetError: It is of another shape.
    """
    if tuple(mask.shape) == size:
        return mask
    check_shapes(tuple(mask.shape), size, pair)
    return torch.nn.functional.interpolate(mask[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def check_shapes(mask: tuple[int, ...], image: tuple[int, ...], pair: Pair) -> None:
    """Raises DatasetError if a mask (height, width) is not the shape of its image (height, width)."""
    stretch = mask[0] * image[1] / (mask[1] * image[0])
    if max(stretch, 1 / stretch) > 1 + _OTHER_SHAPE:
        turned = " The image may be turned by its EXIF orientation." if mask == image[::-1] else ""
        raise DatasetError(
            f"{pair.mask}: the mask is {mask[1]} x {mask[0]} pixels, its image {image[1]} x {image[0]}; they must be "
            f"one picture.{turned}"
        )


def _is_grey(image: Image.Image) -> bool:
    """Whether a palette is one of greys in which the indices have any order: then its colours are the mask."""
    used = {index for _, index in image.getcolors(256) or () if isinstance(index, int)}
    palette = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    colours = palette[[index for index in sorted(used) if index < len(palette)]]
    return bool(len(colours)) and bool((colours == colours[:, :1]).all())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
