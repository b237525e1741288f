"""Clips of many kinds: frames, times, sound, turning and colour tags are those of the input."""

import struct
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from birefnet_core.errors import VideoError
from birefnet_core.video import Clip, Output, VideoOptions, segment_video
from birefnet_core.video.recordings import Joined

from .conftest import av, make_clip, probe

VARIABLE = [0, 3000, 9000, 10000, 20000, 21500, 30000, 33000, 36000, 60000, 63001, 66000]
KINDS = {
    "h264": {},
    "hevc_hdr_10_bit": {
        "codec": "libx265", "pixels": "yuv420p10le", "options": {"x265-params": "log-level=error"},
        "colour": (9, 16, 9, 1),
    },
    "vp9": {"name": "clip.webm", "codec": "libvpx-vp9", "audio": "libopus"},
    "prores": {
        "name": "clip.mov", "codec": "prores_ks", "pixels": "yuv422p10le", "audio": "pcm_s16le",
        "colour": (1, 1, 1, 1),
    },
    "mjpeg": {"name": "clip.avi", "codec": "mjpeg", "pixels": "yuvj420p", "audio": "pcm_s16le"},
    "gif": {"name": "clip.gif", "codec": "gif", "pixels": "rgb8", "rate": 10, "audio": None},
    "odd_size": {"name": "clip.mkv", "codec": "ffv1", "pixels": "yuv444p", "size": (97, 63), "audio": None},
    "turned": {"rotation": -90.0},
    "upside_down": {"name": "clip.mov", "rotation": 180.0},
    "variable_rate": {"time_base": Fraction(1, 90000), "pts": VARIABLE},
    "silent": {"audio": None, "rate": 30},
    "h264_10_bit": {"name": "clip.mkv", "pixels": "yuv420p10le", "audio": "flac"},
    "broadcast": {"name": "clip.ts", "options": {"bf": "0"}, "audio": "aac"},
}  # fmt: skip


def close(found, expected, tolerance):
    assert len(found) == len(expected)
    assert np.abs(np.subtract(found, expected)).max() <= tolerance


@pytest.mark.parametrize("suffix", [".mov", ".webm", ".mp4", ".mkv"])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_times_sound_and_turning_are_kept(tmp_path, segmenter, kind, suffix):
    source = make_clip(tmp_path, **KINDS[kind])
    out = tmp_path / f"out{suffix}"
    cutout = suffix in (".mov", ".webm")
    background = None if cutout else "#204060"
    output = Output(path=out, kind="cutout" if cutout else "composite", background=background)
    report = segment_video(segmenter, source, output)
    before, after = probe(source), probe(out)

    begin = before.start if kind == "broadcast" else 0  # a broadcast begins anywhere, a file at 0
    exact = suffix in (".mov", ".mp4")  # Matroska and WebM count in milliseconds
    tolerance = 5.5e-4 if not exact else 5e-5 if kind == "broadcast" else 1e-9
    close(after.times, [time - begin for time in before.times], tolerance)
    assert report.frames == len(before.times)
    if exact and before.duration is not None:
        assert after.duration == pytest.approx(before.duration, abs=1e-3 if kind == "broadcast" else 1e-9)
    assert len(after.audio) == len(before.audio)
    if before.audio and after.audio == before.audio and "opus" not in before.audio:
        assert after.samples == before.samples
    if before.audio and after.audio != before.audio:
        assert any("encoded again" in note for note in report.notes)
        assert abs(after.samples - before.samples) <= 2048

    turned = kind in ("turned", "upside_down")
    if exact or not turned:
        assert (after.rotation, after.size) == (before.rotation, before.size)
    else:  # stored upright
        assert after.rotation == {0}
        assert after.size == (before.size[::-1] if kind == "turned" else before.size)


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
@pytest.mark.parametrize("colour", [(1, 1, 1, 1), (9, 16, 9, 1), (6, 6, 6, 1), (9, 18, 9, 1)])
def test_colour_tags_and_bits_are_kept(tmp_path, segmenter, colour, suffix):
    source = make_clip(tmp_path, colour=colour, pixels="yuv420p10le", codec="libx264", audio=None)
    output = Output(path=tmp_path / f"out{suffix}", kind="composite", background="#888", codec="h264")
    if suffix == ".mov":
        output = Output(path=tmp_path / "out.mov")
    segment_video(segmenter, source, output)
    found = probe(output.path)
    assert found.colour[:3] == colour[:3]
    assert found.colour[3] in (1, 0)  # ProRes is limited, and older FFmpeg does not say so
    assert "10le" in found.pixels or "12le" in found.pixels


def test_full_range_is_kept(tmp_path, segmenter):
    source = make_clip(tmp_path, colour=(1, 1, 1, 2), audio=None)
    out = tmp_path / "out.mp4"
    segment_video(segmenter, source, Output(path=out, kind="composite", background="#888"))
    assert probe(out).colour == (1, 1, 1, 2)


@pytest.mark.parametrize("rotation", [90.0, -90.0, 180.0])
def test_the_network_sees_frames_upright(tmp_path, segmenter, rotation):
    plain = make_clip(tmp_path, name="plain.mp4", audio=None)
    turned = make_clip(tmp_path, name="turned.mp4", audio=None, rotation=rotation)
    with Clip(plain) as first, Clip(turned) as second:
        before, after = next(iter(first)).pixels, next(iter(second)).pixels
    assert np.array_equal(after, np.rot90(before, int(rotation) // 90))
    segment_video(segmenter, turned, Output(path=tmp_path / "out.webm"))
    assert tuple(segmenter.images[0].shape[:2]) == after.shape[:2]


def test_a_mirrored_clip_stays_mirrored(tmp_path, segmenter):
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write turned clips")
    path = tmp_path / "mirrored.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("prores_ks", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv422p10le"
        stream.set_display_rotation(0, hflip=True)
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :20] = 255
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    with Clip(path) as clip:
        assert next(iter(clip)).pixels[24, -1].min() > 60000
    segment_video(segmenter, path, Output(path=tmp_path / "out.mov"), options=VideoOptions(colors=None))
    with Clip(tmp_path / "out.mov") as clip:
        assert clip.info.orientation == (False, True, False)
        assert next(iter(clip)).pixels[24, -1, :3].min() > 60000


def test_colours_of_the_subject_are_kept(tmp_path, segmenter):
    source = make_clip(tmp_path, colour=(1, 1, 1, 1), audio=None)
    segment_video(segmenter, source, Output(path=tmp_path / "out.mov"), options=VideoOptions(colors=None))
    with Clip(source) as first, Clip(tmp_path / "out.mov") as second:
        for before, after in zip(first, second, strict=True):
            inside = after.pixels[..., 3] > 65000
            error = np.abs(before.pixels / 255 - after.pixels[..., :3] / 65535)[inside]
            assert error.max() < 3 / 255


def test_subtitles_are_copied_or_named(tmp_path, segmenter):
    with_text = tmp_path / "text.mkv"
    source = make_clip(tmp_path, audio=None)
    with av.open(str(source)) as before, av.open(str(with_text), "w") as after:
        video = after.add_stream_from_template(before.streams.video[0], opaque=True)
        (tmp_path / "text.srt").write_text("1\n00:00:00,100 --> 00:00:00,300\nHello\n")
        with av.open(str(tmp_path / "text.srt")) as text:
            subtitle = after.add_stream_from_template(text.streams[0], opaque=True)
            for packet in [*before.demux(video=0), *text.demux()]:
                if packet.size:
                    packet.stream = video if packet.stream.type == "video" else subtitle
                    after.mux(packet)
    assert probe(with_text).subtitles
    out = Output(path=tmp_path / "out.mkv", kind="composite", background="#000")
    segment_video(segmenter, with_text, out)
    assert probe(out.path).subtitles == probe(with_text).subtitles
    report = segment_video(segmenter, with_text, Output(path=tmp_path / "out.mov"))
    assert any("subtitle" in note and "left out" in note for note in report.notes)


@pytest.mark.parametrize(("start", "duration"), [(0.25, None), (0, 0.25), (0.125, 0.25), (-0.25, 0)])
def test_a_cut_begins_and_ends_where_it_is_said(tmp_path, segmenter, start, duration):
    source = make_clip(tmp_path, options={"g": "4"})
    out = tmp_path / "out.mov"
    report = segment_video(
        segmenter, source, Output(path=out), options=VideoOptions(start_time=start, duration=duration)
    )
    found = probe(out)
    assert report.frames == len(found.times) == 6
    assert found.times[0] == 0
    first = round((start if start >= 0 else 0.5 + start) * 24)
    with Clip(source) as clip:
        expected = [frame.pixels for frame in clip][first]
    assert np.abs(segmenter.images[0].numpy() * 255 - expected).max() < 1
    assert abs(found.samples / 48000 - 6 / 24) < 0.05


@pytest.mark.parametrize(("start", "duration"), [(1.64, 0.2), (0, 0.4), (-0.4, None)])
@pytest.mark.parametrize("name", ["clip.ts", "clip.mpg", "clip.h264", "clip.mp4"])
def test_a_cut_is_found_in_files_without_an_index(tmp_path, name, start, duration):
    """Recordings begin at any time, and their key frames may be long before the cut; bare H.264 cannot seek."""
    codec = "mpeg2video" if name == "clip.mpg" else "libx264"
    options = {"g": "40", "bf": "2"}
    how = {"codec": codec, "frames": 100, "rate": 25, "size": (48, 32), "options": options, "audio": None}
    source = make_clip(tmp_path, name=name, **how)
    if start < 0 and name == "clip.h264":
        pytest.skip("where it ends is not said")
    with Clip(source) as clip:
        frames = [frame.pixels for frame in clip]
    first = round(25 * (start if start >= 0 else 4 + start))
    expected = frames[first:][: round(25 * duration) if duration else None]
    with Clip(source, start_time=start, duration=duration) as clip:
        found = [frame.pixels for frame in clip]
    assert len(found) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("first", "count"), [(5, 20), (0, 10), (13, 30)])
def test_a_clip_trimmed_in_its_edit_list_is_whole(tmp_path, first, count):
    """Telephones and QuickTime trim so: the index has more frames than are shown."""
    source = make_clip(tmp_path, audio=None, frames=48, options={"g": "12", "bf": "2"})
    with Clip(source) as clip:
        frames = [frame.pixels for frame in clip]
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 12
    length, begin, rate = struct.unpack(">Iii", data[at : at + 12])
    with av.open(str(source)) as container:
        step = round(1 / 24 / container.streams.video[0].time_base)
    data[at : at + 12] = struct.pack(">Iii", length * count // 48, begin + first * step, rate)
    source.write_bytes(data)
    with Clip(source) as clip:
        found = [frame.pixels for frame in clip]
    assert len(found) == count
    assert all(np.array_equal(a, b) for a, b in zip(found, frames[first:], strict=False))


@pytest.mark.parametrize("name", ["late.mkv", "late.flv"])
def test_a_clip_out_of_a_longer_stream_begins_at_its_first_frame(tmp_path, name):
    source = make_clip(tmp_path, audio=None, options={"bf": "0"})
    with av.open(str(source)) as before, av.open(str(tmp_path / name), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0], opaque=True)
        for packet in before.demux():
            if packet.size:
                packet.pts = packet.dts = packet.pts + round(100 / packet.time_base)
                packet.stream = stream
                after.mux(packet)
    with Clip(tmp_path / name) as clip:
        frames = list(clip)
        close([frame.pts * clip.info.time_base for frame in frames], [n / 24 for n in range(12)], 1e-3)
    with Clip(tmp_path / name, start_time=0.25, duration=0.125) as clip:
        found = [frame.pixels for frame in clip]
    assert len(found) == 3
    assert all(np.array_equal(a, b.pixels) for a, b in zip(found, frames[6:], strict=False))


def test_frames_before_zero_are_kept(tmp_path, segmenter):
    """MOV and MP4 hide them."""
    path = tmp_path / "early.webm"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libvpx", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(-6, 6):
            frame = av.VideoFrame(64, 48)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    report = segment_video(segmenter, path, Output(path=tmp_path / "out.mov"), options=VideoOptions(colors=None))
    found = probe(tmp_path / "out.mov")
    assert len(found.times) == report.frames == 12
    assert found.times[0] == 0


def test_a_cut_beyond_the_end_says_where_the_end_is(tmp_path):
    source = make_clip(tmp_path, audio=None)
    with pytest.raises(VideoError, match=r"no frame from 9 s on within 1 s; the clip ends at 0\.50 s\. Choose another"):
        Clip(source, start_time=9, duration=1)


def test_pixels_that_are_not_square_stay_so(tmp_path, segmenter):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame(64, 48)))
        container.mux(stream.encode(None))
    report = segment_video(segmenter, path, [Output(path=tmp_path / "out.mov"), Output(path=tmp_path / "out.webm")])
    assert probe(tmp_path / "out.mov").aspect == Fraction(4, 3)
    assert report.notes == ["vp9 in .webm keeps no pixel aspect (4:3 here)"]


@pytest.mark.parametrize("delay", [0, 1, 2, 3])
def test_the_first_audio_of_a_broadcast_is_kept(tmp_path, segmenter, delay):
    """Containers say when they begin in whole microseconds, broadcasts count in 90000ths of a second."""
    source = make_clip(tmp_path, **KINDS["broadcast"])
    moved = tmp_path / "moved.ts"
    with av.open(str(source)) as before, av.open(str(moved), "w") as after:
        streams = {s.index: after.add_stream_from_template(s) for s in (*before.streams.video, *before.streams.audio)}
        for packet in before.demux():
            if packet.size:
                packet.pts += delay + (9000 if packet.stream.type == "video" else 0)
                packet.dts = packet.pts
                packet.stream = streams[packet.stream.index]
                after.mux(packet)
    segment_video(segmenter, moved, Output(path=tmp_path / "out.mov"))
    found = probe(tmp_path / "out.mov")
    assert found.samples == probe(moved).samples
    assert found.times[0] == pytest.approx(0.1, abs=0.03)


def test_audio_that_is_announced_and_not_there_is_left_out(tmp_path, segmenter):
    """Recordings announce tracks for languages and descriptions that nothing is sent on."""
    with av.open(str(tmp_path / "clip.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.add_stream("ac3", rate=48000)
        container.mux([*stream.encode(av.VideoFrame(64, 48)), *stream.encode(None)])
    report = segment_video(segmenter, tmp_path / "clip.ts", Output(path=tmp_path / "out.mov"))
    assert (report.frames, probe(tmp_path / "out.mov").audio) == (1, [])
    assert any("audio (ac3) was left out" in note for note in report.notes)


def test_audio_of_a_rate_and_channels_that_the_encoder_lacks(tmp_path, segmenter):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_f32le", rate=192000)
        sound.codec_context.layout = "5.1"
        container.mux([*stream.encode(av.VideoFrame(64, 48)), *stream.encode(None)])
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 6 * 19200), np.float32), format="flt", layout="5.1")
        frame.sample_rate, frame.pts = 192000, 0
        container.mux([*sound.encode(frame), *sound.encode(None)])
    out = Output(path=tmp_path / "out.mp4", kind="composite", background="#000")
    report = segment_video(segmenter, tmp_path / "clip.mkv", out)
    assert probe(out.path).audio == ["aac"]
    assert any("encoded again as aac in stereo" in note for note in report.notes)


@pytest.mark.parametrize("suffix", [".mov", ".webm"])
def test_recordings_that_were_joined_follow_each_other(tmp_path, segmenter, suffix):
    data = make_clip(tmp_path, **KINDS["broadcast"]).read_bytes()
    (tmp_path / "joined.ts").write_bytes(data + data)
    report = segment_video(segmenter, tmp_path / "joined.ts", Output(path=tmp_path / f"out{suffix}"))
    one, both = probe(tmp_path / "clip.ts"), probe(tmp_path / f"out{suffix}")
    close(np.diff(both.times), [1 / 24] * 23, 2e-3)
    assert abs(both.samples - 2 * one.samples) < 2048
    assert not any("damaged" in note for note in report.notes)


@pytest.mark.parametrize("name", ["clip.ts", "clip.mpg"])
def test_a_cut_is_found_in_recordings_that_were_joined(tmp_path, name):
    """The times begin again in the middle, where a search by them finds either half; a later half begins elsewhere."""
    codec = "mpeg2video" if name == "clip.mpg" else "libx264"
    how = {"codec": codec, "frames": 50, "rate": 25, "size": (48, 32), "options": {"g": "10", "bf": "2"}, "audio": None}
    first = make_clip(tmp_path, name=name, **how).read_bytes()
    later = make_clip(tmp_path, name=f"later_{name}", pts=list(range(5000, 5050)), **how).read_bytes()
    for data in (first + first, first + later, later + first):
        (tmp_path / name).write_bytes(data)
        with Clip(tmp_path / name) as clip:
            frames = [frame.pixels for frame in clip]
        assert len(frames) == 100
        for start in (1, 1.92, 3, -0.4):
            with Clip(tmp_path / name, start_time=start, duration=0.2) as clip:
                found = [frame.pixels for frame in clip]
            at = round(25 * (start if start > 0 else 4 + start))
            assert len(found) == 5
            assert all(np.array_equal(a, b) for a, b in zip(found, frames[at:], strict=False)), start


def test_the_sound_of_a_cut_follows_it_into_the_later_recording(tmp_path, segmenter):
    data = make_clip(tmp_path, **{**KINDS["broadcast"], "frames": 48, "size": (48, 32)}).read_bytes()
    (tmp_path / "joined.ts").write_bytes(data + data)
    options = VideoOptions(start_time=2.5, duration=1, colors=None)
    segment_video(segmenter, tmp_path / "joined.ts", Output(path=tmp_path / "out.mov"), options=options)
    found = probe(tmp_path / "out.mov")
    assert len(found.times) == 24
    assert abs(found.samples - 48000) < 2500


def test_a_recording_that_says_it_begins_after_its_frames(tmp_path, segmenter, monkeypatch):
    source = make_clip(tmp_path, **KINDS["broadcast"])
    monkeypatch.setattr(Clip, "_find_beginning", lambda clip: Fraction(10))
    segment_video(segmenter, source, Output(path=tmp_path / "out.mov"))
    close(probe(tmp_path / "out.mov").times, [n / 24 for n in range(12)], 5e-5)


def test_only_far_jumps_of_broadcasts_are_joints():
    times = [0, 10, 20, 9000, 9010, 15, 20, 115, 100, 110]
    for name, expected in (("mpegts", [0, 10, 20, 30, 40, 50, 55, 150, 160, 170]), ("matroska,webm", times)):
        joined = Joined(SimpleNamespace(format=SimpleNamespace(name=name)), Fraction(1, 10))
        assert [time + joined(time, 10) for time in times] == expected, name


def test_bytes_are_read_as_files_are(tmp_path, segmenter):
    import io

    source = make_clip(tmp_path)
    segment_video(segmenter, io.BytesIO(source.read_bytes()), Output(path=tmp_path / "out.mov"))
    before, after = probe(source), probe(tmp_path / "out.mov")
    assert (after.times, after.samples) == (before.times, before.samples)


def test_tags_of_the_container_are_kept(tmp_path, segmenter):
    source = make_clip(tmp_path)
    tagged = tmp_path / "tagged.mp4"
    options = {"movflags": "use_metadata_tags"}
    with av.open(str(source)) as before, av.open(str(tagged), "w", options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0], opaque=True)
        after.metadata.update({"title": "A title", "prompt": '{"1": {}}'})
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    segment_video(segmenter, tagged, Output(path=tmp_path / "out.mov"))
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.metadata["title"] == "A title"
        assert container.metadata["prompt"] == '{"1": {}}'
