import numpy as np
import pytest

from birefnet_core.metrics import FMeasure, Pair


def test_f_measure_equals_recorded(recorded_pair):
    pair, official, curves = recorded_pair
    metric = FMeasure()
    measured = metric.measure(pair)
    for entry, name in (("curve", "F"), ("precision", "P"), ("recall", "R")):
        np.testing.assert_allclose(measured[entry], curves[name], rtol=0, atol=1e-12)
    for key, score in metric.scores(measured).items():
        assert score == pytest.approx(official[key], abs=1e-12)


def test_f_measure_by_hand():
    truth = np.array([[255, 255, 255, 0, 0, 0]], np.uint8)
    prediction = np.array([[255, 255, 0, 255, 0, 0]], np.uint8)
    precision, recall = 2 / 3, 2 / 3
    expected = 1.3 * precision * recall / (0.3 * precision + recall)
    scores = FMeasure().update(Pair(prediction, truth))
    assert scores["maxF"] == pytest.approx(expected)
    assert scores["adpF"] == pytest.approx(expected)  # twice the mean is 1
    everything = 1.3 * 0.5 / (0.3 * 0.5 + 1)  # threshold 0 accepts all
    assert scores["meanF"] == pytest.approx((255 * expected + everything) / 256)


def test_f_measure_of_an_empty_truth_is_zero():
    prediction = np.array([[0, 100, 255]], np.uint8)
    assert FMeasure().update(Pair(prediction, np.zeros_like(prediction))) == {"maxF": 0, "meanF": 0, "adpF": 0}


def test_maximum_of_a_set_is_taken_over_the_mean_curve():
    truth = np.array([[255, 255, 0, 0]], np.uint8)
    metric = FMeasure()
    single = [
        metric.update(Pair(np.array([row], np.uint8), truth))["maxF"] for row in ([255, 200, 100, 0], [255, 50, 40, 0])
    ]
    assert single == [1, 1]
    assert metric.compute()["maxF"] < 1  # no threshold suits both
