"""F-measure over thresholds and at the adaptive threshold.

R. Achanta, S. Hemami, F. Estrada, S. Süsstrunk: "Frequency-tuned Salient Region Detection", CVPR 2009.
BiRefNet, Eq. 7 with beta^2 = 0.3.
"""

from __future__ import annotations

import numpy as np

from ..metric import Measurement, Metric
from ..pair import Pair

BETA_SQUARED = 0.3  # weighs precision over recall (Achanta et al.; BiRefNet, Eq. 7)


class FMeasure(Metric):
    """Maximum, mean and adaptive F-measure, with precision and recall curves.

    Curves have 256 points, the first at threshold 255. Scores of a set are the maximum and the mean of the mean
    curve, so one threshold serves all images. Without true positives precision, recall and F are 0; an empty ground
    truth therefore scores 0.
    """

    name = "F"
    keys = ("maxF", "meanF", "adpF")

    def measure(self, pair: Pair) -> Measurement:
        outside, inside = pair.hits
        precision = inside / np.maximum(outside + inside, 1)
        recall = inside / max(pair.foreground, 1)
        return {
            "precision": precision,
            "recall": recall,
            "curve": _f_measure(precision, recall),
            "adaptive": _adaptive(pair),
        }

    def scores(self, measurement: Measurement) -> dict[str, float]:
        curve = measurement["curve"]
        return {"maxF": float(curve.max()), "meanF": float(curve.mean()), "adpF": float(measurement["adaptive"])}


def _f_measure(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    numerator = (1 + BETA_SQUARED) * precision * recall
    return numerator / np.where(numerator == 0, 1, BETA_SQUARED * precision + recall)


def _adaptive(pair: Pair) -> float:
    outside, inside = pair.adaptive_hits
    if inside == 0:
        return 0.0
    return float(_f_measure(np.asarray(inside / (inside + outside)), np.asarray(inside / pair.foreground)))
