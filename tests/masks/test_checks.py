"""Options of wrong types are told by name, and text never counts as True."""

import re

import numpy as np
import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.masks import (
    CropOptions,
    CutoutOptions,
    RefineOptions,
    crop_for_inpainting,
    crop_to_subject,
    cut_out,
    estimate_foreground,
    make_trimap,
    over_checkerboard,
    over_color,
    point_marks,
    refine_mask,
    remove_spill,
    stitch_back,
    subject_boxes,
)

IMAGES, MASKS = torch.rand(1, 12, 14, 3), torch.zeros(1, 12, 14)
MASKS[:, 3:8, 4:9] = 1
NAN, TENSOR = float("nan"), torch.ones(2)


def refine(name):
    return lambda value: RefineOptions(**{name: value})


def crop(name):
    return lambda value: CropOptions(**{name: value})


WHOLE = {
    **{name: refine(name) for name in ("temporal_radius", "grow", "guided_radius")},
    **{name: crop(name) for name in ("size", "multiple")},
    "crop_padding": lambda value: CutoutOptions(crop_padding=value),
    "edge_width": lambda value: remove_spill(IMAGES, "#0f0", masks=MASKS, edge_width=value),
    "height": lambda value: point_marks([(0, 0)], value, 5),
    "width": lambda value: point_marks([(0, 0)], 5, value),
    "cell": lambda value: over_checkerboard(IMAGES, MASKS, value),
    "inside": lambda value: make_trimap(MASKS, value),
    "blend": lambda value: stitch_back(crop_for_inpainting(IMAGES, MASKS)[2], IMAGES, blend=value),
}
REAL = {
    **{
        name: refine(name)
        for name in (
            "black_point", "white_point", "threshold", "min_island_area", "max_hole_area", "part_level", "smooth_edge",
            "guided_epsilon", "feather",
        )
    },
    "padding": crop("padding"),
    "strength": lambda value: remove_spill(IMAGES, "#0f0", strength=value),
    "keep_brightness": lambda value: remove_spill(IMAGES, "#0f0", keep_brightness=value),
    "low": lambda value: make_trimap(MASKS, low=value),
    "high": lambda value: make_trimap(MASKS, high=value),
}  # fmt: skip
SWITCHES = {name: make(name) for make, names in ((refine, ("keep_largest", "invert")), (crop, ("square", "follow")))
            for name in names}  # fmt: skip
SWITCHES["per_image"] = lambda value: crop_to_subject(IMAGES, MASKS, per_image=value)
CHOICES = {
    "grow_element": refine("grow_element"),
    **{name: lambda value, name=name: CutoutOptions(**{name: value}) for name in ("output", "colors", "fit")},
    "limit": lambda value: remove_spill(IMAGES, "#0f0", limit=value),
    "method": lambda value: estimate_foreground(IMAGES, MASKS, value),
}


@pytest.mark.parametrize("value", ["3", "", [1], TENSOR, {}, True, 1j])
@pytest.mark.parametrize("name", [*WHOLE, *REAL])
def test_what_is_no_number_is_told(name, value):
    kind = "whole number" if name in WHOLE else "number"
    with pytest.raises(ConfigError, match=f"^{name} is .*, expected a {kind}"):
        {**WHOLE, **REAL}[name](value)


@pytest.mark.parametrize("name", [name for name in (*WHOLE, *REAL) if name not in ("crop_padding", "threshold")])
def test_none_is_told_where_it_means_nothing(name):
    with pytest.raises(ConfigError, match=f"^{name} is None"):
        {**WHOLE, **REAL}[name](None)


@pytest.mark.parametrize("name", REAL)
def test_nan_is_told(name):
    with pytest.raises(ConfigError, match=f"^{name} is NaN"):
        REAL[name](NAN)


@pytest.mark.parametrize("value", [1.5, 2.0, NAN])
@pytest.mark.parametrize("name", WHOLE)
def test_fractions_of_pixels_are_told(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is {re.escape(repr(value))}, expected a whole number"):
        WHOLE[name](value)


@pytest.mark.parametrize("value", ["false", "", None, 2, 0.5, [], TENSOR])
@pytest.mark.parametrize("name", SWITCHES)
def test_what_is_no_switch_is_told(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is .*, expected True or False"):
        SWITCHES[name](value)


@pytest.mark.parametrize("value", [True, False, 1, 0, np.bool_(True)])
@pytest.mark.parametrize("name", SWITCHES)
def test_switches_of_every_kind_are_taken(name, value):
    SWITCHES[name](value)


@pytest.mark.parametrize("value", ["nonsense", 3, ["circle"], {}, np.ones(2), TENSOR])
@pytest.mark.parametrize("name", CHOICES)
def test_what_is_none_of_the_choices_is_told(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is .*, expected one of "):
        CHOICES[name](value)


@pytest.mark.parametrize("side", [0, -1])
def test_marks_for_no_image_are_told(side):
    for size in ((side, 5), (5, side)):
        with pytest.raises(ConfigError, match=f" is {side}, expected 1 pixel or more"):
            point_marks([(0, 0)], *size)


def test_numbers_of_pixels_beyond_any_image_are_taken():
    whole = torch.tensor([[0, 0, 14, 12]])
    assert torch.equal(subject_boxes(MASKS, 2**70), whole)
    assert torch.equal(over_checkerboard(IMAGES, MASKS, 2**70), over_checkerboard(IMAGES, MASKS, 14))


@pytest.mark.parametrize("images", [None, [[0.5]], "photo.jpg", IMAGES.numpy()])
def test_what_is_no_image_over_a_color_is_told(images):
    with pytest.raises(ImageError, match=r"images is .*, expected a tensor"):
        over_color(images, MASKS, "#fff")


@pytest.mark.parametrize(("value", "same"), [(np.int64(2), 2), (np.float32(0.5), 0.5), (np.float64(1), 1)])
def test_numbers_of_numpy_are_taken(value, same):
    assert torch.equal(
        refine_mask(MASKS, RefineOptions(feather=value)), refine_mask(MASKS, RefineOptions(feather=float(same)))
    )
    if isinstance(value, np.integer):
        assert torch.equal(refine_mask(MASKS, RefineOptions(grow=value)), refine_mask(MASKS, RefineOptions(grow=same)))


@pytest.mark.parametrize("value", [None, "rgba", {}, TENSOR, RefineOptions])
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda value: refine_mask(MASKS, value), "RefineOptions"),
        (lambda value: cut_out(IMAGES, MASKS, value), "CutoutOptions"),
        (lambda value: crop_for_inpainting(IMAGES, MASKS, {} if value is None else value), "CropOptions"),
        (lambda value: stitch_back(value, IMAGES), "CropRecord"),
    ],
)
def test_options_of_another_kind_are_told(call, kind, value):
    with pytest.raises(ConfigError, match=f"expected a {kind}"):
        call(value)


@pytest.mark.parametrize("threshold", ["x", None, NAN, TENSOR])
def test_a_threshold_of_another_kind_is_told_instead_of_finding_nothing(threshold):
    with pytest.raises(ConfigError, match=r"^threshold is"):
        crop_to_subject(IMAGES, MASKS, threshold=threshold)
