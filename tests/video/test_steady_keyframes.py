"""The network on keyframes only."""

import pytest
import torch

from birefnet_core.errors import ConfigError
from birefnet_core.video.keyframes import Keyframes

from .disc_clips import disc_clip


def run(keyframes: Keyframes, frames: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
    out, keys = [], []
    for frame, mask in zip(frames, masks, strict=True):
        keys.append(keyframes.wants(frame))
        out += keyframes.push(mask if keys[-1] else None)
    return torch.stack([*out, *keyframes.flush()]), keys


def test_every_frame_by_default():
    clip = disc_clip(4, 1.0)
    masks, keys = run(Keyframes(), clip.frames, clip.masks)
    assert torch.equal(masks, clip.masks)
    assert keys == [True] * 4


def test_masks_between_follow_the_motion():
    clip = disc_clip(10, 0.8)
    keyframes = Keyframes(every=4)
    masks, keys = run(keyframes, clip.frames, clip.masks)
    assert keys == [True, False, False, False, True, False, False, False, True, False]
    assert (keyframes.frames, keyframes.runs) == (10, 3)
    held = torch.stack([clip.masks[t // 4 * 4] for t in range(10)])
    assert (masks - clip.masks).abs().mean() < 0.2 * (held - clip.masks).abs().mean()
    assert torch.equal(masks[4], clip.masks[4])


def test_still_frames_keep_the_mask():
    clip = disc_clip(1, 0)
    masks, _ = run(Keyframes(every=3), clip.frames.expand(5, -1, -1, -1), clip.masks.expand(5, -1, -1, -1))
    torch.testing.assert_close(masks, clip.masks.expand(5, -1, -1, -1))


def test_fast_motion_and_cuts_make_keyframes():
    fast = disc_clip(4, 12.0)
    assert run(Keyframes(every=4), fast.frames, fast.masks)[1] == [True] * 4
    one, other = disc_clip(3, 0), disc_clip(3, 0, seed=7)
    frames, masks = torch.cat([one.frames, other.frames]), torch.cat([one.masks, 0 * other.masks])
    found, keys = run(Keyframes(every=6), frames, masks)
    assert keys == [True, False, False, True, False, False]
    torch.testing.assert_close(found, masks)


def test_frames_may_be_asked_about_ahead():
    clip = disc_clip(7, 0.5)
    ahead, behind = Keyframes(every=3), Keyframes(every=3)
    keys = [ahead.wants(frame) for frame in clip.frames]
    out = []
    for mask, key in zip(clip.masks, keys, strict=True):
        out += ahead.push(mask if key else None)
    masks, _ = run(behind, clip.frames, clip.masks)
    assert torch.equal(torch.stack([*out, *ahead.flush()]), masks)


def test_a_missing_mask_and_one_too_many_are_errors():
    clip = disc_clip(2, 0.5)
    keyframes = Keyframes(every=3)
    with pytest.raises(ValueError, match="in order"):
        keyframes.push(clip.masks[0])
    keyframes.wants(clip.frames[0])
    with pytest.raises(ValueError, match="in order"):
        keyframes.push(None)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="every"):
        Keyframes(every=0)
    with pytest.raises(ConfigError, match="side"):
        Keyframes(side=4)
