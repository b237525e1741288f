import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import morphology

from birefnet_core.metrics.skeleton import skeletonize


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["smooth", "binary", "full"]), st.integers(0, 2**32 - 1))
def test_skeleton_equals_scikit_image(random_mask, height, width, kind, seed):
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, (height, width), kind) > 128
    expected = morphology.skeletonize(mask)
    assert np.array_equal(skeletonize(mask), expected)
    watched = rng.random(mask.shape) < 0.1
    assert np.array_equal(skeletonize(mask, watched), expected & watched)


def test_skeleton_of_a_large_disc_equals_scikit_image():
    rows, columns = np.mgrid[:300, :300]
    mask = (rows - 140) ** 2 + (columns - 150) ** 2 < 120**2  # thick enough to follow the border
    mask[100:120, 130:180] = False
    assert np.array_equal(skeletonize(mask), morphology.skeletonize(mask))


def test_skeleton_of_a_bar_is_thin_and_inside():
    mask = np.zeros((9, 17), bool)
    mask[2:7, 2:15] = True
    found = skeletonize(mask)
    assert found.any()
    assert not (found & ~mask).any()
    assert found.sum(axis=0).max() == 1
    assert mask.sum() == 5 * 13  # the input is left alone


def test_skeleton_of_nothing_is_nothing():
    assert not skeletonize(np.zeros((4, 5), bool)).any()
