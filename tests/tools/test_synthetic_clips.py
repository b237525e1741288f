"""The renderer of clips: its motion leads where the frames show the same."""

import dataclasses

import numpy as np
import pytest
import torch

from birefnet_core.image_ops import warp
from birefnet_core.metrics.flicker import flicker


@pytest.fixture(scope="module")
def clips():
    pytest.importorskip("cv2")
    from tools.synthetic_pairs import clips

    return clips


def rendered(clips, name, frames=4, **changes):
    from tools.synthetic_pairs.sources import Sources

    settings = dataclasses.replace(clips.CLIPS[name], noise=0.0, quality=None, flash=1.0, **changes)
    return clips.render_clip(settings, Sources(), frames, 128)


@pytest.mark.parametrize("name", ["still", "walk", "fast", "pan", "hair", "fur", "shake", "zoom", "bar"])
def test_motion_leads_to_the_same_colours_and_alpha(clips, name):
    clip = rendered(clips, name)
    assert clip.images.shape == (4, 96, 128, 3) and clip.alphas.shape == (4, 96, 128)
    frames = torch.from_numpy(clip.images).movedim(-1, 1)
    motion, visible = torch.from_numpy(clip.motion), torch.from_numpy(clip.visible)
    assert visible.float().mean() > 0.5
    fetched = warp(frames[:-1], motion)
    along = (fetched - frames[1:]).abs().mean(dim=1)[visible].mean()
    across = (frames[:-1] - frames[1:]).abs().mean(dim=1)[visible].mean()
    assert along < 0.025
    assert along < 0.8 * across or across < 0.01
    assert flicker(torch.from_numpy(clip.alphas), motion, visible) < 0.03


def test_a_clip_depends_on_its_settings_alone_and_noise_differs_between_frames(clips):
    from tools.synthetic_pairs.sources import Sources

    one, other = (clips.render_clip(clips.CLIPS["still"], Sources(), 3, 64) for _ in range(2))
    np.testing.assert_array_equal(one.images, other.images)
    assert np.abs(one.images[0] - one.images[1]).mean() > 0.01


def test_nothing_is_visible_twice_across_a_cut(clips):
    clip = rendered(clips, "cut", frames=6)
    assert clip.cuts == [3]
    assert len(clip.images) == 6 and len(clip.motion) == 5
    assert not clip.visible[2].any() and clip.visible[1].any() and clip.visible[3].any()


def test_frames_that_cannot_be_written_end_it(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(clips.cv2, "imwrite", lambda *_: False)  # as on a full disk: it raises nothing
    monkeypatch.setattr("sys.argv", ["clips.py", "--out", str(tmp_path), "--clips", "still", "--frames", "2"])
    with pytest.raises(OSError, match=r"0000\.png: could not be written"):
        clips.main()
