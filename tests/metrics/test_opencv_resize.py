import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from birefnet_core.metrics.opencv_resize import resize_bilinear

SIDE = st.integers(1, 70)


@settings(max_examples=150, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 2**32 - 1))
@example(20, 30, 10, 15, 0)  # halved: a way of its own
@example(10, 15, 20, 30, 0)
@example(20, 30, 10, 30, 0)
@example(1, 1, 9, 7, 0)
def test_resize_equals_opencv_to_the_bit(height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    expected = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_bilinear(image, new_height, new_width), expected)


@pytest.mark.parametrize("shape", [(1365, 2047), (700, 3001), (1024, 1024)])
def test_resize_equals_opencv_at_real_sizes(shape):
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8)
    expected = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_bilinear(image, *shape), expected)


def test_resize_keeps_a_constant():
    assert np.unique(resize_bilinear(np.full((7, 9), 200, np.uint8), 20, 5)).tolist() == [200]


def test_resize_interpolates_between_pixels():
    assert resize_bilinear(np.array([[0, 100]], np.uint8), 1, 4).tolist() == [[0, 25, 75, 100]]
