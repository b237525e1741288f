"""What both methods of foreground estimation have in common."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import estimate_foreground
from birefnet_core.masks.foreground import METHODS

pytestmark = pytest.mark.parametrize("method", METHODS)


def test_result_has_the_shape_and_range_of_the_images(method, generator):
    images, masks = torch.rand(2, 31, 45, 3, generator=generator), torch.rand(2, 31, 45, generator=generator)
    kept = images.clone(), masks.clone()
    first, second = (estimate_foreground(images, masks, method) for _ in range(2))
    assert (first.shape, first.dtype) == (images.shape, torch.float32)
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, second)
    assert torch.equal(images, kept[0]) and torch.equal(masks, kept[1])


def test_a_batch_equals_its_frames(method, monkeypatch, generator):
    images, masks = torch.rand(3, 30, 41, 3, generator=generator), torch.rand(3, 30, 41, generator=generator)
    alone = torch.cat([estimate_foreground(i[None], m[None], method) for i, m in zip(images, masks, strict=True)])
    torch.testing.assert_close(estimate_foreground(images, masks, method), alone, rtol=0, atol=1e-6)
    monkeypatch.setattr("birefnet_core.masks.windows.FRAME_PIECE", 1)
    torch.testing.assert_close(estimate_foreground(images, masks, method), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (5, 3), (33, 17)])
def test_plain_masks_and_tiny_images_stay_finite(method, value, size, generator):
    images = torch.rand(1, *size, 3, generator=generator)
    foreground = estimate_foreground(images, torch.full((1, *size), value), method)
    assert foreground.isfinite().all()
    assert foreground.min() >= 0 and foreground.max() <= 1
    if value == 1:
        torch.testing.assert_close(foreground, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_computed_in_float32(method, dtype, generator):
    images, masks = torch.rand(1, 20, 20, 3, generator=generator), torch.rand(1, 20, 20, generator=generator)
    images, masks = images.to(dtype), masks.to(dtype)
    expected = estimate_foreground(images.float(), masks.float(), method)
    assert torch.equal(estimate_foreground(images, masks, method), expected)


def test_one_image_goes_with_many_masks_and_the_reverse(method, generator):
    images, masks = torch.rand(3, 16, 16, 3, generator=generator), torch.rand(3, 16, 16, generator=generator)
    one_image = estimate_foreground(images[:1].repeat(3, 1, 1, 1), masks, method)
    torch.testing.assert_close(estimate_foreground(images[:1], masks, method), one_image, rtol=0, atol=1e-6)
    one_mask = estimate_foreground(images, masks[:1].repeat(3, 1, 1), method)
    torch.testing.assert_close(estimate_foreground(images, masks[:1], method), one_mask, rtol=0, atol=1e-6)


def test_wrong_arguments_are_explained(method):
    images, masks = torch.rand(2, 8, 8, 3), torch.rand(3, 8, 8)
    with pytest.raises(ImageError, match="2 frames and masks has 3"):
        estimate_foreground(images, masks, method)
    with pytest.raises(ConfigError, match="multilevel, blur_fusion"):
        estimate_foreground(images, masks[:2], method.upper())
