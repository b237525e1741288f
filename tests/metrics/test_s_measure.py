import numpy as np
import py_sod_metrics as metrics
import pytest

from birefnet_core.metrics import Pair, SMeasure


def score(prediction, truth):
    return SMeasure().update(Pair(np.array(prediction, np.uint8), np.array(truth, np.uint8)))["Sm"]


def test_s_measure_equals_recorded(recorded_pair):
    pair, official, _ = recorded_pair
    assert SMeasure().update(pair)["Sm"] == pytest.approx(official["Sm"], abs=1e-12)


def test_s_measure_of_a_perfect_mask_is_one():
    truth = np.zeros((10, 10), np.uint8)
    truth[3:7, 2:8] = 255
    assert score(truth, truth) == pytest.approx(1, abs=1e-12)


def test_s_measure_by_hand():
    # One row of four: object in the right half, centre one past column round(2.5) = 2, hence quadrants of 3 and 1
    # pixels, and an empty lower half. A quadrant without pixels leaves the definition undefined: 0.
    assert score([[0, 0, 255, 255]], [[0, 0, 255, 255]]) == 0
    # Four rows and columns, object 2 x 2 at rows and columns 1-2, prediction black: object-aware part is
    # (1 - 4/16) * 2 / (1 + 1) = 0.75; in no quadrant do both vary, so the region-aware part is 0.
    truth = np.zeros((4, 4), np.uint8)
    truth[1:3, 1:3] = 255
    assert score(np.zeros((4, 4)), truth) == 0  # the lower right quadrant is one pixel: undefined
    truth = np.zeros((6, 6), np.uint8)
    truth[1:3, 1:3] = 255
    # Here quadrants are 3 x 3 (object inside) and empty of object; the black prediction is right in those three,
    # which are 27 of 36 pixels: 0.5 * (1 - 4/36) + 0.5 * 27/36.
    assert score(np.zeros((6, 6)), truth) == pytest.approx(0.5 * 32 / 36 + 0.5 * 27 / 36, abs=1e-12)


def test_s_measure_of_empty_and_full_truths_is_about_the_mean():
    prediction = [[0, 0, 0, 255]]
    assert score(prediction, np.zeros((1, 4))) == 0.75
    assert score(prediction, np.full((1, 4), 255)) == 0.25


def test_s_measure_of_a_one_pixel_object_is_zero():
    truth = np.zeros((8, 8), np.uint8)
    truth[4, 4] = 255
    assert score(truth, truth) == 0


def test_s_measure_repeats_the_rounding_that_decides_between_constant_quadrants():
    """Mean of 0.2 over many pixels may differ from 0.2 by rounding; published code then scores 0 instead of 1."""
    truth = np.zeros((40, 40), np.uint8)
    truth[5:20, 5:20] = truth[22:30, 22:30] = 255
    for level in (50, 51, 76, 77, 128, 200):
        prediction = np.full_like(truth, level)
        theirs = metrics.Smeasure()
        theirs.step(prediction, truth)
        assert score(prediction, truth) == pytest.approx(theirs.get_results()["sm"], abs=1e-12)
