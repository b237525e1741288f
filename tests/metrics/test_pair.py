import numpy as np
import pytest

from birefnet_core.errors import ImageError
from birefnet_core.metrics import Pair
from birefnet_core.metrics.pair import to_bytes


def test_to_bytes_takes_every_usual_type():
    assert to_bytes(np.array([[False, True]])).tolist() == [[0, 255]]
    assert to_bytes(np.array([[0.0, 0.5, 1.0]], np.float32)).tolist() == [[0, 128, 255]]
    assert to_bytes(np.array([[0, 0x80FF, 0xFFFF]], np.uint16)).tolist() == [[0, 0x80, 0xFF]]
    assert to_bytes(np.full((2, 3, 1), 7, np.uint8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.array([[0.1, np.nan]]), "NaN"),
        (np.array([[0.1, np.inf]]), "infinite"),
        (np.array([[0.0, 255.0]]), r"\[0, 1\]"),
        (np.array([[0, 1]]), "int64"),
        (np.zeros((2, 2, 3), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "at least one pixel"),
    ],
)
def test_to_bytes_refuses_what_is_no_mask(image, message):
    with pytest.raises(ImageError, match=message):
        to_bytes(image)


def test_pair_names_the_side_that_is_wrong():
    good, bad = np.zeros((3, 3), np.uint8), np.full((3, 3), np.nan)
    with pytest.raises(ImageError, match="prediction"):
        Pair(bad, good)
    with pytest.raises(ImageError, match="ground truth"):
        Pair(good, bad)


def test_mask_is_above_128():
    truth = np.array([[127, 128, 129]], np.uint8)
    assert Pair(np.zeros_like(truth), truth).mask.tolist() == [[False, False, True]]


def test_levels_are_stretched_but_a_constant_keeps_its_value():
    truth = np.zeros((1, 3), np.uint8)
    pair = Pair(np.array([[51, 102, 153]], np.uint8), truth)
    assert pair.normalised[0] == pytest.approx([0, 0.5, 1])
    assert Pair(np.full((1, 3), 51, np.uint8), truth).normalised.tolist() == [[0.2] * 3]


def test_centre_is_one_past_the_rounded_centre_of_mass():
    truth = np.zeros((6, 8), np.uint8)
    truth[2, 3] = truth[2, 4] = 255
    assert Pair(truth, truth).centre == (3, 5)  # row 2; column 3.5, which rounds to the even 4
    assert Pair(truth, np.zeros_like(truth)).centre == (4, 5)


def test_quadrant_counts_hold_every_pixel_once():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 256, (2, 21, 17), dtype=np.uint8)
    pair = Pair(prediction, truth)
    assert pair.counts.sum() == prediction.size
    assert pair.counts[1].sum() == np.count_nonzero(truth > 128) == pair.foreground
    assert np.array_equal(pair.counts[0], np.bincount(prediction[truth <= 128], minlength=256))


def test_hits_count_pixels_at_or_above_each_threshold():
    rng = np.random.default_rng(1)
    prediction, truth = rng.integers(3, 200, (2, 21, 17), dtype=np.uint8)
    pair = Pair(prediction, truth)
    bytes_ = (pair.normalised * 255).astype(np.uint8)
    for threshold in (255, 254, 100, 1, 0):
        outside, inside = pair.hits[:, 255 - threshold]
        assert inside == np.count_nonzero((bytes_ >= threshold) & pair.mask)
        assert outside == np.count_nonzero((bytes_ >= threshold) & ~pair.mask)


def test_adaptive_threshold_is_twice_the_mean_and_at_most_one():
    truth = np.zeros((1, 4), np.uint8)
    assert Pair(np.array([[0, 0, 0, 255]], np.uint8), truth).adaptive_threshold == 0.5
    assert Pair(np.array([[0, 255, 255, 255]], np.uint8), truth).adaptive_threshold == 1
