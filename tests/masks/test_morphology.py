"""Outlines against brute force and against scipy."""

import math

import pytest
import torch
from scipy import ndimage

from birefnet_core.masks.morphology import feather, grow, smooth_edge


def footprint(radius: int, element: str) -> torch.Tensor:
    at = torch.arange(-radius, radius + 1)
    if element == "square":
        return torch.ones(len(at), len(at), dtype=torch.bool)
    return at[:, None] ** 2 + at**2 <= radius**2


@pytest.mark.parametrize("element", ["circle", "square"])
@pytest.mark.parametrize("radius", [1, 2, 3, 5, 8, 13])
def test_grow_and_shrink_equal_scipy(element, radius, generator):
    masks = torch.rand(2, 17, 22, generator=generator)
    kernel = footprint(radius, element).numpy()
    for mask, larger, smaller in zip(masks, grow(masks, radius, element), grow(masks, -radius, element), strict=True):
        dilated = ndimage.grey_dilation(mask.numpy(), footprint=kernel, mode="constant", cval=0)
        eroded = ndimage.grey_erosion(mask.numpy(), footprint=kernel, mode="constant", cval=1)
        torch.testing.assert_close(larger, torch.from_numpy(dilated), rtol=0, atol=0)
        torch.testing.assert_close(smaller, torch.from_numpy(eroded), rtol=0, atol=1e-7)


@pytest.mark.parametrize("element", ["circle", "square"])
@pytest.mark.parametrize("size", [(1, 40), (40, 1), (2, 30), (3, 30), (30, 3), (9, 12)])
@pytest.mark.parametrize("radius", [1, 2, 3, 8, 11, 25, 39])
def test_growing_farther_than_the_picture_is_wide_equals_scipy(element, size, radius, generator):
    masks = torch.rand(1, *size, generator=generator)
    dilated = ndimage.grey_dilation(masks[0].numpy(), footprint=footprint(radius, element).numpy(), mode="constant")
    assert torch.equal(grow(masks, radius, element)[0], torch.from_numpy(dilated))


def test_one_pixel_grows_to_the_element():
    masks = torch.zeros(1, 9, 9)
    masks[0, 4, 4] = 1
    for element in ("circle", "square"):
        expected = torch.zeros(9, 9)
        expected[1:8, 1:8] = footprint(3, element).float()
        assert torch.equal(grow(masks, 3, element)[0], expected)


@pytest.mark.parametrize("element", ["circle", "square"])
def test_reach_beyond_the_picture_is_harmless(element):
    masks = torch.zeros(1, 3, 5)
    masks[0, 1, 1] = 1
    assert torch.equal(grow(masks, 40, element), torch.ones(1, 3, 5))
    assert torch.equal(grow(masks, -40, element), torch.zeros(1, 3, 5))


def test_shrinking_does_not_eat_in_from_the_border():
    assert torch.equal(grow(torch.ones(1, 6, 6), -3), torch.ones(1, 6, 6))


def test_feather_equals_a_gaussian(generator):
    masks = torch.rand(2, 30, 25, generator=generator)
    expected = [ndimage.gaussian_filter(m.numpy(), 2.5, mode="nearest", radius=math.ceil(7.5)) for m in masks]
    torch.testing.assert_close(feather(masks, 2.5), torch.stack([torch.from_numpy(e) for e in expected]))


def test_feather_keeps_a_cut_off_subject_opaque():
    torch.testing.assert_close(feather(torch.ones(1, 8, 8), 5.0), torch.ones(1, 8, 8))


def test_feather_is_wider_than_tiny_pictures():
    torch.testing.assert_close(feather(torch.full((1, 1, 1), 0.3), 20.0), torch.full((1, 1, 1), 0.3))


def test_smooth_edge_keeps_a_straight_edge_where_it_is():
    masks = torch.zeros(1, 20, 20)
    masks[..., 10:] = 1
    smooth = smooth_edge(masks, 3.0)
    assert (smooth[..., :9].max(), smooth[..., 11:].min()) == (0, 1)
    torch.testing.assert_close(smooth[..., 9] + smooth[..., 10], torch.ones(1, 20))


def test_smooth_edge_removes_stairs():
    """A slope of one row in eight columns: the outline's height must follow the line, not its steps."""
    columns = torch.arange(96)
    rows = torch.arange(48)[:, None]
    masks = (rows < 18 + torch.div(columns, 8, rounding_mode="floor")).float()[None]
    line = 18 + (columns - 3.5) / 8
    inner = slice(24, 72)
    before = (masks.sum(dim=1)[0] - line)[inner].abs().max()
    after = (smooth_edge(masks, 4.0).sum(dim=1)[0] - line)[inner].abs().max()
    assert after < before / 4


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (6, 9), (40, 5)])
@pytest.mark.parametrize("sigma", [0.3, 2.0, 5.0, 50.0])
def test_a_feather_wider_than_the_picture_is_that_of_a_repeated_border(size, sigma, generator):
    masks = torch.rand(2, *size, generator=generator)
    reach = math.ceil(3 * sigma)
    far = torch.nn.functional.pad(masks[:, None], (reach,) * 4, mode="replicate").double()
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    kernel /= kernel.sum()
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        far = torch.nn.functional.conv2d(far, kernel.view(shape))
    torch.testing.assert_close(feather(masks, sigma), far[:, 0].float(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("sigma", [1e5, 1e7, 1e30])
def test_a_feather_without_end_takes_no_memory(sigma):
    masks = torch.zeros(1, 4, 6)
    masks[:, :, 3:] = 1
    torch.testing.assert_close(feather(masks, sigma), torch.full_like(masks, 0.5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("element", ["circle", "square"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (6, 9)])
def test_growing_without_end_takes_no_memory(element, size, generator):
    masks = torch.rand(2, *size, generator=generator)
    largest = masks.amax((1, 2), keepdim=True).expand_as(masks)
    smallest = masks.amin((1, 2), keepdim=True).expand_as(masks)
    for pixels in (11, 10**6, 10**12):
        torch.testing.assert_close(grow(masks, pixels, element), largest)
        torch.testing.assert_close(grow(masks, -pixels, element), smallest)
