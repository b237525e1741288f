"""One prediction against one ground truth, with everything several metrics need computed once.

Predictions and ground truths are bytes, so nearly every metric is a function of how many pixels of each of the 256
levels lie inside and outside the object. One histogram per quadrant (the S-measure needs the quadrants) replaces the
passes over 256 thresholds and over float maps.

Shapes: H W size of the ground truth, L = 256 levels.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..errors import ImageError
from .opencv_resize import resize_bilinear

LEVELS = 256
FOREGROUND_ABOVE = 128  # a ground truth's pixel belongs to the object if its byte is larger, in all published protocols


def to_bytes(image: np.ndarray, what: str = "mask") -> np.ndarray:
    """Brings a mask to uint8 (H, W).

    Args:
        image: (H, W) or (H, W, 1); bool, uint8, uint16 (the high byte is taken) or float in [0, 1] (rounded).
        what: How messages call it.

    Raises:
        ImageError: wrong shape or type, no pixels, NaN, or values out of range.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim != 2 or image.size == 0:
        raise ImageError(f"The {what} has shape {image.shape}; expected (height, width) with at least one pixel.")
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if not np.issubdtype(image.dtype, np.floating):
        raise ImageError(f"The {what} has type {image.dtype}; expected bool, uint8, uint16 or float in [0, 1].")
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"The {what} contains NaN or infinite values; check what produced it.")
    if low < 0 or high > 1:
        raise ImageError(f"The {what} has values from {low:.4g} to {high:.4g}; floats must be in [0, 1].")
    return np.rint(image * 255).astype(np.uint8)


class Pair:
    """A prediction and its ground truth, the input of every metric.

    The prediction is resized to the ground truth (Sec. 4.3: bilinear). Properties are computed when first read.

    Attributes:
        prediction: uint8 (H, W).
        ground_truth: uint8 (H, W), soft as it came.
        mask: bool (H, W), the ground truth's object.
    """

    def __init__(self, prediction: np.ndarray, ground_truth: np.ndarray):
        """Takes two masks as ``to_bytes`` accepts them; sizes may differ."""
        self.ground_truth = to_bytes(ground_truth, "ground truth")
        self.prediction = resize_bilinear(to_bytes(prediction, "prediction"), *self.ground_truth.shape)
        self.mask = self.ground_truth > FOREGROUND_ABOVE

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.mask.shape

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.mask.size

    @cached_property
    def centre(self) -> tuple[int, int]:
        """Row and column at which the quadrants part: one past the object's rounded centre of mass.

        Without an object, one past the image's centre.
        """
        height, width = self.shape
        if not self.mask.any():
            return int(np.round(height / 2)) + 1, int(np.round(width / 2)) + 1
        ones = self.mask.astype(np.float32)  # float32 products go through BLAS; counts stay exact below 2**24
        per_row = (ones @ np.ones(width, np.float32)).astype(np.float64)
        per_column = (np.ones(height, np.float32) @ ones).astype(np.float64)
        total = per_row.sum()
        row = np.arange(height) @ per_row / total
        column = np.arange(width) @ per_column / total
        return int(np.round(row)) + 1, int(np.round(column)) + 1

    @cached_property
    def quadrants(self) -> tuple[tuple[slice, slice], ...]:
        """The four parts around ``centre``: top left, top right, bottom left, bottom right. Some may be empty."""
        row, column = self.centre
        rows, columns = (slice(0, row), slice(row, None)), (slice(0, column), slice(column, None))
        return tuple((r, c) for r in rows for c in columns)

    @cached_property
    def quadrant_counts(self) -> np.ndarray:
        """int64 (4, 2, L): pixels of each level outside (0) and inside (1) the object, by quadrant."""
        code = self.mask.astype(np.uint16)
        code <<= 8
        code |= self.prediction
        counts = [np.bincount(code[part].ravel(), minlength=2 * LEVELS) for part in self.quadrants]
        return np.stack(counts).reshape(4, 2, LEVELS)

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (2, L): pixels of each level outside (0) and inside (1) the object."""
        return self.quadrant_counts.sum(axis=0)

    @property
    def foreground(self) -> int:
        """Number of pixels of the object."""
        return int(self.counts[1].sum())

    @cached_property
    def levels(self) -> np.ndarray:
        """float64 (L,): the value in [0, 1] each byte stands for after min-max normalisation.

        The darkest level becomes 0 and the brightest 1; a constant prediction keeps its value.
        """
        levels = np.arange(LEVELS) / 255
        present = np.flatnonzero(self.counts.sum(axis=0))
        low, high = levels[present[0]], levels[present[-1]]
        return levels if low == high else (levels - low) / (high - low)

    @cached_property
    def normalised(self) -> np.ndarray:
        """float64 (H, W): the normalised prediction as a map. Only for metrics that need places."""
        return self.levels.take(self.prediction)

    @cached_property
    def stretched(self) -> np.ndarray:
        """uint8 (L,): the byte each level becomes after normalisation, truncated as published code does.

        Levels the prediction does not have may stand for anything and are sent to zero.
        """
        return (np.clip(self.levels, 0, 1) * 255).astype(np.uint8)

    @cached_property
    def hits(self) -> np.ndarray:
        """int64 (2, L): pixels outside (0) and inside (1) the object at or above threshold 255, 254, ..., 0."""
        return cumulate(self.counts, self.stretched)

    @cached_property
    def adaptive_threshold(self) -> float:
        """Twice the mean of the normalised prediction, at most 1 (Achanta et al., CVPR 2009)."""
        counts = self.counts.sum(axis=0)
        twice = 2 * float(counts @ self.levels) / self.size
        if np.abs(self.levels[counts > 0] - twice).min() < 1e-9:
            twice = 2 * float(self.normalised.mean())  # so close to a level, the order of summation decides
        return min(twice, 1.0)

    @cached_property
    def adaptive_hits(self) -> tuple[int, int]:
        """Pixels outside and inside the object that reach the adaptive threshold."""
        outside, inside = self.counts[:, self.levels >= self.adaptive_threshold].sum(axis=1)
        return int(outside), int(inside)


def cumulate(counts: np.ndarray, byte_of_level: np.ndarray) -> np.ndarray:
    """Counts of pixels at or above each threshold.

    Args:
        counts: int (2, L), pixels per level outside and inside a region.
        byte_of_level: uint8 (L,), the byte that is compared with the threshold.

    Returns:
        int64 (2, L); column 0 is threshold 255.
    """
    moved = np.zeros((2, LEVELS), np.int64)
    for total, count in zip(moved, counts, strict=True):
        np.add.at(total, byte_of_level, count)
    return moved[:, ::-1].cumsum(axis=1)
