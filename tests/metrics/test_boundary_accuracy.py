import math

import numpy as np
import pytest

from birefnet_core.metrics import BoundaryIoU, MeanBoundaryAccuracy, Pair


def test_boundary_iou_equals_recorded(recorded_pair):
    pair, official, curves = recorded_pair
    metric = BoundaryIoU()
    measured = metric.measure(pair)
    np.testing.assert_allclose(measured["curve"], curves["BIoU"], rtol=0, atol=1e-12)
    scores = metric.scores(measured)
    assert scores["BIoU"] == pytest.approx(official["maxBIoU"], abs=1e-12)
    assert scores["meanBIoU"] == pytest.approx(official["meanBIoU"], abs=1e-12)


def test_boundary_accuracy_equals_recorded(recorded_pair):
    pair, official, _ = recorded_pair
    assert MeanBoundaryAccuracy().update(pair)["mBA"] == pytest.approx(official["MBA"], abs=1e-12, nan_ok=True)


def test_boundary_iou_by_hand():
    truth = np.zeros((30, 40), np.uint8)  # diagonal 50, band one pixel wide
    truth[10:20, 10:20] = 255
    prediction = truth.copy()
    prediction[10:20, 19] = 0
    # Bands of 36 and 34 pixels share 10 + 2 * 8 = 26 of the left, upper and lower sides.
    assert BoundaryIoU().update(Pair(prediction, truth))["BIoU"] == pytest.approx(26 / (36 + 34 - 26))


def test_boundary_iou_without_object_is_zero():
    prediction = np.zeros((20, 20), np.uint8)
    prediction[5:9, 5:9] = 255
    assert BoundaryIoU().update(Pair(prediction, np.zeros_like(prediction))) == {"BIoU": 0, "meanBIoU": 0}


def test_boundary_accuracy_by_hand():
    truth = np.zeros((10, 10), np.uint8)
    truth[:, 5:] = 255
    prediction = truth.copy()
    prediction[:, 5] = 0  # one of the two columns of the band, at radius 1
    assert MeanBoundaryAccuracy().update(Pair(prediction, truth))["mBA"] == pytest.approx(0.5)


@pytest.mark.parametrize("value", [0, 255])
def test_boundary_accuracy_of_a_truth_without_boundary_is_left_out_of_the_mean(value):
    truth = np.zeros((10, 10), np.uint8)
    truth[:, 5:] = 255
    metric = MeanBoundaryAccuracy()
    assert math.isnan(metric.update(Pair(truth, np.full_like(truth, value)))["mBA"])
    assert math.isnan(metric.compute()["mBA"])
    metric.update(Pair(truth, truth))
    assert metric.compute() == {"mBA": 1}
