"""Files -> colours and mask.

Shapes: H W pixels; floats in [0, 1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...colour_profiles import profile_of
from ...errors import DatasetError, ImageError
from ...image_formats import image_formats
from ...image_ops import resize
from ...image_reading import ImageFile, read_image_file
from ...mask_files import MaskFile, read_mask
from ...mask_values import FRAMES, read_transparency
from ...pillow_files import has_more_frames, header_of, load_pixels, orientation, to_full_size, upright
from ...unknown_images import why_unreadable
from .folders import Pair

# Relative difference of aspect ratios above which a mask does not belong to its image.
_OTHER_SHAPE = 0.01


def read_pair(pair: Pair) -> tuple[Tensor, Tensor]:
    """An image and its mask.

    Returns:
        Colours H, W, 3 and mask H, W.

    Raises:
        DatasetError: One cannot be read, or they are of different shapes.
    """
    if pair.mask is None:
        colours, alpha = read_cutout(pair.image)
        return colours, torch.from_numpy(alpha.values)
    colours = read_colours(pair.image)
    mask = torch.from_numpy(read_mask(pair.mask).values)  # h w
    check_shapes(mask.shape, colours.shape[:2], pair)
    return colours, resize(mask[None, None], colours.shape[:2])[0, 0]


def read_colours(path: Path) -> Tensor:
    """An image, H, W, 3.

    Raises:
        DatasetError: Not readable.
    """
    return read_photo(path).colours


def read_photo(path: Path) -> ImageFile:
    """``read_image_file`` with the errors of data.

    Raises:
        DatasetError: Not readable.
    """
    try:
        return read_image_file(path)
    except ImageError as error:
        raise DatasetError(str(error)) from error
    except MemoryError as error:
        raise DatasetError(f"{path}: too little memory to read the image; make it smaller.") from error


def read_cutout(path: Path) -> tuple[Tensor, MaskFile]:
    """An image whose alpha channel is the mask: colours H, W, 3 and mask H, W.

    Raises:
        DatasetError: Not readable, or without alpha channel.
    """
    try:
        with Image.open(path, formats=image_formats()) as image:
            to_full_size(image)
            header = header_of(image)
            plain = header.coding is None and not profile_of(image) and ";16" not in header.packing
            load_pixels(image)
            mode, transparent = image.mode, "A" in image.getbands() or "transparency" in image.info
            turn = orientation(image)
            pixels = upright(np.array(image.convert("RGBA")), turn)  # H W 4
            several = has_more_frames(image)
    except MemoryError as error:
        raise DatasetError(f"{path}: too little memory to read the image; make it smaller.") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise DatasetError(f"{path}: the image cannot be read ({why_unreadable(path, error)}).") from error
    if not transparent:
        raise DatasetError(
            f"{path}: no alpha channel ({mode}), so there is no mask. Give masks by --images and --masks."
        )
    alpha, found, notes = read_transparency(np.ascontiguousarray(pixels[..., 3]))
    notes = (*notes, FRAMES) if several else notes
    mask = MaskFile(pixels=alpha, notes=notes, found=f"{found} in the alpha channel")
    if not plain:  # colours of another kind, as segmenting reads them
        return read_photo(path).colours, mask
    return torch.from_numpy(pixels[..., :3].astype(np.float32) / np.float32(255)), mask


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
