"""Structure measure.

D.-P. Fan, M.-M. Cheng, Y. Liu, T. Li, A. Borji: "Structure-measure: A New Way to Evaluate Foreground Maps", ICCV 2017.
BiRefNet, Eq. 6 with alpha = 0.5.

Every sum in it is over pixels of equal level and equal label, so four histograms (one per quadrant) are enough.
"""

from __future__ import annotations

import math

import numpy as np

from ..metric import EPSILON, Measurement, Metric
from ..pair import Pair

ALPHA = 0.5  # weight of the object-aware part (BiRefNet, Eq. 6)


class SMeasure(Metric):
    """S = alpha * object-aware + (1 - alpha) * region-aware similarity, in [0, 1].

    An empty ground truth scores 1 - mean(prediction), a full one mean(prediction). Where the definition divides by
    zero (an object or background of one pixel, a quadrant of one pixel or none) the score is 0, as in published code.
    """

    name = "Sm"
    keys = ("Sm",)

    def measure(self, pair: Pair) -> Measurement:
        fraction = pair.foreground / pair.size
        if fraction in (0.0, 1.0):
            mean = float(pair.counts.sum(axis=0) @ pair.levels) / pair.size
            return {"Sm": mean if fraction else 1 - mean}
        score = ALPHA * _object_similarity(pair) + (1 - ALPHA) * _region_similarity(pair)
        return {"Sm": score if score > 0 else 0.0}  # NaN is not larger than 0 either


def _object_similarity(pair: Pair) -> float:
    """Brightness and evenness of the prediction inside, of its negative outside the object."""
    fraction = pair.foreground / pair.size
    background, foreground = pair.counts
    inside = _evenness(foreground, pair.levels)
    outside = _evenness(background, 1 - pair.levels)
    return fraction * inside + (1 - fraction) * outside


def _evenness(counts: np.ndarray, levels: np.ndarray) -> float:
    number = int(counts.sum())
    if number < 2:
        return math.nan
    mean = float(counts @ levels) / number
    deviation = math.sqrt(float(counts @ (levels - mean) ** 2) / (number - 1))
    return 2 * mean / (mean * mean + 1 + deviation + EPSILON)


def _region_similarity(pair: Pair) -> float:
    """Structural similarity of the four quadrants, weighted by their areas."""
    return sum(
        counts.sum() / pair.size * _similarity(pair, counts, part)
        for counts, part in zip(pair.quadrant_counts, pair.quadrants, strict=True)
    )


def _similarity(pair: Pair, counts: np.ndarray, part: tuple[slice, slice]) -> float:
    """SSIM without constants between one quadrant of the prediction (x) and of the mask (y)."""
    number, inside = int(counts.sum()), int(counts[1].sum())
    if number < 2:
        return math.nan
    either = counts.sum(axis=0)
    x = _mean(pair, either, part, exact=inside in (0, number))
    y = inside / number
    variance_x = float(either @ (pair.levels - x) ** 2) / (number - 1)
    variance_y = inside * (1 - y) / (number - 1)
    covariance = (float(counts[1] @ pair.levels) - x * inside) / (number - 1) if 0 < inside < number else 0.0
    numerator = 4 * x * y * covariance
    denominator = (x * x + y * y) * (variance_x + variance_y)
    if numerator != 0:
        return numerator / (denominator + EPSILON)
    return 1.0 if denominator == 0 else 0.0


def _mean(pair: Pair, counts: np.ndarray, part: tuple[slice, slice], *, exact: bool) -> float:
    """Mean of the prediction in a quadrant.

    Two constant quadrants score 1 or 0 depending on whether the variance is exactly zero, and published code finds
    it zero only if the mean of equal numbers came out as that number. ``exact`` repeats its order of summation.
    """
    if exact and np.count_nonzero(counts) == 1:
        return float(pair.normalised[part].mean())
    return float(counts @ pair.levels) / int(counts.sum())
