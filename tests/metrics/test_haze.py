"""Haze against values worked out by hand."""

import math

import numpy as np
import pytest

from birefnet_core.metrics import score_masks


def test_haze_is_counted_on_the_true_background_only():
    truth = np.zeros((1, 10, 10), np.uint8)
    truth[:, :5] = 255
    truth[:, 5] = 60  # a soft edge is no background
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[:, :5] = 100  # errors of the subject do not count
    mask[:, 5] = 200
    mask[:, 6] = 20  # a veil, 10 of 40 pixels
    mask[:, 7, :4] = 255  # a false object, 4 of 40
    mask[:, 8, :2] = 26  # no longer faint: 0.102
    mask[:, 8, 2:4] = 25  # faint
    scores = score_masks(mask, truth, ["haze", "hazeArea"])
    assert scores["haze"] == pytest.approx((10 * 20 + 4 * 255 + 2 * 26 + 2 * 25) / 255 / 40)
    assert scores["hazeArea"] == pytest.approx(12 / 40)


def test_without_background_there_is_no_haze_to_speak_of():
    scores = score_masks(np.ones((1, 4, 4)), np.ones((1, 4, 4)), ["haze", "hazeArea"])
    assert all(math.isnan(score) for score in scores.values())


def test_an_image_without_background_does_not_count_for_the_mean():
    masks, truths = np.full((2, 4, 4), 0.2), np.stack([np.ones((4, 4)), np.zeros((4, 4))])
    assert score_masks(masks, truths, ["haze"])["haze"] == pytest.approx(51 / 255)
