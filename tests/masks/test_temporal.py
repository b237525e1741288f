"""Flicker goes, motion stays sharp."""

import torch

from birefnet_core.masks import temporal
from birefnet_core.masks.temporal import smooth_over_time


def moving_disc(frames: int, step: float, size: int = 48) -> torch.Tensor:
    at = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(at, at, indexing="ij")
    centres = size / 4 + step * torch.arange(frames)[:, None, None]
    return (10.5 - ((x - centres) ** 2 + (y - size / 2) ** 2).sqrt()).clamp(0, 1)


def test_small_flicker_is_averaged(generator):
    still = moving_disc(9, 0) * 0.9
    noisy = (still + 0.1 * torch.randn(still.shape, generator=generator)).clamp(0, 1)
    smooth = smooth_over_time(noisy, 3)
    assert (smooth - smooth.mean(0)).std() < (noisy - noisy.mean(0)).std() / 2


def test_motion_leaves_no_ghost():
    for step in (1, 3, 8):
        masks = moving_disc(6, step)
        plain = torch.stack([masks[max(t - 2, 0) : t + 3].mean(0) for t in range(6)])
        smooth = smooth_over_time(masks, 2)
        assert (smooth - masks).abs().sum() < 0.1 * (plain - masks).abs().sum()
        assert (smooth - masks).abs().max() < 0.2


def test_a_dropout_over_a_still_image_is_bridged():
    masks = torch.ones(5, 20, 20)
    masks[2, 5:15, 5:15] = 0.6
    images = torch.full((5, 20, 20, 3), 0.5)
    alone, seen = smooth_over_time(masks, 2), smooth_over_time(masks, 2, images)
    assert alone[2, 10, 10] < 0.65  # might be motion
    assert seen[2, 10, 10] > 0.75


def test_images_that_move_keep_the_mask_sharp(generator):
    masks = moving_disc(4, 4)
    subject, background = torch.tensor([0.9, 0.3, 0.2]), torch.rand(48, 48, 3, generator=generator)
    images = torch.lerp(background, subject, masks[..., None])
    assert (smooth_over_time(masks, 2, images) - masks).abs().mean() < 0.005


def test_one_frame_and_still_videos_come_back(generator):
    one = torch.rand(1, 8, 8, generator=generator)
    assert torch.equal(smooth_over_time(one, 3), one)
    still = one.expand(4, -1, -1)
    torch.testing.assert_close(smooth_over_time(still, 2), still)


def test_each_pair_of_frames_is_compared_once(monkeypatch):
    pairs = []
    weight = temporal._weight
    monkeypatch.setattr(
        temporal, "_weight", lambda masks, images, t, s: pairs.append({t, s}) or weight(masks, images, t, s)
    )
    smooth_over_time(moving_disc(5, 1), 2)
    assert pairs == [{0, 1}, {0, 2}, {1, 2}, {1, 3}, {2, 3}, {2, 4}, {3, 4}]
