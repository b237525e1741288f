"""Flicker by hand-computed values."""

import pytest
import torch

from birefnet_core.errors import ImageError
from birefnet_core.metrics.flicker import flicker


def still(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(frames - 1, 2, 4, 6), torch.ones(frames - 1, 4, 6, dtype=torch.bool)


def test_levels_that_change_by_a_fifth():
    masks = torch.tensor([0.5, 0.7, 0.5]).view(3, 1, 1).expand(3, 4, 6)
    assert flicker(masks, *still(3)) == pytest.approx(0.2)


def test_motion_is_followed_and_what_comes_in_does_not_count():
    masks = torch.zeros(2, 4, 6)
    masks[0, :, 1], masks[1, :, 3] = 1, 1
    motion, visible = still(2)
    assert flicker(masks, motion, visible) == pytest.approx(2 / 6)
    motion[:, 0] = -2
    visible[..., :2] = False
    assert flicker(masks, motion, visible) == pytest.approx(0, abs=1e-6)


def test_what_the_truth_changes_does_not_count_nor_a_lasting_error():
    truths = torch.tensor([0.2, 0.6]).view(2, 1, 1).expand(2, 4, 6)
    assert flicker(truths, *still(2)) == pytest.approx(0.4)
    assert flicker(truths + 0.1, *still(2), truths=truths) == pytest.approx(0, abs=1e-6)


def test_nothing_visible_is_zero_and_wrong_shapes_are_named():
    masks = torch.rand(2, 4, 6)
    motion, visible = still(2)
    assert flicker(masks, motion, torch.zeros_like(visible)) == 0
    with pytest.raises(ImageError, match=r"motion has shape \(2, 2, 4, 6\), expected \(1, 2, 4, 6\)"):
        flicker(masks, still(3)[0], visible)
