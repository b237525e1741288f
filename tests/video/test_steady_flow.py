"""Motion found on small frames, its trust, and scene cuts."""

import pytest
import torch

from birefnet_core.image_ops import warp
from birefnet_core.video.flow import compose, optical_flow, scale_flow
from birefnet_core.video.motion import carry, motion_between, small_copy, trust
from birefnet_core.video.scene_cuts import colour_distance, is_cut

from .disc_clips import disc_clip, texture


def shifted(step_x: int, step_y: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two frames of a texture; the second shows it moved by the step, to the right and down."""
    large = texture(160, 200, seed=3)
    first = large[:, 30:126, 30:158]
    return first, large[:, 30 - step_y : 126 - step_y, 30 - step_x : 158 - step_x]


@pytest.mark.parametrize("step", [(0, 0), (1, 0), (-3, 2), (9, -6), (20, 12)])
def test_flow_finds_a_shift(step):
    first, second = (small_copy(frame) for frame in shifted(*step))
    flow = motion_between(first, second).forward[0, :, 20:-20, 20:-20]
    error = (flow - torch.tensor(step).view(2, 1, 1)).norm(dim=0)
    assert error.median() < 0.1
    assert (error < 0.5).float().mean() > 0.95


def test_flow_of_a_frame_to_itself_is_zero():
    first = small_copy(texture(96, 128, seed=3))
    assert motion_between(first, first).forward.abs().max() < 1e-4


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (33, 200), (14, 28)])
def test_flow_takes_any_size(size):
    first, second = torch.rand(2, 1, 1, *size, generator=torch.Generator().manual_seed(0))
    flow = optical_flow(first, second)
    assert flow.shape == (1, 2, *size)
    assert flow.isfinite().all()


def test_flow_separates_the_disc_from_its_background():
    clip = disc_clip(2, 3.0)
    first, second = (small_copy(frame) for frame in clip.frames)
    flow = motion_between(first, second).forward[0, 0]
    inside = clip.masks[0, 0] == 1
    assert flow[inside].median() == pytest.approx(3, abs=0.15)
    assert flow[:, :10].abs().median() < 0.1


def test_composed_flows_add_up():
    one = torch.full((1, 2, 12, 12), 1.5)
    torch.testing.assert_close(compose(one, one), 2 * one)


def test_scaling_a_flow_scales_its_vectors():
    flow = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 6, 8)
    large = scale_flow(flow, (12, 32))
    assert large.shape == (1, 2, 12, 32)
    assert large[0, :, 3, 3].tolist() == [4.0, 4.0]


def test_warp_repeats_the_border():
    x = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 2
    assert warp(x, flow)[0, 0, 1].tolist() == [2.0, 3.0, 3.0, 3.0]


def test_carried_mask_lies_where_the_subject_is():
    clip = disc_clip(2, 4.0)
    first, second = (small_copy(frame) for frame in clip.frames)
    carried = carry(clip.masks[0], motion_between(first, second).backward)
    assert (carried - clip.masks[1]).abs().mean() < 0.15 * (clip.masks[0] - clip.masks[1]).abs().mean()


def test_uncovered_background_is_not_trusted():
    clip = disc_clip(2, 6.0)
    later, earlier = small_copy(clip.frames[1]), small_copy(clip.frames[0])
    trusted = trust(later, earlier, motion_between(earlier, later).reversed())[0, 0]
    uncovered = (clip.masks[0, 0] == 1) & (clip.masks[1, 0] == 0)
    inside = clip.masks[1, 0] == 1
    assert trusted[uncovered].mean() < 0.3
    assert trusted[inside].mean() > 0.8


def cut_between(first: torch.Tensor, second: torch.Tensor) -> bool:
    earlier, later = small_copy(first), small_copy(second)
    return is_cut(earlier, later, motion_between(earlier, later))


def test_scene_cut_is_found_and_motion_is_none():
    one, other = disc_clip(2, 8.0), disc_clip(1, 0, seed=7)
    assert cut_between(one.frames[1], other.frames[0])
    assert not cut_between(one.frames[0], one.frames[1])


def test_light_and_noise_make_no_cut():
    clip = disc_clip(2, 2.0)
    brighter = (clip.frames[1] * 1.5).clamp(0, 1)
    noisy = clip.frames[1] + 0.04 * torch.randn(clip.frames[1].shape, generator=torch.Generator().manual_seed(0))
    assert not cut_between(clip.frames[0], brighter)
    assert not cut_between(clip.frames[0], noisy)


def test_flat_frames_of_one_colour_make_no_cut_and_of_two_do():
    grey = torch.full((3, 48, 64), 0.5)
    assert not cut_between(grey, grey)
    assert cut_between(grey, torch.zeros_like(grey))


def test_colour_distance_of_black_and_white():
    black, white = (small_copy(torch.full((3, 48, 64), value)) for value in (0.0, 1.0))
    assert colour_distance(black, black) == 0
    assert colour_distance(black, white) == pytest.approx(31 / 32)
