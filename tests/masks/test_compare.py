"""The image of agreement on hand-computed pixels."""

import pytest
import torch

from birefnet_core.errors import ImageError
from birefnet_core.masks import LEGEND, compare_masks


def test_hard_masks_show_the_legend():
    masks, truths = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    assert torch.equal(compare_masks(masks, truths)[0, 0], torch.tensor(list(LEGEND.values())))


def test_soft_pixels_mix_the_colours():
    white, red, blue, _ = (torch.tensor(colour) for colour in LEGEND.values())
    image = compare_masks(torch.tensor([[[0.75, 0.25]]]), torch.tensor([[[0.5, 1.0]]]))[0, 0]
    torch.testing.assert_close(image, torch.stack([0.5 * white + 0.25 * red, 0.25 * white + 0.75 * blue]))


def test_equal_masks_show_themselves(generator):
    masks = torch.rand(2, 6, 5, generator=generator)
    torch.testing.assert_close(compare_masks(masks, masks), masks[..., None].expand(-1, -1, -1, 3))


def test_masks_are_resized_and_repeated():
    assert compare_masks(torch.ones(1, 3, 3), torch.ones(4, 7, 9)).shape == (4, 7, 9, 3)
    with pytest.raises(ImageError, match="masks has 2 frames and truths has 3"):
        compare_masks(torch.zeros(2, 3, 3), torch.zeros(3, 3, 3))


def test_values_stay_in_range(generator):
    masks, truths = torch.rand(3, 9, 9, generator=generator), torch.rand(3, 9, 9, generator=generator)
    image = compare_masks(masks, truths)
    assert image.min() >= 0 and image.max() <= 1
    halves = compare_masks(masks.half(), truths.half())
    assert halves.dtype == torch.float32
    torch.testing.assert_close(halves, image, rtol=0, atol=2e-3)
