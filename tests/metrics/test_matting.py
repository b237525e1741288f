import math

import numpy as np
import pytest

from birefnet_core.metrics import (
    AlphaMeanSquaredError,
    ConnectivityError,
    GradientError,
    Pair,
    SumOfAbsoluteDifferences,
)


def error(metric, prediction, alpha):
    return metric().update(Pair(np.asarray(prediction, np.uint8), np.asarray(alpha, np.uint8)))[metric.name]


@pytest.mark.parametrize("metric", [SumOfAbsoluteDifferences, AlphaMeanSquaredError, GradientError, ConnectivityError])
def test_errors_of_a_perfect_soft_matte_are_zero(metric, random_mask):
    alpha = random_mask(np.random.default_rng(0), (30, 40), "smooth")
    assert error(metric, alpha, alpha) == 0


def test_sums_by_hand_on_soft_values():
    prediction, alpha = [[0, 51, 204, 255]], [[51, 51, 153, 0]]  # differences 0.2, 0, 0.2, 1
    assert error(SumOfAbsoluteDifferences, prediction, alpha) == pytest.approx(1.4 / 1000)
    assert error(AlphaMeanSquaredError, prediction, alpha) == pytest.approx((0.04 + 0.04 + 1) / 4)


def test_matting_errors_do_not_stretch_the_prediction():
    assert error(AlphaMeanSquaredError, [[100, 110]], [[0, 255]]) > 0.1


def test_gradient_error_of_a_step_against_nothing():
    """The magnitude along a step is one row of the kernel summed up: the Gaussian itself, times the smooth sum."""
    alpha = np.zeros((40, 40), np.uint8)
    alpha[:, 20:] = 255
    sigma, half = 1.4, 4
    x = np.arange(-half, half + 1.0)
    smooth = np.exp(-(x**2) / (2 * sigma**2))
    slope = x * smooth
    smooth, slope = smooth / math.sqrt((smooth**2).sum()), slope / math.sqrt((slope**2).sum())
    response = np.array([slope[k:].sum() for k in range(1, 2 * half + 1)]) * smooth.sum()  # at each distance
    assert error(GradientError, np.zeros_like(alpha), alpha) == pytest.approx(40 * (response**2).sum() / 1000)


def test_gradient_error_equals_the_two_dimensional_filters(random_mask):
    """The benchmark's own form: kernels of 9 x 9 with unit energy, borders repeated."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    prediction, alpha = (random_mask(rng, (30, 40), "smooth") for _ in range(2))
    x = np.arange(-4, 5.0)
    gauss = np.exp(-(x**2) / (2 * 1.4**2)) / (1.4 * math.sqrt(2 * math.pi))
    kernel = np.outer(gauss, -x * gauss / 1.4**2)
    kernel /= np.sqrt((kernel**2).sum())

    def magnitude(map_):
        across, down = (ndimage.convolve(map_ / 255, k, mode="nearest") for k in (kernel, kernel.T))
        return np.sqrt(across**2 + down**2)

    expected = ((magnitude(prediction) - magnitude(alpha)) ** 2).sum() / 1000
    assert error(GradientError, prediction, alpha) == pytest.approx(expected)


def test_connectivity_error_of_an_island():
    alpha = np.zeros((10, 20), np.uint8)
    alpha[2:8, 2:8] = 255
    prediction = alpha.copy()
    prediction[4:6, 14:16] = 255  # four pixels that hang on to nothing
    assert error(ConnectivityError, prediction, alpha) == pytest.approx(4 / 1000)


def test_connectivity_error_ignores_small_differences():
    alpha = np.full((5, 5), 255, np.uint8)
    assert error(ConnectivityError, np.full((5, 5), 230, np.uint8), alpha) == 0  # common level 0.9; 1 - 0.9 < 0.15


def test_connectivity_error_counts_what_exceeds_the_common_level():
    # Common level of all pixels: 102/255 = 0.4, exactly the fourth threshold. The alpha exceeds it by 0.6.
    assert error(ConnectivityError, np.full((5, 5), 102), np.full((5, 5), 255)) == pytest.approx(25 * 0.6 / 1000)
