"""Weighted F-measure.

R. Margolin, L. Zelnik-Manor, A. Tal: "How to Evaluate Foreground Maps?", CVPR 2014. BiRefNet, Eq. 7 (F^w), beta = 1.

Almost all time goes into distances to the object. They are needed only where the prediction is positive outside the
object, and the *place* of the nearest object pixel only within three pixels of it; both are computed just there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..metric import EPSILON, Measurement, Metric
from ..numpy_morphology import bounding_box, dilate_square
from ..optional import ndimage, opencv_if_installed
from ..pair import Pair

KERNEL_RADIUS, KERNEL_SIGMA = 3, 5.0  # the 7 x 7 Gaussian of the authors
HALF_LIFE = 5  # pixels after which an error outside the object has lost half its discount
_REACH = 4  # an object pixel within 3 rows and 3 columns is never farther than sqrt(18) < 5 pixels
_FAR_SQUARED = 266**2  # 2 - 2^(-266 / HALF_LIFE) rounds to 2: farther pixels weigh alike


class WeightedF(Metric):
    """F-measure whose errors depend on their neighbours and on their distance from the object.

    An empty ground truth scores 0.
    """

    name = "wF"
    keys = ("wF",)

    def measure(self, pair: Pair) -> Measurement:
        if pair.foreground == 0:
            return {"wF": 0.0}
        missed = _error_inside(pair)
        hit = pair.foreground - missed
        recall = 1 - missed / pair.foreground
        precision = hit / (hit + _error_outside(pair) + EPSILON)
        return {"wF": 2 * recall * precision / (recall + precision + EPSILON)}


def _error_outside(pair: Pair) -> float:
    """Sum of the errors outside the object, each weighted 1 next to it and up to 2 far away."""
    wrong = (pair.levels > 0).take(pair.prediction) & ~pair.mask
    box = bounding_box(wrong | pair.mask)
    places = np.flatnonzero(wrong[box])
    if not places.size:
        return 0.0
    squared = _squared_distances(pair.mask[box]).ravel()[places]
    return float(_weights().take(squared, mode="clip") @ pair.levels.take(pair.prediction[box].ravel()[places]))


@lru_cache(maxsize=1)
def _weights() -> np.ndarray:
    """float64: weight of an error outside the object by its squared distance."""
    return 2 - np.exp2(-np.sqrt(np.arange(_FAR_SQUARED + 1)) / HALF_LIFE)


def _squared_distances(mask: np.ndarray) -> np.ndarray:
    """int32 (H, W): squared distance to the nearest true pixel; beyond 266 pixels only that it is larger.

    OpenCV's transform, where it is installed, is three times as fast as SciPy's; its square roots are single
    precision, so the squares are rounded back to the integers they are.
    """
    cv2 = opencv_if_installed()
    if cv2 is not None:
        distances = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        distances *= distances
        return np.rint(np.minimum(distances, np.float32(_FAR_SQUARED))).astype(np.int32)
    rows, columns = ndimage("The weighted F-measure").distance_transform_edt(
        ~mask, return_distances=False, return_indices=True
    )
    rows -= np.arange(mask.shape[0], dtype=np.int32)[:, None]
    columns -= np.arange(mask.shape[1], dtype=np.int32)
    return rows * rows + columns * columns


def _error_inside(pair: Pair) -> float:
    """Sum of the errors inside the object, each replaced by its neighbourhood's mean where that is smaller."""
    error_of_level = 1 - pair.levels
    wrong = (error_of_level > 0).take(pair.prediction) & pair.mask
    box = bounding_box(wrong, margin=KERNEL_RADIUS + _REACH)
    wrong, mask = wrong[box], pair.mask[box]
    if not wrong.any():
        return 0.0
    error = np.where(wrong, error_of_level.take(pair.prediction[box]), 0.0)
    spread = error.copy()
    rows, columns = np.nonzero(dilate_square(wrong, KERNEL_RADIUS) & ~mask)
    row_steps, column_steps = _nearest(mask, rows, columns)
    spread[rows, columns] = error[rows + row_steps, columns + column_steps]
    return float(np.minimum(error, _smooth(spread))[wrong].sum())


def _smooth(error: np.ndarray) -> np.ndarray:
    """Gaussian mean of the neighbourhood; outside the image errors are 0. OpenCV's filter is several times faster."""
    kernel = np.exp(-(np.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1.0) ** 2) / (2 * KERNEL_SIGMA**2))
    kernel /= kernel.sum()
    cv2 = opencv_if_installed()
    if cv2 is not None:
        return cv2.sepFilter2D(error, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    correlate = ndimage("The weighted F-measure").correlate1d
    return correlate(correlate(error, kernel, axis=0, mode="constant"), kernel, axis=1, mode="constant")


def _nearest(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps from pixels to the nearest true pixel, which must be within ``_REACH`` rows and columns.

    Ties go to the smaller column, then to the smaller row, as in SciPy's distance transform. One uint16 per pixel
    holds (squared distance, column step, row step) in this order, so that the smallest number is the nearest pixel.
    """
    height, width = mask.shape
    nothing = np.uint16(0xFFFF >> 1)  # all lower bits set: no key changes it, and a column's part can still be added
    far = np.where(np.pad(mask, _REACH), np.uint16(0), nothing)
    best = np.full((height, width + 2 * _REACH), nothing)
    for step in range(-_REACH, _REACH + 1):
        key = np.uint16((step * step << 8) | (step + _REACH))
        np.minimum(best, far[_REACH + step : _REACH + step + height] | key, out=best)
    nearest = np.full((height, width), nothing)
    for step in range(-_REACH, _REACH + 1):
        column = np.uint16((step * step << 8) | ((step + _REACH) << 4))
        np.minimum(nearest, best[:, _REACH + step : _REACH + step + width] + column, out=nearest)
    key = nearest[rows, columns].astype(np.intp)
    return (key & 15) - _REACH, (key >> 4 & 15) - _REACH
