"""Measures of the boundary alone: Boundary IoU and mean boundary accuracy.

B. Cheng, R. Girshick, P. Dollár, A. C. Berg, A. Kirillov: "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021; H. K. Cheng, J. Chung, Y.-W. Tai, C.-K. Tang: "CascadePSP: Toward Class-Agnostic and Very
High-Resolution Segmentation via Global and Local Refinement", CVPR 2020 (mBA).
"""

from __future__ import annotations

import math

import numpy as np

from ..metric import Measurement, Metric
from ..numpy_morphology import dilate_ellipse, erode_square
from ..pair import FOREGROUND_ABOVE, LEVELS, Pair, cumulate

DIAGONAL_FRACTION = 0.02  # width of the boundary band as a fraction of the image diagonal (B. Cheng et al.)
RADII = 5  # number of band widths mBA averages over (H. K. Cheng et al.)


class BoundaryIoU(Metric):
    """Intersection over union of the object's inner boundary bands.

    The band of a soft prediction is what a grey erosion takes from it, thresholded at 256 levels. ``BIoU`` is the
    maximum of the curve over thresholds, the first of which is 255; ``scores`` also gives its mean. Without an
    object there is no band, and the score is 0.
    """

    name = "BIoU"
    keys = ("BIoU", "meanBIoU")

    def measure(self, pair: Pair) -> Measurement:
        radius = max(round(DIAGONAL_FRACTION * math.hypot(*pair.shape)), 1)
        prediction = pair.stretched.take(pair.prediction)
        prediction -= erode_square(prediction, radius)
        band = pair.mask & ~erode_square(pair.mask, radius)
        counts = np.bincount((band.astype(np.uint16) << 8 | prediction).ravel(), minlength=2 * LEVELS)
        outside, inside = cumulate(counts.reshape(2, LEVELS), np.arange(LEVELS, dtype=np.uint8))
        return {"curve": inside / (max(int(np.count_nonzero(band)), 1) + outside)}

    def scores(self, measurement: Measurement) -> dict[str, float]:
        curve = measurement["curve"]
        return {"BIoU": float(curve.max()), "meanBIoU": float(curve.mean())}


class MeanBoundaryAccuracy(Metric):
    """Fraction of correctly classified pixels near the ground truth's boundary, averaged over five band widths.

    The prediction is binarised above byte 128 without normalisation. An empty or full ground truth has no boundary:
    its score is NaN, and a set's score is the mean over the other pairs. (Published code makes the set NaN.)
    """

    name = "mBA"
    keys = ("mBA",)

    def measure(self, pair: Pair) -> Measurement:
        if pair.mask.all() or not pair.mask.any():
            return {"mBA": math.nan}
        right = (pair.prediction > FOREGROUND_ABOVE) == pair.mask
        largest = sum(pair.shape) / 300  # H. K. Cheng et al.: radii from 1 pixel to this many
        radii = [1 + int((largest - 1) / RADII * step) for step in range(RADII)]
        accuracy = {radius: _accuracy(right, pair.mask, radius) for radius in set(radii)}
        return {"mBA": sum(accuracy[radius] for radius in radii) / RADII}


def _accuracy(right: np.ndarray, mask: np.ndarray, radius: int) -> float:
    """Fraction of correct pixels among those whose elliptic neighbourhood holds both object and background."""
    band = dilate_ellipse(mask, radius) & dilate_ellipse(~mask, radius)
    return np.count_nonzero(band & right) / np.count_nonzero(band)
