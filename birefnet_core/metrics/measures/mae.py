"""Mean absolute and mean squared error.

F. Perazzi, P. Krähenbühl, Y. Pritch, A. Hornung: "Saliency Filters: Contrast Based Filtering for Salient Region
Detection", CVPR 2012. BiRefNet, Eq. 9.

Both compare the min-max normalised prediction with the binary mask; for soft ground truths see ``matting``.
"""

from __future__ import annotations

from ..metric import Measurement, Metric
from ..pair import Pair


class MeanAbsoluteError(Metric):
    """Mean of |prediction - mask|, in [0, 1]."""

    name = "MAE"
    keys = ("MAE",)
    lower_is_better = True

    def measure(self, pair: Pair) -> Measurement:
        outside, inside = pair.counts
        return {"MAE": float(outside @ pair.levels + inside @ (1 - pair.levels)) / pair.size}


class MeanSquaredError(Metric):
    """Mean of (prediction - mask)^2, in [0, 1]."""

    name = "MSE"
    keys = ("MSE",)
    lower_is_better = True

    def measure(self, pair: Pair) -> Measurement:
        outside, inside = pair.counts
        return {"MSE": float(outside @ pair.levels**2 + inside @ (1 - pair.levels) ** 2) / pair.size}
