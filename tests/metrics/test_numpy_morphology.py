import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from birefnet_core.metrics.numpy_morphology import bounding_box, dilate_ellipse, dilate_square, erode_square

CASES = given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))


@settings(max_examples=60, deadline=None)
@CASES
def test_squares_equal_iterated_opencv(height, width, radius, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    assert np.array_equal(erode_square(image, radius), cv2.erode(framed, kernel, iterations=radius)[1:-1, 1:-1])
    assert np.array_equal(dilate_square(image, radius), cv2.dilate(image, kernel, iterations=radius))


@settings(max_examples=60, deadline=None)
@CASES
def test_ellipse_equals_opencv(height, width, radius, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.05
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    assert np.array_equal(dilate_ellipse(mask, radius), cv2.dilate(mask.view(np.uint8), kernel) > 0)


def test_erosion_comes_in_from_the_image_border():
    assert erode_square(np.full((5, 5), 9, np.uint8), 2).tolist() == np.diag([0, 0, 9, 0, 0]).tolist()


def test_ellipse_of_radius_one_is_a_cross():
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    assert dilate_ellipse(mask, 1).astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


def test_bounding_box_grows_but_stays_inside():
    mask = np.zeros((10, 10), bool)
    mask[1:3, 4] = True
    assert bounding_box(mask) == (slice(1, 3), slice(4, 5))
    assert mask[bounding_box(mask, 3)].shape == (6, 7)
    assert mask[bounding_box(np.zeros_like(mask))].size == 0
