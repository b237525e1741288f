"""All operations together: order, defaults, types, batches."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import RefineOptions, refine_mask
from birefnet_core.masks.components import fill_holes, remove_islands
from birefnet_core.masks.guided_filter import guided_filter
from birefnet_core.masks.levels import binarize, stretch_levels
from birefnet_core.masks.morphology import feather, grow, smooth_edge

EVERYTHING = RefineOptions(
    black_point=0.1,
    white_point=0.9,
    min_island_area=6,
    max_hole_area=4,
    grow=1,
    guided_radius=2,
    feather=0.7,
    invert=True,
)
SINGLE = [
    RefineOptions(temporal_radius=1),
    RefineOptions(black_point=0.2),
    RefineOptions(white_point=0.7),
    RefineOptions(threshold=0.5),
    RefineOptions(keep_largest=True),
    RefineOptions(min_island_area=5),
    RefineOptions(max_hole_area=5),
    RefineOptions(grow=2),
    RefineOptions(grow=-2, grow_element="square"),
    RefineOptions(smooth_edge=1.5),
    RefineOptions(guided_radius=3),
    RefineOptions(feather=2.0),
    RefineOptions(invert=True),
]


def blotchy(frames, height, width, generator):
    """Soft specks on a background, and a subject with soft holes."""
    masks = torch.rand(frames, height, width, generator=generator)
    subject = torch.arange(width) > width // 2
    specks = torch.rand(masks.shape, generator=generator) < 0.3
    return torch.where(specks, masks, subject.float())


def test_everything_is_off_by_default(generator):
    masks = torch.rand(2, 9, 11, generator=generator)
    refined = refine_mask(masks, RefineOptions())
    assert torch.equal(refined, masks)
    assert refined.data_ptr() != masks.data_ptr()


@pytest.mark.parametrize("options", [*SINGLE, EVERYTHING])
def test_inputs_stay_and_results_repeat(options, generator):
    masks, images = blotchy(3, 21, 17, generator), torch.rand(3, 21, 17, 3, generator=generator)
    kept = masks.clone(), images.clone()
    first, second = (refine_mask(masks, options, images) for _ in range(2))
    assert torch.equal(masks, kept[0]) and torch.equal(images, kept[1])
    assert torch.equal(first, second)
    assert not torch.equal(first, masks)  # the option does something
    assert (first.shape, first.dtype) == (masks.shape, torch.float32)
    assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize("options", [*SINGLE[1:], EVERYTHING])
def test_a_batch_equals_its_frames(options, monkeypatch, generator):
    masks, images = torch.rand(3, 20, 30, generator=generator), torch.rand(3, 20, 30, 3, generator=generator)
    alone = torch.cat([refine_mask(m[None], options, i[None]) for m, i in zip(masks, images, strict=True)])
    torch.testing.assert_close(refine_mask(masks, options, images), alone, rtol=0, atol=1e-6)
    monkeypatch.setattr("birefnet_core.masks.windows.FRAME_PIECE", 1)
    torch.testing.assert_close(refine_mask(masks, options, images), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [*SINGLE, EVERYTHING])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 1, 6), (1, 30, 7)])
def test_plain_and_tiny_masks_stay_plain(options, value, shape):
    masks, images = torch.full(shape, value), torch.rand(*shape, 3)
    expected = 1 - masks if options.invert else masks
    torch.testing.assert_close(refine_mask(masks, options, images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [*SINGLE, EVERYTHING])
def test_one_pixel_passes(options):
    refined = refine_mask(torch.full((1, 1, 1), 0.7), options, torch.rand(1, 1, 1, 3))
    assert refined.shape == (1, 1, 1)
    assert 0 <= refined.item() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [*SINGLE, EVERYTHING])
def test_other_types_are_computed_in_float32(options, dtype, generator):
    masks = torch.rand(2, 12, 10, generator=generator).to(dtype)
    images = torch.rand(2, 12, 10, 3, generator=generator).to(dtype)
    expected = refine_mask(masks.float(), options, images.float())
    assert torch.equal(refine_mask(masks, options, images), expected)


def test_operations_run_in_the_documented_order(generator):
    masks, images = torch.rand(1, 40, 40, generator=generator), torch.rand(1, 40, 40, 3, generator=generator)
    options = RefineOptions(
        black_point=0.2,
        white_point=0.8,
        threshold=0.6,
        min_island_area=8,
        max_hole_area=3,
        grow=1,
        smooth_edge=1.0,
        guided_radius=2,
        guided_epsilon=1e-2,
        feather=1.0,
        invert=True,
    )
    expected = binarize(stretch_levels(masks, 0.2, 0.8), 0.6)
    expected = fill_holes(remove_islands(expected, 8), 3)
    expected = smooth_edge(grow(expected, 1), 1.0)
    expected = 1 - feather(guided_filter(expected, images, 2, 1e-2), 1.0)
    assert torch.equal(refine_mask(masks, options, images), expected)


def test_time_is_smoothed_before_the_threshold():
    masks = torch.full((5, 6, 6), 0.53)
    masks[2] = 0.49
    assert refine_mask(masks, RefineOptions(threshold=0.5))[2].max() == 0
    assert refine_mask(masks, RefineOptions(threshold=0.5, temporal_radius=2))[2].min() == 1


def test_one_image_guides_many_masks_and_the_reverse(generator):
    masks, images = torch.rand(3, 10, 12, generator=generator), torch.rand(3, 10, 12, 3, generator=generator)
    options = RefineOptions(guided_radius=2)
    assert torch.equal(
        refine_mask(masks, options, images[:1]), refine_mask(masks, options, images[:1].repeat(3, 1, 1, 1))
    )
    assert torch.equal(refine_mask(masks[:1], options, images), refine_mask(masks[:1].repeat(3, 1, 1), options, images))


def test_a_guide_of_another_size_is_resized(generator):
    masks, images = torch.rand(1, 10, 12, generator=generator), torch.rand(1, 33, 40, 3, generator=generator)
    assert refine_mask(masks, RefineOptions(guided_radius=2, temporal_radius=1), images).shape == masks.shape


def test_a_guided_filter_without_images_is_explained():
    with pytest.raises(ImageError, match="guided filter needs them"):
        refine_mask(torch.rand(1, 4, 4), RefineOptions(guided_radius=2))


def test_numbers_of_frames_that_do_not_fit_are_explained():
    with pytest.raises(ImageError, match="images has 2 frames and masks has 3"):
        refine_mask(torch.rand(3, 4, 4), RefineOptions(guided_radius=2), torch.rand(2, 4, 4, 3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"black_point": 0.6, "white_point": 0.5}, "black_point"),
        ({"black_point": -0.1}, "black_point"),
        ({"white_point": 1.5}, "white_point"),
        ({"threshold": 2.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold is NaN"),
        ({"min_island_area": -1}, "min_island_area"),
        ({"max_hole_area": -1}, "max_hole_area"),
        ({"part_level": 1.0}, "part_level"),
        ({"grow": 1.5}, "grow is 1.5, expected a whole number"),
        ({"grow_element": "star"}, "circle, square"),
        ({"smooth_edge": -1.0}, "smooth_edge"),
        ({"guided_radius": -2}, "guided_radius"),
        ({"guided_epsilon": 0.0}, "guided_epsilon"),
        ({"feather": float("inf")}, "feather is infinite"),
        ({"temporal_radius": -1}, "temporal_radius"),
    ],
)
def test_wrong_options_are_explained(wrong, message):
    with pytest.raises(ConfigError, match=message):
        RefineOptions(**wrong)
