import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from birefnet_core.errors import ConfigError
from birefnet_core.metrics import Pair, WeightedF
from birefnet_core.metrics.measures.weighted_f import _nearest, _squared_distances


def test_weighted_f_equals_recorded(recorded_pair):
    pair, official, _ = recorded_pair
    assert WeightedF().update(pair)["wF"] == pytest.approx(official["wF"], abs=1e-12)


def test_weighted_f_without_opencv_is_the_same(recorded_pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    pair, official, _ = recorded_pair
    assert WeightedF().update(pair)["wF"] == pytest.approx(official["wF"], abs=1e-12)


def test_weighted_f_by_hand():
    truth = np.zeros((1, 8), np.uint8)
    truth[0, :2] = 255
    prediction = truth.copy()
    prediction[0, 6] = 255  # a false pixel five from the object weighs 2 - 1/2
    precision = 2 / (2 + 1.5)
    assert WeightedF().update(Pair(prediction, truth))["wF"] == pytest.approx(2 * precision / (1 + precision))


def test_weighted_f_of_an_empty_truth_is_zero():
    prediction = np.array([[0, 255]], np.uint8)
    assert WeightedF().update(Pair(prediction, np.zeros_like(prediction)))["wF"] == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.01, 0.1, 0.5]), st.integers(0, 2**32 - 1))
def test_nearest_pixel_and_distance_equal_scipy(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    if not mask.any():
        return
    distance, places = ndimage.distance_transform_edt(~mask, return_indices=True)
    assert np.array_equal(_squared_distances(mask), np.rint(distance**2).astype(int))
    near = ndimage.maximum_filter(mask, 7, mode="constant") & ~mask
    rows, columns = np.nonzero(near)
    row_steps, column_steps = _nearest(mask, rows, columns)
    assert np.array_equal(rows + row_steps, places[0][near])  # the same one of equally near pixels
    assert np.array_equal(columns + column_steps, places[1][near])


def test_far_distances_are_exact_up_to_where_they_matter():
    mask = np.zeros((700, 900), bool)
    mask[13, 27] = mask[600, 880] = True
    expected = np.rint(ndimage.distance_transform_edt(~mask) ** 2)
    assert np.array_equal(np.minimum(_squared_distances(mask), 266**2), np.minimum(expected, 266**2))


def test_weighted_f_says_that_scipy_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    prediction = np.array([[0, 255, 100], [255, 255, 0]], np.uint8)
    with pytest.raises(ConfigError, match="SciPy"):
        WeightedF().update(Pair(prediction, prediction[::-1]))
