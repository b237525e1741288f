"""What codecs take."""

import pytest

pytest.importorskip("av")

import av

from birefnet_core.errors import ConfigError
from birefnet_core.video import Output, VideoOptions, segment_video

from .conftest import KnownMasks, make_clip, probe


@pytest.mark.parametrize(
    ("name", "codec", "least", "most"),
    [("a.mp4", "h264", 0, 51), ("a.mp4", "hevc", 0, 51), ("a.webm", "vp9", 0, 63), ("a.mp4", "av1", 1, 63)],
)
def test_a_crf_has_its_encoders_range(tmp_path, name, codec, least, most):
    """x264 cut 60 to 51, x265 refused it when the model was loaded, and SVT-AV1 took 0 for its own default, 35."""
    source = make_clip(tmp_path, audio=None, frames=2)
    how = {"path": tmp_path / name, "codec": codec, "kind": "composite", "background": "#20a060"}
    for crf in (least - 1, most + 1):
        with pytest.raises(ConfigError, match=rf"crf={crf}: expected {least} \(best\) to {most} for {codec}\."):
            Output(**how, crf=crf)
    sizes = []
    for crf in (least, most):
        options = VideoOptions(colors=None, overwrite=True)
        segment_video(KnownMasks(), source, Output(**how, crf=crf), options=options)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_the_shortest_clips_have_their_times_in_hevc(tmp_path, frames):
    """Of one or two frames x265 leaves the times of decoding as its memory was, and half of such clips failed."""
    source = make_clip(tmp_path, audio=None, frames=frames)
    out = Output(path=tmp_path / "a.mp4", codec="hevc", kind="composite", background="#20a060")
    for _ in range(8):
        segment_video(KnownMasks(), source, out, options=VideoOptions(colors=None, overwrite=True))
        with av.open(str(out.path)) as clip:
            packets = [packet for packet in clip.demux(video=0) if packet.size]
        times = [packet.dts for packet in packets]
        assert len(times) == frames and times == sorted(set(times))
        assert all(packet.dts <= packet.pts for packet in packets)
        assert probe(out.path).times == pytest.approx(probe(source).times)
