"""Smoothing of a stream of masks: flicker goes, motion stays sharp, cuts are kept."""

import pytest
import torch

from birefnet_core.errors import ConfigError, ImageError
from birefnet_core.video.steady import TemporalFilter, _flicker_weight

from .disc_clips import disc_clip


def run(steady: TemporalFilter, frames: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    out = []
    for frame, mask in zip(frames, masks, strict=True):
        out += steady.push(frame, mask)
    return torch.stack([*out, *steady.flush()])


def test_radius_zero_gives_each_mask_back_at_once():
    clip = disc_clip(3, 1.0)
    steady = TemporalFilter()
    for frame, mask in zip(clip.frames, clip.masks, strict=True):
        (out,) = steady.push(frame, mask)
        assert out is mask
    assert steady.flush() == []


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_every_mask_comes_out_radius_frames_later_and_few_are_kept(radius, count):
    clip = disc_clip(count, 1.0, height=32, width=48)
    steady, sent = TemporalFilter(radius=radius, side=32), 0
    for t, (frame, mask) in enumerate(zip(clip.frames, clip.masks, strict=True)):
        sent += len(steady.push(frame, mask))
        assert sent == max(0, t + 1 - radius)
        assert len(steady._window) <= 2 * radius + 1
    assert sent + len(steady.flush()) == count
    assert steady.flush() == []


def test_flicker_along_the_motion_is_averaged():
    clip, generator = disc_clip(9, 3.0), torch.Generator().manual_seed(0)
    flicker = 1 - 0.4 * torch.rand(9, 1, 1, 1, generator=generator)
    steady = run(TemporalFilter(radius=2), clip.frames, clip.masks * flicker)
    inside = clip.masks > 0.99
    levels = torch.stack([mask[where].mean() for mask, where in zip(steady, inside, strict=True)])
    assert levels.diff().abs().mean() < 0.5 * flicker.flatten().diff().abs().mean()


@pytest.mark.parametrize("step", [0.0, 1.5, 4.0, 9.0])
def test_right_masks_stay_sharp(step):
    clip = disc_clip(5, step)
    steady = run(TemporalFilter(radius=2), clip.frames, clip.masks)
    averaged = torch.stack([clip.masks[max(t - 2, 0) : t + 3].mean(0) for t in range(5)])
    error = (steady - clip.masks).abs().mean()
    assert error < max(0.1 * (averaged - clip.masks).abs().mean(), 1e-6)


def test_hairs_that_the_flow_misses_by_a_pixel_are_detail_and_an_area_is_flicker():
    change = torch.zeros(1, 1, 40, 60)
    change[..., 10:30, 20:40:4], change[..., 10:30, 21:40:4] = 0.8, -0.8  # from one column to the next
    assert _flicker_weight(change, (40, 60))[0, 0, 20, 30] < 1e-3
    change = torch.zeros(1, 1, 40, 60)
    change[..., 10:30, 20:40] = -0.5
    torch.testing.assert_close(_flicker_weight(change, (20, 30)), torch.ones(1, 1, 20, 30))


def test_nothing_is_smoothed_over_a_cut():
    one, other = disc_clip(4, 1.0), disc_clip(4, 1.0, seed=7)
    frames = torch.cat([one.frames, other.frames])
    masks = torch.cat([torch.ones_like(one.masks), torch.zeros_like(other.masks)])
    steady = TemporalFilter(radius=2)
    torch.testing.assert_close(run(steady, frames, masks), masks)
    assert steady.cuts == [4]


def test_strength_zero_changes_nothing():
    clip = disc_clip(4, 2.0)
    torch.testing.assert_close(run(TemporalFilter(radius=2, strength=0), clip.frames, clip.masks), clip.masks)


def test_masks_may_be_larger_than_the_small_copies():
    clip = disc_clip(4, 4.0, height=96, width=128)
    steady = run(TemporalFilter(radius=1, side=64), clip.frames, clip.masks)
    assert steady.shape == clip.masks.shape
    assert (steady - clip.masks).abs().mean() < 0.005


def test_inputs_stay_as_they_are():
    clip = disc_clip(4, 2.0)
    before = clip.masks.clone(), clip.frames.clone()
    run(TemporalFilter(radius=2), clip.frames, clip.masks)
    assert torch.equal(clip.masks, before[0]) and torch.equal(clip.frames, before[1])


@pytest.mark.parametrize("options", [{"radius": -1}, {"strength": 1.5}, {"side": 4}])
def test_wrong_options_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        TemporalFilter(**options)


def test_wrong_shapes_are_named():
    steady = TemporalFilter(radius=1)
    frame, mask = torch.zeros(3, 32, 48), torch.zeros(1, 32, 48)
    with pytest.raises(ImageError, match=r"a frame has shape \(32, 48, 3\)"):
        steady.push(frame.permute(1, 2, 0), mask)
    with pytest.raises(ImageError, match=r"a mask has shape \(32, 48\)"):
        steady.push(frame, mask[0])
    steady.push(frame, mask)
    with pytest.raises(ImageError, match="32 x 40 after masks of 32 x 48"):
        steady.push(frame, mask[..., :40])
