"""What PyAV and swscale get wrong: frames of some widths, and when frames are released."""

import gc

import numpy as np
import pytest

pytest.importorskip("av")

from birefnet_core.video import Clip, Output, VideoOptions, segment_video
from birefnet_core.video.clip import Colour, rgb_format, to_rgb

from .conftest import KnownMasks, av, make_clip, soft_ellipse


def even_frame(kind, width, value):
    """A frame that is the same everywhere; alpha has the value."""
    frame = av.VideoFrame(width, 18, kind)
    deep = max(component.bits for component in frame.format.components) - 8
    for number, plane in enumerate(frame.planes):
        samples = np.full(len(memoryview(plane)) >> (deep > 0), (90, 100, 150, value)[number] << deep)
        plane.update(samples.astype("<u2" if deep else "u1").tobytes())
    return frame


@pytest.mark.parametrize("kind", ["yuva420p", "yuva444p", "yuv420p", "yuva420p10le", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_frames_of_every_width_are_converted_to_their_ends(kind, value):
    """Of yuva420p the last pixels were what was in memory; of 10 bits, odd widths were wrong in all rows but one."""
    for width in (*range(2, 70), 100, 500, 1921):
        frame = even_frame(kind, width, value)
        np.random.randint(1, 255, 18 * width * 8, dtype=np.uint8)  # for the memory that is taken next
        pixels = to_rgb(frame, rgb_format(frame), Colour(), (width, 18))
        assert (pixels == pixels[:1, :1]).all(), width
        assert np.abs(pixels[0, 0, :3] / np.iinfo(pixels.dtype).max - (0.475, 0.311, 0.116)).max() < 0.02, width
        if kind.startswith("yuva"):
            assert abs(pixels[0, 0, 3] / np.iinfo(pixels.dtype).max - value / 255) < 0.005, width


@pytest.mark.parametrize("width", [66, 96, 100])
def test_the_alpha_of_a_webm_comes_back_whole(tmp_path, width):
    source = make_clip(tmp_path, audio=None, frames=3, size=(width, 64))
    out = Output(path=tmp_path / "out.webm")
    segment_video(KnownMasks(), source, out, options=VideoOptions(colors=None))
    with Clip(out.path) as clip:
        for number, frame in enumerate(clip):
            assert np.abs(frame.pixels[..., 3] / 255 - soft_ellipse(64, width, number).numpy()).max() < 6 / 255


@pytest.mark.parametrize("rotation", [None, -90.0])
def test_frames_are_released_at_once(tmp_path, rotation):
    """Those whose side data were asked for stayed until the garbage collector ran: 1.5 GB of a clip of 3840 x 2160."""
    source = make_clip(tmp_path, audio=None, frames=80, rotation=rotation)
    gc.collect()
    gc.disable()
    try:
        with Clip(source) as clip:
            for number, _ in enumerate(clip):
                if number == 60:
                    assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) < 40
    finally:
        gc.enable()
