import numpy as np
import pytest

from birefnet_core.metrics import MeanAbsoluteError, MeanSquaredError, Pair


@pytest.mark.parametrize("metric", [MeanAbsoluteError, MeanSquaredError])
def test_errors_equal_recorded(recorded_pair, metric):
    pair, official, _ = recorded_pair
    assert metric().update(pair)[metric.name] == pytest.approx(official[metric.name], abs=1e-12)


def test_errors_by_hand():
    truth = np.array([[255, 255, 0, 0]], np.uint8)
    pair = Pair(np.array([[255, 102, 51, 0]], np.uint8), truth)  # errors 0, 0.6, 0.2, 0
    assert MeanAbsoluteError().update(pair)["MAE"] == pytest.approx(0.2)
    assert MeanSquaredError().update(pair)["MSE"] == pytest.approx(0.1)


def test_errors_are_of_the_stretched_prediction():
    truth = np.array([[255, 0]], np.uint8)
    assert MeanAbsoluteError().update(Pair(np.array([[110, 100]], np.uint8), truth))["MAE"] == 0
