"""Trimaps against distances worked out pixel by pixel."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import make_trimap


def brute_force(mask, inside, outside):
    height, width = mask.shape
    at = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).reshape(-1, 2)
    distance = torch.cdist(at.double(), at.double())  # of every pixel to every pixel
    values = mask.flatten()
    near_other = (distance <= inside + 1e-9)[:, values < 0.95].any(1)
    near_subject = (distance <= outside + 1e-9)[:, values > 0.05].any(1)
    trimap = torch.full_like(values, 0.5)
    trimap[~near_other] = 1
    trimap[~near_subject] = 0
    return trimap.view(height, width)


@pytest.mark.parametrize(("inside", "outside"), [(0, 0), (3, 2), (1, 6), (7, 0)])
def test_a_trimap_is_what_its_distances_say(inside, outside):
    mask = torch.zeros(24, 30)
    mask[8:20, 10:30] = 1  # touches the right border
    mask[7, 10:30] = 0.4
    mask[2, 3] = 0.5
    trimap = make_trimap(mask[None], inside, outside)[0]
    assert torch.equal(trimap, brute_force(mask, inside, outside))
    assert set(trimap.unique().tolist()) <= {0, 0.5, 1}


def test_a_subject_cut_off_by_the_border_has_no_band_along_it():
    mask = torch.zeros(1, 20, 20)
    mask[:, :, 8:] = 1
    assert (make_trimap(mask, 4, 4)[0, :, 12:] == 1).all()


def test_many_images_equal_single_ones():
    masks = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(0))
    together = make_trimap(masks, 2, 1)
    assert torch.equal(together, torch.cat([make_trimap(mask[None], 2, 1) for mask in masks]))


def test_full_and_empty_masks_have_no_band():
    assert (make_trimap(torch.ones(1, 9, 9)) == 1).all() and not make_trimap(torch.zeros(1, 9, 9)).any()


@pytest.mark.parametrize("options", [{"inside": -1}, {"outside": 1.5}, {"inside": True}, {"low": 0.9, "high": 0.5}])
def test_other_options_are_refused(options):
    with pytest.raises(ConfigError):
        make_trimap(torch.ones(1, 9, 9), **options)


def test_other_masks_are_refused():
    with pytest.raises(ImageError, match="NaN"):
        make_trimap(torch.full((1, 9, 9), float("nan")))
