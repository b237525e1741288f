"""Haze: what a prediction leaves on the background, which MAE hides among the errors of edges.

The true background is where the ground truth is 0; soft edges do not count. Values are taken as they are, without
normalisation. Without such pixels both scores are undefined (NaN).
"""

from __future__ import annotations

import numpy as np

from ..metric import Measurement, Metric
from ..pair import LEVELS, Pair

FAINT = 0.1  # below this the veil is hardly seen in a mask, and well seen in a composite
_ALPHA = np.arange(LEVELS) / 255


class Haze(Metric):
    """Faint values on the background.

    ``haze`` is the mean of the prediction over the true background. ``hazeArea`` is the fraction of the true
    background where 0 < prediction < 0.1: a veil. A false object raises the first and hardly the second.
    """

    name = "haze"
    keys = ("haze", "hazeArea")
    lower_is_better = True

    def measure(self, pair: Pair) -> Measurement:
        background = pair.ground_truth == 0
        counts = np.bincount(pair.prediction[background], minlength=LEVELS)
        total = int(counts.sum())
        if total == 0:
            return {"haze": float("nan"), "hazeArea": float("nan")}
        faint = (_ALPHA > 0) & (_ALPHA < FAINT)
        return {"haze": float(counts @ _ALPHA) / total, "hazeArea": float(counts[faint].sum()) / total}
