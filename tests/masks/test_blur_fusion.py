"""Blur fusion against the recorded published values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from birefnet_core.image_ops import resize_masks
from birefnet_core.masks import estimate_foreground, windows
from birefnet_core.masks.blur_fusion import _blur_band, _fuse, mirrored

RECORDED = Path(__file__).parents[1] / "fixtures" / "reference" / "foreground.npz"


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDED) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def inputs(recorded, name):
    return recorded[f"{name}_image_u8"][None].float() / 255, recorded[f"{name}_alpha_u8"][None].float() / 255


@pytest.mark.parametrize("name", ["a", "b"])
def test_foreground_equals_the_recorded_one(recorded, name):
    ours = estimate_foreground(*inputs(recorded, name), method="blur_fusion")[0]
    torch.testing.assert_close(ours, recorded[f"{name}_cpu2_r90_then6"], rtol=0, atol=2e-6)
    bytes_ = (ours * 255).to(torch.uint8)  # published: cut, not rounded
    differ = bytes_ != recorded[f"{name}_refine_foreground_cpu_u8"]
    assert differ.float().mean() < 1e-3  # where float32 and float64 fall on two sides of a byte


@pytest.mark.parametrize("name", ["a", "b"])
def test_first_pass_equals_the_recorded_one(recorded, name):
    image, alpha = inputs(recorded, name)
    image, alpha = image.permute(0, 3, 1, 2), alpha[:, None]
    foreground, background = _fuse(image, alpha, image, image, 90)
    expected = recorded[f"{name}_cpu_first_pass_F"], recorded[f"{name}_cpu_first_pass_blurredB"]
    torch.testing.assert_close(foreground[0].permute(1, 2, 0), expected[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(background[0].permute(1, 2, 0), expected[1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("size", [90, 6])
def test_box_blur_equals_the_recorded_one(recorded, name, size):
    alpha = inputs(recorded, name)[1][:, None]
    rows = mirrored(alpha.shape[-2], size, alpha.device)
    ours = _blur_band(alpha[:, :, rows], size)[0, 0]
    torch.testing.assert_close(ours, recorded[f"{name}_cv2blur{size}_alpha"], rtol=0, atol=1e-6)


def test_a_mask_of_another_size_is_resized_as_recorded(recorded):
    image, mask = recorded["a_image_u8"][None].float() / 255, recorded["b_alpha_u8"][None].float() / 255
    expected = recorded["c_refine_foreground_cpu_u8_image_a_mask_b_resized"].int()
    stored = recorded["c_mask_b_resized_by_PIL_default"]
    resized = resize_masks(mask, image.shape[1:3])[0]
    assert (resized * 255 - stored).abs().max() < 1.1  # PIL rounds to bytes, also between the directions

    from_stored = estimate_foreground(image, stored[None].float() / 255, method="blur_fusion")[0]
    assert torch.equal((from_stored * 255).int(), expected)
    # With our unrounded mask colours can differ much only where the mask is next to nothing.
    ours = (estimate_foreground(image, mask, method="blur_fusion")[0] * 255).int()
    seen = (stored > 12)[..., None]
    assert ((ours - expected).abs() * seen).max() <= 3


@pytest.mark.parametrize(
    ("length", "size", "expected"),
    [
        (4, 3, [1, 0, 1, 2, 3, 2]),
        (4, 4, [2, 1, 0, 1, 2, 3, 2]),
        (3, 6, [1, 2, 1, 0, 1, 2, 1, 0]),
        (2, 6, [1, 0, 1, 0, 1, 0, 1]),
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_borders_are_mirrored_without_their_pixel(length, size, expected):
    assert mirrored(length, size, torch.device("cpu")).tolist() == expected


def test_bands_do_not_show(monkeypatch, make_composite):
    scene = make_composite(size=200)
    whole = estimate_foreground(scene.image, scene.alpha, "blur_fusion")
    monkeypatch.setattr(windows, "CPU_PIECE", 1)
    torch.testing.assert_close(estimate_foreground(scene.image, scene.alpha, "blur_fusion"), whole, rtol=0, atol=1e-6)
