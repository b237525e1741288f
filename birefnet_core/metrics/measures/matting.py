"""Errors of alpha mattes against soft ground truths.

C. Rhemann, C. Rother, J. Wang, M. Gelautz, P. Kohli, P. Rott: "A Perceptually Motivated Online Benchmark for Image
Matting", CVPR 2009. All four are taken over the whole image (there is no trimap), on values in [0, 1] as they are,
without normalisation or thresholding of the ground truth. The three sums are given in thousands, as in the field.
"""

from __future__ import annotations

import math

import numpy as np

from ..metric import Measurement, Metric
from ..optional import ndimage
from ..pair import Pair

THOUSAND = 1000
GRADIENT_SIGMA = 1.4  # the benchmark
GRADIENT_CUT = 0.01  # the derivative kernel ends where the Gaussian falls below this, in the authors' code
CONNECTIVITY_STEPS = 10  # thresholds 0.1, 0.2, ..., 1
CONNECTIVITY_TOLERANCE = 0.15  # theta of the benchmark: smaller distances do not count


class SumOfAbsoluteDifferences(Metric):
    """Sum of |prediction - alpha| over the pixels, in thousands."""

    name = "SAD"
    keys = ("SAD",)
    lower_is_better = True

    def measure(self, pair: Pair) -> Measurement:
        return {"SAD": float(np.abs(_difference(pair)).sum(dtype=np.int64)) / 255 / THOUSAND}


class AlphaMeanSquaredError(Metric):
    """Mean of (prediction - alpha)^2. Not MSE of the protocol, which normalises and binarises."""

    name = "alphaMSE"
    keys = ("alphaMSE",)
    lower_is_better = True

    def measure(self, pair: Pair) -> Measurement:
        squares = _difference(pair).astype(np.int32) ** 2
        return {"alphaMSE": float(squares.sum(dtype=np.int64)) / 255**2 / pair.size}


class GradientError(Metric):
    """Sum of squared differences between gradient magnitudes, in thousands."""

    name = "Grad"
    keys = ("Grad",)
    lower_is_better = True

    def measure(self, pair: Pair) -> Measurement:
        difference = _gradient(pair.prediction / 255) - _gradient(pair.ground_truth / 255)
        return {"Grad": float(np.square(difference).sum()) / THOUSAND}


class ConnectivityError(Metric):
    """Connectivity error (Rhemann et al. 2009): sum of differences in the degree of connectedness, in thousands.

    A pixel is connected up to the highest threshold at which it lies in the largest 4-connected region that prediction
    and alpha have in common. Its degree of connectedness is 1 minus what its alpha exceeds that threshold by, where
    that is at least 0.15.
    """

    name = "Conn"
    keys = ("Conn",)
    lower_is_better = True

    def measure(self, pair: Pair) -> Measurement:
        level = _common_level(pair)
        prediction = _connectedness(pair.prediction / 255, level)
        alpha = _connectedness(pair.ground_truth / 255, level)
        return {"Conn": float(np.abs(prediction - alpha).sum()) / THOUSAND}


def _difference(pair: Pair) -> np.ndarray:
    return pair.prediction.astype(np.int16) - pair.ground_truth


def _gradient(alpha: np.ndarray) -> np.ndarray:
    """Magnitude of the Gaussian derivative, with a kernel of unit energy and repeated borders."""
    sigma = GRADIENT_SIGMA
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * GRADIENT_CUT)))
    offset = np.arange(-half, half + 1.0)
    smooth = np.exp(-(offset**2) / (2 * sigma**2))
    slope = offset * smooth
    smooth, slope = smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)
    correlate = ndimage("The gradient error").correlate1d
    across = correlate(correlate(alpha, smooth, axis=0, mode="nearest"), slope, axis=1, mode="nearest")
    down = correlate(correlate(alpha, slope, axis=0, mode="nearest"), smooth, axis=1, mode="nearest")
    return np.hypot(across, down)


def _common_level(pair: Pair) -> np.ndarray:
    """float64 (H, W): the highest threshold up to which a pixel lies in the largest common region."""
    common = np.minimum(pair.prediction, pair.ground_truth).astype(np.int32) * CONNECTIVITY_STEPS
    level = np.zeros(pair.shape)
    attached = np.ones(pair.shape, bool)
    for step in range(1, CONNECTIVITY_STEPS + 1):
        attached &= _largest_region(common >= 255 * step)  # in integers: 0.6 is not 6 * 0.1
        level[attached] = step / CONNECTIVITY_STEPS
    return level


def _largest_region(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage("The connectivity error").label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    return labels == largest if largest else np.zeros_like(mask)


def _connectedness(alpha: np.ndarray, level: np.ndarray) -> np.ndarray:
    distance = alpha - level
    return 1 - np.where(distance >= CONNECTIVITY_TOLERANCE, distance, 0)
