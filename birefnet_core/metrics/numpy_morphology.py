"""Small morphology on binary and grey masks, with numpy alone.

Shapes: H W, two-dimensional arrays throughout.
"""

from __future__ import annotations

import math

import numpy as np


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """Smallest box around the true pixels, grown by ``margin`` and kept inside; an empty box for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + 1 + margin),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + 1 + margin),
    )


def erode_square(image: np.ndarray, radius: int) -> np.ndarray:
    """Minimum over squares of side 2 * radius + 1; outside the image everything is 0."""
    return _window(_window(image, radius, np.minimum).T, radius, np.minimum).T


def dilate_square(image: np.ndarray, radius: int) -> np.ndarray:
    """Maximum over squares of side 2 * radius + 1; outside the image everything is 0."""
    return _window(_window(image, radius, np.maximum).T, radius, np.maximum).T


def _window(image: np.ndarray, radius: int, choose: np.ufunc) -> np.ndarray:
    """Minimum or maximum over 2 * radius + 1 rows.

    Windows are doubled until two of them, overlapping, cover the whole: log2(radius) passes instead of radius.
    """
    height, span = image.shape[0], 2 * radius + 1
    reached, window = 1, np.pad(image, ((radius, radius), (0, 0)))
    while 2 * reached <= span:
        window = choose(window[:-reached], window[reached:])
        reached *= 2
    return choose(window[:height], window[span - reached : span - reached + height])


def dilate_ellipse(mask: np.ndarray, radius: int) -> np.ndarray:
    """True where the ellipse kernel of side 2 * radius + 1 meets a true pixel.

    The kernel is OpenCV's ``MORPH_ELLIPSE``: row dy reaches round(sqrt(radius^2 - dy^2)) columns to both sides.
    """
    height, width = mask.shape
    source = np.pad(mask, radius)  # H + 2r, W + 2r
    result = np.zeros_like(mask)
    reached, wide = 0, source[:, radius : radius + width]
    for dy in range(radius, -1, -1):  # from the narrowest row of the kernel to the widest
        reach = round(math.sqrt(radius * radius - dy * dy))
        while reached < reach:
            reached += 1
            wide = wide | source[:, radius - reached : radius - reached + width]
            wide |= source[:, radius + reached : radius + reached + width]
        result |= wide[radius - dy : radius - dy + height]
        result |= wide[radius + dy : radius + dy + height]
    return result
