"""Options of a video of wrong types are told by name before anything is read; text never counts as True."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from birefnet_core.errors import ConfigError
from birefnet_core.video import Limits, Output, VideoOptions, segment_video
from birefnet_core.video.clip import Clip

from .conftest import KnownMasks, make_clip

TENSOR = torch.ones(2)


def option(name):
    return lambda value: VideoOptions(**{name: value})


def output(name, **others):
    return lambda value: Output(**{"path": "out.mov", name: value, **others})


SWITCHES = {
    **{name: option(name) for name in ("tiled", "flip", "keep_partial", "overwrite")},
    **{name: output(name) for name in ("premultiplied", "audio")},
}
WHOLE = {
    "every": option("every"),
    "crf": output("crf", path="out.mp4", kind="composite", background="#fff"),
    **{name: lambda value, name=name: Limits(**{name: value}) for name in ("side", "pixels", "frames")},
}
REAL = {name: option(name) for name in ("temporal_strength", "start_time", "duration", "frame_rate")}
CHOICES = {"colors": option("colors"), "kind": output("kind"), "fit": output("fit"), "codec": output("codec")}


@pytest.mark.parametrize("value", ["false", "", None, 2, 0.5, [], TENSOR])
@pytest.mark.parametrize("name", SWITCHES)
def test_what_is_no_switch_is_told(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is .*, expected True or False"):
        SWITCHES[name](value)


@pytest.mark.parametrize("value", ["3", [1], TENSOR, True])
@pytest.mark.parametrize("name", [*WHOLE, *REAL])
def test_what_is_no_number_is_told(name, value):
    kind = "whole number" if name in WHOLE else "number"
    with pytest.raises(ConfigError, match=f"^{name} is .*, expected a {kind}"):
        {**WHOLE, **REAL}[name](value)


@pytest.mark.parametrize("name", WHOLE)
def test_fractions_are_told(name):
    with pytest.raises(ConfigError, match=rf"^{name} is 1\.5, expected a whole number"):
        WHOLE[name](1.5)


@pytest.mark.parametrize("name", REAL)
def test_nan_is_told(name):
    with pytest.raises(ConfigError, match=f"^{name} is NaN"):
        REAL[name](float("nan"))


@pytest.mark.parametrize("value", [3, ["png"], {}, np.ones(2), "nonsense"])
@pytest.mark.parametrize("name", CHOICES)
def test_what_is_none_of_the_choices_is_told(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is .*, expected one of "):
        CHOICES[name](value)


@pytest.mark.parametrize("value", [None, {}, "x"])
def test_options_of_another_kind_are_told(value):
    for name, kind in (("refine", "RefineOptions"), ("limits", "Limits")):
        with pytest.raises(ConfigError, match=f"^{name} is .*, expected a {kind}"):
            VideoOptions(**{name: value})


@pytest.mark.parametrize("value", [None, 3, TENSOR])
def test_an_output_without_a_path_is_told(value):
    with pytest.raises(ConfigError, match=r"^path is a .*, expected a path"):
        Output(path=value)


def test_values_out_of_their_range_are_told():
    for strength in (-0.1, 7):
        with pytest.raises(ConfigError, match=f"temporal_strength is {strength}, expected 0 to 1"):
            VideoOptions(temporal_strength=strength)
    with pytest.raises(ConfigError, match="frames is 0, expected 1 or more"):
        Limits(frames=0)


def test_numbers_of_every_kind_are_taken():
    options = VideoOptions(every=np.int64(2), frame_rate=Fraction(30000, 1001), start_time=np.float32(0.5), duration=2)
    assert options.every == 2
    assert Output(path="out.webm", crf=np.int64(9)).crf == 9


def test_floats_of_numpy_are_those_of_python(tmp_path):
    clip = make_clip(tmp_path, name="a.mp4", frames=10, size=(64, 48))
    options = VideoOptions(start_time=np.float32(0.08), duration=np.float32(0.2), frame_rate=np.float32(12.5))
    times = {"start_time": options.start_time, "duration": options.duration, "frame_rate": options.frame_rate}
    with Clip(clip, **times) as opened, Clip(clip, start_time=0.08, duration=0.2) as wanted:
        assert [frame.pts for frame in opened] == [frame.pts for frame in wanted]


@pytest.mark.parametrize("value", ["out.mov", None, 3, ["out.mov"], (Output(path="a.mov"), "b.mov"), {}])
def test_what_is_no_output_is_told(value):
    with pytest.raises(ConfigError, match=r"^(an output is .*, expected a Output|there is nothing to write)"):
        segment_video(KnownMasks(), "never read.mp4", value)


@pytest.mark.parametrize("value", [{}, (), "fast", 0])
def test_what_are_no_options_are_told(value):
    with pytest.raises(ConfigError, match=r"^options is .*, expected a VideoOptions"):
        segment_video(KnownMasks(), "never read.mp4", Output(path="a.mov"), options=value)


@pytest.mark.parametrize("value", [None, "demo", torch.nn.Linear(2, 2)])
def test_what_is_no_segmenter_is_told(value):
    with pytest.raises(ConfigError, match=r"^segmenter is a .*, expected a Segmenter"):
        segment_video(value, "never read.mp4", Output(path="a.mov"))
