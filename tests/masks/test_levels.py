"""Levels on hand-computed values."""

import torch

from birefnet_core.masks.levels import binarize, stretch_levels


def test_levels_stretch_between_the_points():
    masks = torch.tensor([[[0.0, 0.2, 0.4, 0.6, 1.0]]])
    expected = torch.tensor([[[0.0, 0.0, 0.5, 1.0, 1.0]]])
    torch.testing.assert_close(stretch_levels(masks, 0.2, 0.6), expected)


def test_threshold_is_exclusive():
    assert binarize(torch.tensor([[[0.4, 0.5, 0.6]]]), 0.5).tolist() == [[[0.0, 0.0, 1.0]]]
