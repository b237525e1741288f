import numpy as np
import pytest

from birefnet_core.metrics import EMeasure, Pair


def test_e_measure_equals_recorded(recorded_pair):
    pair, official, curves = recorded_pair
    metric = EMeasure()
    measured = metric.measure(pair)
    np.testing.assert_allclose(measured["curve"], curves["E"], rtol=0, atol=1e-12)
    for key, score in metric.scores(measured).items():
        assert score == pytest.approx(official[key], abs=1e-12)


def test_e_measure_by_hand():
    """The alignment matrix written out pixel by pixel, for a binary prediction."""
    truth = np.array([[255, 255, 0, 0, 0]], np.uint8)
    prediction = np.array([[255, 0, 255, 0, 0]], np.uint8)
    x, y = prediction / 255 - 0.4, truth / 255 - 0.4
    enhanced = (2 * x * y / (x * x + y * y) + 1) ** 2 / 4
    assert EMeasure().update(Pair(prediction, truth))["maxE"] == pytest.approx(enhanced.sum() / 4)


def test_e_measure_counts_background_of_an_empty_and_foreground_of_a_full_truth():
    prediction = np.array([[0, 0, 0, 255]], np.uint8)
    empty = EMeasure().update(Pair(prediction, np.zeros_like(prediction)))
    assert empty["adpE"] == pytest.approx(3 / 3)  # three of four pixels rejected, over N - 1
    full = EMeasure().update(Pair(prediction, np.full_like(prediction, 255)))
    assert full["adpE"] == pytest.approx(1 / 3)
    assert full["maxE"] == pytest.approx(4 / 3)  # threshold 0 accepts all; published code divides by N - 1


@pytest.mark.parametrize(("prediction", "truth"), [(255, 255), (0, 0), (255, 0), (0, 255), (9, 200)])
def test_the_e_measure_of_one_pixel_lies_in_0_1(prediction, truth):
    found = EMeasure().update(Pair(np.array([[prediction]], np.uint8), np.array([[truth]], np.uint8)))
    assert all(0 <= value <= 1 for value in found.values())
    if prediction == 255:
        assert found["adpE"] == pytest.approx(truth / 255)
