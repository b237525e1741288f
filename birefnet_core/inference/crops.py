"""Crop box for each image from a region: a mask or a box.

Shapes: B images, H W image, N regions (B, or 1 for all images). Boxes of callers are x, y, width, height in
pixels; a ``Box`` is left, top, right, bottom, the last two exclusive.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, ImageError
from ..image_ops import check_masks
from ..masks.crop import THRESHOLD, subject_boxes
from ..text import enumerate_names

logger = logging.getLogger(__name__)

Region = Tensor | Sequence | Mapping

MIN_MARGIN = 8  # pixels, a quarter of the coarsest feature's stride


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def cut(self, image: Tensor) -> Tensor:
        """The part of H, W or H, W, C inside the box, as a view."""
        return image[self.top : self.bottom, self.left : self.right]


def crop_boxes(region: Region | None, margin: float, images: int, height: int, width: int) -> list[Box | None]:
    """The crop of each image.

    Args:
        region: None for the whole image. A mask N, H, W, bool or float in [0, 1], whose pixels above 0.05 are the
            region; a mask of another size is stretched to the image. A box (x, y, width, height), or a
            mapping with these keys, or several: a sequence or a tensor N, 4. A box partly outside is clipped
            at the image's border. Of several, those of images without the subject may be empty: a mask without such
            pixels, or None instead of a box.
        margin: Added on every side, as a fraction of the region's longer side; unless 0, at least 8 pixels. Clipped
            at the image's border.
        images: B.
        height: H.
        width: W.

    Returns:
        B boxes, None for an empty region. Empty ones are logged, once for all.

    Raises:
        ConfigError: A margin that is not a number of at least 0.
        ImageError: A region of another form or number, outside the image, or all of them empty.
    """
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        raise ConfigError(f"margin={margin!r}: expected a number of at least 0, such as 0.1 for a tenth of the region.")
    if region is None:
        return [Box(0, 0, width, height)] * images
    found: list[Box | None]
    if isinstance(region, Tensor) and region.ndim == 3:
        found = _boxes_of_masks(region, height, width)
    else:
        listed = enumerate(_listed(region))
        found = [None if values is None else _box_inside(values, i, height, width) for i, values in listed]
    if len(found) not in (1, images):
        raise ImageError(f"found {len(found)} regions for {images} images: pass one for each image, or one for all.")
    _check_empty(found)
    found = [box and _widened(box, margin, height, width) for box in found]
    return found * images if len(found) == 1 else found


def _check_empty(found: Sequence[Box | None]) -> None:
    """Logs which regions are empty; raises an ImageError if all are."""
    empty = [str(index) for index, box in enumerate(found) if box is None]
    if len(empty) == len(found):
        which = "the region is" if len(found) == 1 else f"all {len(found)} regions are"
        raise ImageError(f"{which} empty: mark the subject in it, or leave the region out to use the whole image.")
    if empty:
        names = enumerate_names(empty, 8)
        logger.warning("The region is empty in these images, and so are their masks: %s.", names)


def _boxes_of_masks(masks: Tensor, height: int, width: int) -> list[Box | None]:
    """Masks N, h, w -> their boxes in an image of height x width; one at a time, for little memory."""
    if 0 in masks.shape:
        raise ImageError(f"the region mask has no pixels (shape {tuple(masks.shape)}): check what feeds it.")
    scale_y, scale_x = height / masks.shape[1], width / masks.shape[2]
    boxes: list[Box | None] = []
    for index, mask in enumerate(masks):
        mask = mask.float() if mask.dtype == torch.bool else mask
        mask = check_masks(mask[None], f"region mask {index}")
        if not (mask > THRESHOLD).any():
            boxes.append(None)
            continue
        left, top, right, bottom = subject_boxes(mask)[0].tolist()
        left, top = math.floor(left * scale_x), math.floor(top * scale_y)
        boxes.append(Box(left, top, math.ceil(right * scale_x), math.ceil(bottom * scale_y)))
    return boxes


def _listed(region: Region) -> list[list[float] | None]:
    """Boxes of any form as lists x, y, width, height; None for no box."""
    if isinstance(region, Tensor):
        if region.ndim == 1:
            region = region[None]
        if region.ndim != 2 or region.shape[1] != 4 or len(region) == 0:
            hint = " Add a batch dimension to a mask: region[None]." if region.ndim == 2 else ""
            raise ImageError(
                f"expected a region mask B, H, W or boxes N, 4 (x, y, width, height); "
                f"found a tensor of shape {tuple(region.shape)}.{hint}"
            )
        return region.detach().double().tolist()
    if isinstance(region, Mapping):
        return [_numbers(region)]
    if not isinstance(region, Sequence) or isinstance(region, str) or len(region) == 0:
        raise ImageError(f"expected a region mask or a box (x, y, width, height); found {region!r}.")
    several = any(isinstance(part, Mapping | Sequence | Tensor) and getattr(part, "ndim", 1) > 0 for part in region)
    several = several or all(part is None for part in region)
    return [None if box is None else _numbers(box) for box in region] if several else [_numbers(region)]


def _numbers(box: Region) -> list[float]:
    try:
        values = [box[key] for key in ("x", "y", "width", "height")] if isinstance(box, Mapping) else list(box)
        numbers = [float(value) for value in values]
    except (KeyError, TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != 4:
        raise ImageError(f"expected a box as four numbers (x, y, width, height); found {box!r}.")
    return numbers


def _box_inside(values: list[float], index: int, height: int, width: int) -> Box:
    x, y, w, h = values
    if not all(math.isfinite(value) for value in values):
        raise ImageError(f"box {index} is {x:g}, {y:g}, {w:g}, {h:g}: expected finite numbers of pixels.")
    if w <= 0 or h <= 0:
        raise ImageError(f"box {index} is {w:g} wide and {h:g} high: expected x, y, width, height, both above 0.")
    box = Box(max(0, math.floor(x)), max(0, math.floor(y)), min(width, math.ceil(x + w)), min(height, math.ceil(y + h)))
    if box.width <= 0 or box.height <= 0:
        raise ImageError(
            f"box {index} (x {x:g}, y {y:g}, width {w:g}, height {h:g}) lies outside the image of {width} x {height}: "
            "give x, y, width, height in pixels of this image, from its top left corner."
        )
    return box


def _widened(box: Box, margin: float, height: int, width: int) -> Box:
    extra = max(MIN_MARGIN, math.ceil(margin * max(box.width, box.height))) if margin > 0 else 0
    return Box(
        max(0, box.left - extra), max(0, box.top - extra),
        min(width, box.right + extra), min(height, box.bottom + extra),
    )  # fmt: skip
