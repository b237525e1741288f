import sys
import time

import numpy as np
import pytest

from birefnet_core.errors import ConfigError
from birefnet_core.metrics import HumanCorrectionEfforts, Pair


def efforts(prediction, truth, relax=5):
    return HumanCorrectionEfforts(relax).update(Pair(prediction, truth))["HCE"]


def blank(value=0):
    return np.full((60, 60), value, np.uint8)


def test_hce_equals_recorded(recorded_pair):
    pair, official, _ = recorded_pair
    assert HumanCorrectionEfforts().update(pair)["HCE"] == official["HCE"]


def test_hce_of_a_perfect_mask_is_zero():
    truth = blank()
    truth[10:30, 10:40] = 255
    assert efforts(truth, truth) == 0


def test_hce_of_a_false_island_is_one_click():
    truth = blank()
    truth[5:25, 5:25] = 255
    prediction = truth.copy()
    prediction[35:55, 35:55] = 255
    assert efforts(prediction, truth) == 1


def test_hce_of_a_missed_square_is_its_corners():
    truth = blank()
    truth[20:50, 20:50] = 255
    assert efforts(blank(), truth, relax=0) == 5  # four, and where the open polygon around it ends
    assert efforts(blank(), truth, relax=5) == 9  # relaxing cuts off the corners, which makes eight


def test_hce_forgives_what_is_thinner_than_the_tolerance():
    truth, prediction = blank(), blank()
    truth[10:50, 10:50] = 255
    prediction[13:47, 13:47] = 255
    assert efforts(prediction, truth, relax=5) == 0
    assert efforts(prediction, truth, relax=0) > 0


def test_hce_does_not_forgive_a_broken_thin_line():
    truth = blank()
    truth[29:32, 5:55] = 255
    prediction = truth.copy()
    prediction[:, 20:40] = 0
    assert efforts(prediction, truth) > 0


def test_hce_of_a_faulty_region_over_the_whole_image_is_zero_as_published():
    assert efforts(blank(255), blank()) == 0
    assert efforts(blank(), blank(255)) == 0


def test_hce_takes_the_prediction_as_it_is():
    truth = blank()
    truth[10:50, 10:50] = 255
    assert efforts(truth // 2, truth) == efforts(blank(), truth)  # byte 127 is background, however dark the rest


def test_hce_refuses_a_negative_tolerance():
    with pytest.raises(ConfigError, match="-1"):
        HumanCorrectionEfforts(-1)


def test_hce_says_that_opencv_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"OpenCV.*pip install opencv-python-headless"):
        HumanCorrectionEfforts()


def test_a_tolerance_beyond_the_image_takes_no_longer_than_one_of_its_size():
    """Ten million steps would take minutes, and more than 32 bits are refused by OpenCV."""
    random = np.random.RandomState(0)
    prediction, truth = (np.kron(random.choice([0, 255], (8, 12)), np.ones((5, 5))).astype(np.uint8) for _ in "ab")
    expected = efforts(prediction, truth, relax=40 * 60)
    started = time.perf_counter()
    assert efforts(prediction, truth, relax=10**7) == efforts(prediction, truth, relax=10**30) == expected
    assert time.perf_counter() - started < 5
