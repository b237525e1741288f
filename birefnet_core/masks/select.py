"""Choosing subjects by marks: painted dabs or points.

Shapes: B batch, H W image, h w marks of another size.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_number
from ..errors import ConfigError, ImageError
from ..image_ops import check_masks, check_same_device, pair_batches
from ..text import enumerate_names
from .components import keep_touched
from .windows import Progress, groups_in_turn

logger = logging.getLogger(__name__)

MARKED = 0.05  # above this a pixel is marked; soft brushes reach far below
DOT = 200  # a point is a disc with this fraction of the longer side as its radius: seen in a preview, hard to miss with


@torch.no_grad()
def keep_marked(masks: Tensor, marks: Tensor, progress: Progress | None = None) -> Tensor:
    """Keeps those subjects that are marked: connected components of a mask with a mark in them.

    Args:
        masks: B, H, W in [0, 1].
        marks: B or 1, h, w in [0, 1], of any size; stand for the image stretched to them.
        progress: Called with (frames done, frames in all). What it raises passes through.

    Returns:
        B, H, W float32. Without any mark at all, everything stays: nothing has been chosen yet. An image without a
        mark among others that have one keeps nothing. Where marks meet no subject there is a line in the log.

    Raises:
        ImageError: Masks or marks of the wrong shape, type or content, or numbers of them that do not fit.
    """
    masks = check_masks(masks)
    marks = check_marks(marks, len(masks))
    check_same_device(masks, marks, ("masks", "marks"))
    if not (marks > MARKED).any():
        return masks.clone()
    where = marks.cpu() if marks.device.type == "mps" else marks  # MPS pools to divisors of the size only
    # The maximum, so that a dot survives shrinking.
    where = F.adaptive_max_pool2d(where[:, None], tuple(masks.shape[1:]))[:, 0] > MARKED  # B H W
    masks, marks = pair_batches(masks, where.to(masks.device), ("masks", "marks"))
    kept = torch.empty(masks.shape, dtype=torch.float32, device=masks.device)
    for group in groups_in_turn(masks.shape[0], masks.shape[1] * masks.shape[2], progress):
        kept[group] = keep_touched(masks[group], marks[group])
    missed = [str(n) for n, (mask, mark) in enumerate(zip(kept, marks, strict=True)) if mark.any() and not mask.any()]
    if missed:
        logger.warning("The marks meet no subject in these images, and their masks are empty: %s.",
                       enumerate_names(missed, 8))  # fmt: skip
    return kept


def check_marks(marks: Tensor, images: int) -> Tensor:
    """Checks marks, so that mistakes need not wait until masks are there.

    Args:
        marks: B or 1, h, w in [0, 1].
        images: B.

    Returns:
        The marks in float32.

    Raises:
        ImageError: Marks of the wrong shape, type or content, or of another number.
    """
    marks = check_masks(marks, "marks")
    if len(marks) not in (1, images):
        raise ImageError(f"there are {len(marks)} marks and {images} masks: pass one for each image, or one for all.")
    return marks


def point_marks(points: str | Sequence | Mapping, height: int, width: int) -> Tensor:
    """Points as marks.

    Args:
        points: Points in pixels: {"x", "y"} or (x, y), or several, or such a list for each image; or the JSON of it, as
            point editors of ComfyUI write it.
        height: H.
        width: W.

    Returns:
        B, H, W float32, B = 1 unless there are points for each image: 1 in discs around the points, else 0.

    Raises:
        ImageError: Points of another form, or outside the image.
        ConfigError: No size of an image.
    """
    for name, side in (("height", height), ("width", width)):
        check_number(name, side, whole=True)
        if side < 1:
            raise ConfigError(f"{name} is {side}, expected 1 pixel or more.")
    frames = _frames_of(_parsed(points))
    marks = torch.zeros(len(frames), height, width, dtype=torch.float32, device="cpu")
    radius = max(1, max(height, width) // DOT)
    y, x = (torch.arange(n, device="cpu") for n in (height, width))
    for mark, frame in zip(marks, frames, strict=True):
        for left, top in frame:
            if not (0 <= left < width and 0 <= top < height):
                raise ImageError(
                    f"point {left:g}, {top:g} lies outside the image of {width} x {height}: give x and y in pixels of "
                    "this image, from its top left corner."
                )
            # A disc around the pixel that holds the point.
            column, row = math.floor(left), math.floor(top)
            mark[(y[:, None] - row) ** 2 + (x - column) ** 2 <= radius**2] = 1
    return marks


def _parsed(points: object) -> object:
    if not isinstance(points, str):
        return points
    try:
        return json.loads(points) if points.strip() else []
    except (ValueError, RecursionError):
        raise _unknown(points) from None


def _frames_of(points: object) -> list[list[tuple[float, float]]]:
    """Points of any form as a list for each image."""
    if isinstance(points, Mapping) or _is_pair(points):
        return [[_point(points)]]
    if not isinstance(points, Sequence) or isinstance(points, str):
        raise _unknown(points)
    if any(isinstance(part, Mapping) or _is_pair(part) for part in points) or not points:
        return [[_point(point) for point in points]]
    if not all(isinstance(frame, Sequence) and not isinstance(frame, str) for frame in points):
        raise _unknown(points)
    return [[_point(point) for point in frame] for frame in points]


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(isinstance(n, int | float) for n in value)


def _point(value: object) -> tuple[float, float]:
    try:
        pair: Any = (value["x"], value["y"]) if isinstance(value, Mapping) else value
        x, y = (float(part) for part in pair)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _unknown(value) from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise _unknown(value)
    return x, y


def _unknown(points: object) -> ImageError:
    return ImageError(f'expected points in pixels such as [{{"x": 120, "y": 80}}], found {str(points)[:80]!r}.')
