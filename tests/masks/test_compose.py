"""Alpha and backgrounds on hand-computed values, and round trips."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import (
    over_checkerboard,
    over_color,
    over_image,
    parse_color,
    premultiplied_rgba,
    straight_rgba,
)

COMPOSITIONS = [
    straight_rgba,
    premultiplied_rgba,
    lambda i, m: over_color(i, m, "#204060"),
    lambda i, m: over_image(i, m, torch.full((1, 3, 4, 3), 0.25)),
    over_checkerboard,
]


def test_a_mask_of_one_shows_the_subject_and_zero_the_background():
    """The polarity of the whole package: foreground is 1."""
    image, mask = torch.full((1, 1, 2, 3), 0.3), torch.tensor([[[1.0, 0.0]]])
    assert straight_rgba(image, mask)[0, 0, :, 3].tolist() == [1.0, 0.0]
    shown = over_color(image, mask, (255, 0, 0))
    torch.testing.assert_close(shown[0, 0], torch.tensor([[0.3, 0.3, 0.3], [1.0, 0.0, 0.0]]))


def test_half_transparent_pixels_mix():
    image, mask = torch.tensor([[[[1.0, 0.5, 0.0]]]]), torch.full((1, 1, 1), 0.25)
    assert straight_rgba(image, mask).flatten().tolist() == [1.0, 0.5, 0.0, 0.25]
    assert premultiplied_rgba(image, mask).flatten().tolist() == [0.25, 0.125, 0.0, 0.25]
    torch.testing.assert_close(over_color(image, mask, (0.0, 1.0, 1.0)).flatten(), torch.tensor([0.25, 0.875, 0.75]))


def test_premultiplied_over_a_background_equals_the_composite(generator):
    image, mask = torch.rand(2, 9, 7, 3, generator=generator), torch.rand(2, 9, 7, generator=generator)
    background = torch.rand(1, 9, 7, 3, generator=generator)
    rgba = premultiplied_rgba(image, mask)
    composed = rgba[..., :3] + (1 - rgba[..., 3:]) * background
    torch.testing.assert_close(composed, over_image(image, mask, background))


def test_straight_colours_divide_out_of_premultiplied_ones(generator):
    image, mask = torch.rand(1, 8, 8, 3, generator=generator), torch.rand(1, 8, 8, generator=generator) * 0.9 + 0.1
    rgba = premultiplied_rgba(image, mask)
    torch.testing.assert_close(rgba[..., :3] / rgba[..., 3:], straight_rgba(image, mask)[..., :3])


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_inputs_stay_and_batches_equal_frames(compose, generator):
    images, masks = torch.rand(3, 8, 6, 3, generator=generator), torch.rand(3, 8, 6, generator=generator)
    kept = images.clone(), masks.clone()
    together = compose(images, masks)
    assert torch.equal(images, kept[0]) and torch.equal(masks, kept[1])
    alone = torch.cat([compose(i[None], m[None]) for i, m in zip(images, masks, strict=True)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("compose", COMPOSITIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_computed_in_float32(compose, dtype, generator):
    images, masks = torch.rand(1, 5, 6, 3, generator=generator).to(dtype), torch.rand(1, 5, 6, generator=generator)
    assert torch.equal(compose(images, masks), compose(images.float(), masks))


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_batches_of_one_are_repeated_and_others_refused(compose, generator):
    images, masks = torch.rand(3, 5, 6, 3, generator=generator), torch.rand(3, 5, 6, generator=generator)
    assert torch.equal(compose(images[:1], masks), compose(images[:1].repeat(3, 1, 1, 1), masks))
    assert torch.equal(compose(images, masks[:1]), compose(images, masks[:1].repeat(3, 1, 1)))
    with pytest.raises(ImageError, match="2 frames and masks has 3"):
        compose(images[:2], masks)


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_masks_of_another_size_are_resized(compose):
    shown = compose(torch.full((1, 10, 14, 3), 0.5), torch.ones(1, 3, 3))
    assert shown.shape[:3] == (1, 10, 14)
    torch.testing.assert_close(shown[..., :3], torch.full((1, 10, 14, 3), 0.5))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("#ff8000", (1, 128 / 255, 0)),
        ("FF8000", (1, 128 / 255, 0)),
        (" #f80 ", (1, 136 / 255, 0)),
        ("255,136,0", (1, 136 / 255, 0)),
        ("255, 136, 0", (1, 136 / 255, 0)),
        ("1.0, 0.5, 0", (1, 0.5, 0)),
        ((255, 136, 0), (1, 136 / 255, 0)),
        ((1, 1, 1), (1 / 255, 1 / 255, 1 / 255)),
        ([1.0, 0, 0.25], (1, 0, 0.25)),
    ],
)
def test_colours_are_read(value, expected):
    assert parse_color(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "expected a color"),
        ("#12345", "expected a color"),
        ("#12345678", "expected a color"),
        ("#gggggg", "expected a color"),
        ("white", "expected a color"),
        ("1,2", "2 parts"),
        ("1,2,3,4", "4 parts"),
        ("1,2,", "expected a color"),
        ("256,0,0", "outside 0 to 255"),
        ("1.5,0,0", "outside 0 to 1"),
        ("-1,0,0", "outside"),
        ((0.1, float("nan"), 0.2), "outside 0 to 1"),
        ((1, 2), "2 parts"),
        ((True, False, True), "expected a color"),
        (None, "expected a color"),
        (7, "expected a color"),
        (b"abc", "expected a color"),
    ],
)
def test_wrong_colours_are_explained(value, message):
    with pytest.raises(ConfigError, match=message):
        parse_color(value)


def striped(height: int, width: int) -> torch.Tensor:
    """Left third red, middle green, right third blue."""
    image = torch.zeros(1, height, width, 3)
    for channel, columns in enumerate(torch.arange(width).chunk(3)):
        image[:, :, columns, channel] = 1
    return image


def test_backgrounds_fill_fit_or_stretch():
    image, empty = torch.zeros(1, 12, 12, 3), torch.zeros(1, 12, 12)
    wide = striped(12, 36)
    filled = over_image(image, empty, wide, "fill")
    assert torch.equal(filled, torch.tensor([0.0, 1.0, 0.0]).expand(1, 12, 12, 3))
    fitted = over_image(image, empty, wide, "fit", bars=(255, 255, 255))
    assert torch.equal(fitted[:, :4], torch.ones(1, 4, 12, 3)) and torch.equal(fitted[:, 8:], torch.ones(1, 4, 12, 3))
    torch.testing.assert_close(fitted[:, 4:8], over_image(image, empty, wide, "stretch")[:, 4:8])
    stretched = over_image(image, empty, wide, "stretch")
    torch.testing.assert_close(stretched[0, 6, [1, 6, 10]], torch.eye(3), rtol=0, atol=0.05)


@pytest.mark.parametrize("fit", ["fill", "fit", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 5), (50, 20), (12, 17)])
def test_backgrounds_of_any_size_fit(fit, size):
    shown = over_image(
        torch.zeros(1, 12, 17, 3), torch.zeros(1, 12, 17), torch.full((1, *size, 3), 0.5), fit, "#808080"
    )
    assert shown.shape == (1, 12, 17, 3)
    torch.testing.assert_close(shown, torch.full_like(shown, 0.5), rtol=0, atol=0.01)


def test_one_image_goes_over_many_backgrounds(generator):
    image, mask = torch.rand(1, 6, 6, 3, generator=generator), torch.rand(1, 6, 6, generator=generator)
    backgrounds = torch.rand(4, 6, 6, 3, generator=generator)
    shown = over_image(image, mask, backgrounds)
    assert torch.equal(shown[2:3], over_image(image, mask, backgrounds[2:3]))
    with pytest.raises(ImageError, match="images has 2 frames and backgrounds has 4"):
        over_image(image.repeat(2, 1, 1, 1), mask, backgrounds)


def test_wrong_fits_and_cells_are_explained():
    image, mask = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4)
    with pytest.raises(ConfigError, match="fill, fit, stretch"):
        over_image(image, mask, image, "crop")
    with pytest.raises(ConfigError, match="cell is 0"):
        over_checkerboard(image, mask, 0)


def test_the_checkerboard_alternates():
    board = over_checkerboard(torch.zeros(1, 4, 6, 3), torch.zeros(1, 4, 6), 2)[0, :, :, 0]
    light, dark = board[0, 0], board[0, 2]
    assert light > dark
    expected = torch.tensor([[1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]).bool()
    assert torch.equal(board == light, expected)
