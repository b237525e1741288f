"""Despill: the compositors' formulas for green and blue, and the same for every hue."""

import colorsys

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import background_color, estimate_foreground, remove_spill, shows_background


@pytest.fixture
def image():
    return torch.rand(2, 9, 11, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("color", "key"), [("#00ff00", 1), ("#0000ff", 2), ("#ff0000", 0), ("0.1,0.6,0.1", 1)])
def test_primaries_are_cut_to_the_average_or_the_maximum_of_the_others(image, color, key):
    others = [channel for channel in range(3) if channel != key]
    average, maximum = image[..., others].mean(-1), image[..., others].amax(-1)
    limits = {"average": average, "maximum": maximum, "balanced": (average + maximum) / 2}
    for limit, most in limits.items():
        expected = image.clone()
        expected[..., key] = torch.minimum(image[..., key], most)
        torch.testing.assert_close(remove_spill(image, color, limit=limit), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("limit", ["average", "balanced", "maximum"])
def test_a_turned_hue_gives_a_turned_result(image, limit):
    """120 degrees of hue are a permutation of the channels."""
    orange, turned = (1.0, 0.5, 0.0), (0.0, 1.0, 0.5)
    expected = remove_spill(image, orange, limit=limit)
    torch.testing.assert_close(remove_spill(image.roll(1, -1), turned, limit=limit), expected.roll(1, -1))


@pytest.mark.parametrize("hue", [0.05, 0.2, 0.45, 0.55, 0.8])
def test_any_colour_loses_its_own_hue_and_keeps_greys(hue):
    key = tuple(float(c) for c in colorsys.hsv_to_rgb(hue, 1, 0.7))
    grey = torch.full((1, 1, 1, 3), 0.4)
    spilled = (0.7 * grey + 0.3 * torch.tensor(key)).clamp(0, 1)
    clean = remove_spill(spilled, key)
    assert (clean.amax() - clean.amin()) < 1e-5  # no hue is left
    torch.testing.assert_close(remove_spill(grey, key), grey, rtol=0, atol=1e-6)


def test_opposite_hues_stay(image):
    magenta = torch.tensor([0.8, 0.1, 0.7]).expand(1, 3, 3, 3)
    torch.testing.assert_close(remove_spill(magenta, "#00ff00"), magenta, rtol=0, atol=1e-6)
    yellow = torch.tensor([0.9, 0.8, 0.1]).expand(1, 3, 3, 3)
    torch.testing.assert_close(remove_spill(yellow, "#00ff00", limit="maximum"), yellow, rtol=0, atol=1e-6)
    assert remove_spill(yellow, "#00ff00", limit="average")[..., 1].max() < 0.6


def test_strength_and_brightness(image):
    all_out = remove_spill(image, "#00ff00")
    torch.testing.assert_close(remove_spill(image, "#00ff00", strength=0.0), image, rtol=0, atol=1e-6)
    half = remove_spill(image, "#00ff00", strength=0.5)
    torch.testing.assert_close(half, (image + all_out) / 2)
    dark = image * 0.5
    kept = remove_spill(dark, "#00ff00", keep_brightness=1.0)
    luma = torch.tensor([0.2126, 0.7152, 0.0722])
    torch.testing.assert_close(kept @ luma, dark @ luma)


def test_only_the_edge_of_a_mask_is_changed(image):
    green = torch.tensor([0.2, 0.8, 0.2]).expand(1, 60, 60, 3).contiguous()
    mask = torch.zeros(1, 60, 60)
    mask[:, :, 20:] = 1
    result = remove_spill(green, "#00ff00", masks=mask, edge_width=12)[0, 30]
    torch.testing.assert_close(result[33:], green[0, 30, 33:], rtol=0, atol=1e-6)
    torch.testing.assert_close(result[:20, 1], torch.full((20,), 0.2))
    assert (result[20:33, 1].diff() >= 0).all()


def test_the_background_is_measured_where_the_mask_is_not():
    image = torch.rand(2, 30, 30, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 30, 30)
    mask[:, :10] = 0
    image[:, :9] = torch.tensor([0.1, 0.6, 0.2])  # the tenth row is an exception
    assert background_color(image, mask) == pytest.approx((0.1, 0.6, 0.2))
    with pytest.raises(ImageError, match="no background"):
        background_color(image, torch.ones(1, 30, 30))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"color": "blueish"}, "#ff8800"),
        ({"limit": "most"}, "average"),
        ({"strength": 1.1}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"keep_brightness": -1}, "keep_brightness"),
        ({"edge_width": -1}, "edge_width"),
    ],
)
def test_other_options_are_refused(image, options, says):
    with pytest.raises(ConfigError, match=says):
        remove_spill(image, **{"color": "#00ff00", **options})


@pytest.mark.parametrize("color", ["#808080", "#818080", "#000000", "#ffffff"])
def test_a_grey_changes_nothing_and_says_so(image, color, caplog):
    assert torch.equal(remove_spill(image, color), image)
    assert "grey" in caplog.text


def test_an_edge_width_needs_a_mask(image):
    with pytest.raises(ImageError, match="masks is missing"):
        remove_spill(image, "#00ff00", edge_width=3)


@pytest.mark.parametrize("size", [(90, 120), (700, 1100)])
def test_colours_of_the_subject_carried_on_are_no_background(size):
    y, x = (torch.linspace(-1, 1, n) for n in size)
    masks = torch.stack([torch.zeros(size), ((0.6 - y[:, None].hypot(x)) * 8).clamp(0, 1)])
    skin = torch.stack(
        [0.7 + 0.1 * torch.sin(9 * x).expand(size), 0.5 + 0.1 * y[:, None].expand(size), 0.4 + 0 * masks[0]], -1
    )
    wall = torch.tensor([0.2, 0.35, 0.7])
    images = torch.lerp(wall, skin, masks[..., None])
    assert shows_background(images, masks)
    assert not shows_background(estimate_foreground(images, masks), masks)
    assert shows_background(images[:1], masks[:1])  # without a subject there is nothing to carry on
