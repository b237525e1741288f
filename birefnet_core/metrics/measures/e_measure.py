"""Enhanced-alignment measure.

D.-P. Fan, C. Gong, Y. Cao, B. Ren, M.-M. Cheng, A. Borji: "Enhanced-alignment Measure for Binary Foreground Map
Evaluation", IJCAI 2018. BiRefNet, Eq. 8.
"""

from __future__ import annotations

import numpy as np

from ..metric import EPSILON, Measurement, Metric
from ..pair import Pair


class EMeasure(Metric):
    """Maximum, mean and adaptive E-measure.

    The enhanced alignment of a pixel depends only on whether it is foreground in the binarised prediction and in
    the mask, so four numbers per threshold give the sum over the image. The sum is divided by N - 1, as published
    code does, so a perfect score can exceed 1 a little; that of a single pixel is divided by 1. With an empty ground
    truth the rejected pixels count, with a full one the accepted pixels.
    """

    name = "E"
    keys = ("maxE", "meanE", "adpE")

    def measure(self, pair: Pair) -> Measurement:
        outside, inside = pair.hits
        adaptive_outside, adaptive_inside = pair.adaptive_hits
        return {
            "curve": _e_measure(outside, inside, pair),
            "adaptive": float(_e_measure(np.asarray(adaptive_outside), np.asarray(adaptive_inside), pair)),
        }

    def scores(self, measurement: Measurement) -> dict[str, float]:
        curve = measurement["curve"]
        return {"maxE": float(curve.max()), "meanE": float(curve.mean()), "adpE": float(measurement["adaptive"])}


def _e_measure(outside: np.ndarray, inside: np.ndarray, pair: Pair) -> np.ndarray:
    """E-measure of binarised predictions.

    Args:
        outside: Pixels predicted foreground outside the object, one entry per threshold.
        inside: The same inside the object.
    """
    size, foreground = pair.size, pair.foreground
    predicted = outside + inside
    if foreground == 0:
        total = size - predicted
    elif foreground == size:
        total = predicted
    else:
        x, y = predicted / size, foreground / size  # the means the alignment matrix is centred on
        total = (
            inside * _enhanced(1 - x, 1 - y)
            + outside * _enhanced(1 - x, -y)
            + (foreground - inside) * _enhanced(-x, 1 - y)
            + (size - foreground - outside) * _enhanced(-x, -y)
        )
    return total / (max(size - 1, 1) + EPSILON)


def _enhanced(x: np.ndarray, y: float) -> np.ndarray:
    """Enhanced alignment of a centred prediction and a centred label (Fan et al.)."""
    alignment = 2 * x * y / (x * x + y * y + EPSILON)
    return (alignment + 1) ** 2 / 4
