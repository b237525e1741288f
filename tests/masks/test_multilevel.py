"""Multi-level estimation on images whose foreground is known."""

import time

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from birefnet_core.masks import estimate_foreground, windows
from birefnet_core.masks.multilevel import _first_sums, _relax

SEEDS = range(4)


def error(estimate: Tensor, truth: Tensor, alpha: Tensor) -> float:
    """Mean absolute error of colours where the mask is soft."""
    soft = (alpha > 0) & (alpha < 1)
    return (estimate - truth).abs().mean(dim=-1)[soft].mean().item()


@pytest.mark.parametrize("seed", SEEDS)
def test_errors_are_far_below_naive_and_blur_fusion(make_composite, seed):
    scene = make_composite(seed)
    naive, fused, ours = (
        error(estimate, scene.foreground, scene.alpha)
        for estimate in (
            scene.image,
            estimate_foreground(scene.image, scene.alpha, "blur_fusion"),
            estimate_foreground(scene.image, scene.alpha),
        )
    )
    assert ours < naive / 6
    assert ours < fused / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_blurred_mask_is_survived(make_composite, seed):
    """A mask that is wrong by a pixel: still better than the image's own colours."""
    scene = make_composite(seed)
    alpha = torch.nn.functional.avg_pool2d(scene.alpha[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    naive = error(scene.image, scene.foreground, scene.alpha)
    assert error(estimate_foreground(scene.image, alpha), scene.foreground, scene.alpha) < naive / 1.5


def test_a_plain_subject_on_a_plain_background_is_found_exactly():
    alpha = torch.linspace(0, 1, 64).expand(1, 48, 64)
    front, back = torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.0, 0.5, 1.0])
    image = torch.lerp(back, front, alpha[..., None])
    torch.testing.assert_close(estimate_foreground(image, alpha), front.expand(1, 48, 64, 3), rtol=0, atol=1e-3)
    # The background is the foreground of the inverted mask.
    torch.testing.assert_close(estimate_foreground(image, 1 - alpha), back.expand(1, 48, 64, 3), rtol=0, atol=1e-3)


def test_opaque_pixels_keep_their_colours(make_composite):
    scene = make_composite(2)
    foreground = estimate_foreground(scene.image, scene.alpha)
    assert torch.equal(foreground[scene.alpha == 1], scene.image[scene.alpha == 1])


def test_foreground_and_background_compose_to_the_image(make_composite):
    """The background is the foreground of the inverted mask."""
    scene = make_composite(1)
    front, back = (estimate_foreground(scene.image, alpha) for alpha in (scene.alpha, 1 - scene.alpha))
    assert (torch.lerp(back, front, scene.alpha[..., None]) - scene.image).abs().mean() < 1e-3
    assert error(back, scene.background, scene.alpha) < 0.05


def test_empty_pixels_take_the_colour_of_the_subject_nearby():
    """So that a resized cut-out does not pull the background in."""
    alpha = torch.zeros(1, 64, 64)
    alpha[:, 20:44, 20:44] = 1
    subject, background = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.9, 0.1])
    front = estimate_foreground(torch.lerp(background, subject, alpha[..., None]), alpha)
    torch.testing.assert_close(front, subject.expand(1, 64, 64, 3), rtol=0, atol=0.02)


def test_a_level_without_misfit_stays_as_it_is(make_composite):
    """The right colours solve every pixel's system, so relaxation must not move them."""
    front, back = torch.tensor([0.7, 0.3, 0.2]), torch.tensor([0.1, 0.5, 0.8])
    alpha = make_composite(3, size=64).alpha[:, None]
    image = torch.lerp(back.view(3, 1, 1), front.view(3, 1, 1), alpha)
    colours = torch.stack([front, back]).view(1, 2, 3, 1, 1).expand(-1, -1, -1, 32, 32)
    torch.testing.assert_close(_relax(colours, _first_sums(image, alpha), 4), colours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 37), (37, 1), (3, 2)])
def test_bands_do_not_show(monkeypatch, size, generator):
    image, alpha = torch.rand(2, *size, 3, generator=generator), torch.rand(2, *size, generator=generator)
    whole = estimate_foreground(image, alpha)
    monkeypatch.setattr(windows, "CPU_PIECE", 1)
    torch.testing.assert_close(estimate_foreground(image, alpha), whole, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_large_images_take_no_longer_than_opencv():
    """2048 x 2048, in one run: multi-level estimation against the published blur fusion in OpenCV."""
    images, masks = torch.rand(1, 2048, 2048, 3), torch.rand(1, 2048, 2048)
    image, alpha = images[0].double().numpy(), masks[0].double().numpy()

    def opencv() -> None:
        front = back = image
        share = alpha[..., None]
        for size in ((90, 90), (6, 6)):
            weight = cv2.blur(alpha, size)[..., None]
            front = cv2.blur(front * share, size) / (weight + 1e-5)
            back = cv2.blur(back * (1 - share), size) / (1 - weight + 1e-5)
            front = np.clip(front + share * (image - share * front - (1 - share) * back), 0, 1)

    def seconds(run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    pairs = [(seconds(lambda: estimate_foreground(images, masks)), seconds(opencv)) for _ in range(7)]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))  # others may be using the machine
    assert ours <= theirs
