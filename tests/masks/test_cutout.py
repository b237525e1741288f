"""cut_out is the functions of this package in a row."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import (
    CutoutOptions,
    cut_out,
    estimate_foreground,
    over_checkerboard,
    over_color,
    over_image,
    premultiplied_rgba,
    straight_rgba,
)

IMAGES = torch.rand(2, 24, 30, 3, generator=torch.Generator().manual_seed(0))
MASKS = torch.rand(2, 24, 30, generator=torch.Generator().manual_seed(1))
BACKGROUND = torch.rand(1, 10, 12, 3, generator=torch.Generator().manual_seed(2))
EXPECTED = {
    "rgba": straight_rgba,
    "premultiplied": premultiplied_rgba,
    "color": lambda i, m: over_color(i, m, "#102030"),
    "image": lambda i, m: over_image(i, m, BACKGROUND, "fit", "#102030"),
    "checkerboard": over_checkerboard,
}


@pytest.mark.parametrize("output", EXPECTED)
@pytest.mark.parametrize("colors", ["multilevel", "blur_fusion", None])
def test_cut_out_equals_its_steps(output, colors):
    options = CutoutOptions(output=output, colors=colors, color="#102030", fit="fit")
    result, masks = cut_out(IMAGES, MASKS, options, BACKGROUND)
    front = IMAGES if colors is None else estimate_foreground(IMAGES, MASKS, colors)
    torch.testing.assert_close(result, EXPECTED[output](front, MASKS))
    assert torch.equal(masks, MASKS)


def test_many_backgrounds_repeat_image_and_mask():
    result, masks = cut_out(IMAGES[:1], MASKS[:1], CutoutOptions(output="image"), BACKGROUND.repeat(3, 1, 1, 1))
    assert result.shape == (3, 24, 30, 3) and masks.shape == (3, 24, 30)


def test_cropping_a_composite_shows_the_same_part_of_the_background():
    masks = torch.zeros(1, 24, 30)
    masks[:, 5:10, 6:20] = 1
    whole, _ = cut_out(IMAGES[:1], masks, CutoutOptions(output="image"), BACKGROUND)
    part, cropped = cut_out(IMAGES[:1], masks, CutoutOptions(output="image", crop_padding=2), BACKGROUND)
    assert torch.equal(part, whole[:, 3:12, 4:22]) and cropped.shape == (1, 9, 18)


def test_progress_counts_frames_and_its_exception_passes():
    seen = []
    cut_out(IMAGES, MASKS, CutoutOptions(), progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 2), (1, 2), (2, 2)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_out(IMAGES, MASKS, CutoutOptions(), progress=cancel)


def test_wrong_options_are_named():
    for wrong in ({"output": "gif"}, {"colors": "guess"}, {"fit": "zoom"}, {"crop_padding": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            CutoutOptions(**wrong)
    with pytest.raises(ConfigError, match="color"):
        CutoutOptions(output="color", color="blueish")
    with pytest.raises(ImageError, match="backgrounds"):
        cut_out(IMAGES, MASKS, CutoutOptions(output="image"))
