"""Damaged clips, full disks, cancelling: clear sentences, nothing half-written, inputs untouched."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birefnet_core.errors import ConfigError, VideoError
from birefnet_core.video import Clip, Limits, Output, VideoCancelled, VideoOptions, segment_video
from birefnet_core.video.writers import FileWriter, ImageWriter

from .conftest import KnownMasks, av, make_clip, probe

ROOT = Path(__file__).resolve().parents[2]


def left(folder):
    """Names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def cut_off(path, part=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "out.mov"


def test_an_empty_file_is_said_to_be_empty(tmp_path, segmenter, out):
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(VideoError, match="empty"):
        segment_video(segmenter, tmp_path / "clip.mp4", Output(path=out))
    with pytest.raises(VideoError, match="empty"):
        segment_video(segmenter, io.BytesIO(), Output(path=out))


def test_a_missing_file_is_named(tmp_path, segmenter, out):
    with pytest.raises(VideoError, match=r"nowhere\.mp4: cannot be opened \(No such file"):
        segment_video(segmenter, tmp_path / "nowhere.mp4", Output(path=out))


@pytest.mark.parametrize("content", [b"no clip at all", os.urandom(5000), b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"])
def test_what_is_no_clip_is_said_to_be_none(tmp_path, segmenter, out, content):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(VideoError, match="cannot be read as a clip"):
        segment_video(segmenter, tmp_path / "clip.mp4", Output(path=out))
    assert left(tmp_path) == ["clip.mp4"]


def test_playlists_open_no_other_files(tmp_path):
    inner = make_clip(tmp_path, name="inner.ts", audio=None)
    for name, text in (
        ("list.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{inner}\n#EXT-X-ENDLIST\n"),
        ("list.txt", f"ffconcat version 1.0\nfile '{inner}'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoError, match="cannot be read as a clip"):
            Clip(tmp_path / name)


def test_sound_alone_is_said_to_be_sound(tmp_path, segmenter, out):
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"has no video, only audio \(aac\)"):
        segment_video(segmenter, tmp_path / "song.m4a", Output(path=out))


def test_an_index_that_is_cut_off_is_explained(tmp_path, segmenter, out):
    source = cut_off(make_clip(tmp_path))
    with pytest.raises(VideoError, match="cut off has lost its index"):
        segment_video(segmenter, source, Output(path=out))


def damaged(tmp_path, kind):
    """A clip of 48 frames that is whole at first."""
    if kind == "mkv":
        return cut_off(make_clip(tmp_path, name="clip.mkv", frames=48, audio=None, options={"g": "4", "bf": "0"}))
    if kind == "mp4":  # with its index in front
        source = make_clip(tmp_path, name="whole.mp4", frames=48, audio=None, options={"g": "4", "bf": "0"})
        with (
            av.open(str(source)) as before,
            av.open(str(tmp_path / "clip.mp4"), "w", options={"movflags": "faststart"}) as after,
        ):
            stream = after.add_stream_from_template(before.streams.video[0], opaque=True)
            for packet in before.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    after.mux(packet)
        source.unlink()
        return cut_off(tmp_path / "clip.mp4")
    if kind == "sequence":
        (tmp_path / "clip").mkdir()
        for number in range(8):
            Image.fromarray(np.full((48, 64, 3), number * 20, np.uint8)).save(tmp_path / "clip" / f"{number}.png")
        (tmp_path / "clip" / "5.png").write_bytes(b"damaged")
        return tmp_path / "clip"
    source = make_clip(tmp_path, name="clip.mov", codec="prores_ks", pixels="yuv422p10le", frames=48, audio=None)
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    position, size = places[30]
    data[position : position + size] = bytes(size)
    source.write_bytes(bytes(data))
    return source


@pytest.mark.parametrize("kind", ["mkv", "mp4", "mov", "sequence"])
def test_damage_leaves_nothing_and_names_the_frame(tmp_path, segmenter, out, kind):
    source = damaged(tmp_path, kind)
    with pytest.raises(VideoError, match=r"damaged after frame \d+ .*keep_partial"):
        segment_video(segmenter, source, Output(path=out))
    assert left(out.parent) == []


@pytest.mark.parametrize("kind", ["mkv", "mp4", "mov", "sequence"])
def test_frames_before_damage_are_kept_where_asked_for(tmp_path, segmenter, out, kind):
    source = damaged(tmp_path, kind)
    report = segment_video(segmenter, source, Output(path=out), options=VideoOptions(keep_partial=True))
    assert "were kept" in report.damage
    assert 4 < report.frames < 48
    assert len(probe(out).times) == report.frames
    assert left(out.parent) == ["out.mov"]


def test_missing_packets_do_not_move_the_frames_that_are_there(tmp_path, segmenter, out):
    source = make_clip(tmp_path, name="whole.mkv", frames=24, audio=None, codec="mjpeg", pixels="yuvj420p")
    with av.open(str(source)) as before, av.open(str(tmp_path / "gap.mkv"), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0], opaque=True)
        for number, packet in enumerate(before.demux(video=0)):
            if packet.size and not 8 <= number < 12:
                packet.stream = stream
                after.mux(packet)
    report = segment_video(segmenter, tmp_path / "gap.mkv", Output(path=out))
    assert report.frames == 20
    assert probe(out).times == pytest.approx(probe(tmp_path / "gap.mkv").times)


def test_frames_beyond_the_limits_are_refused(tmp_path, segmenter, out):
    source = make_clip(tmp_path)
    for limits, words in (
        (Limits(side=90), "96 x 64 pixels, expected at most 90"),
        (Limits(pixels=4096), "96 x 64"),
        (Limits(frames=5), "more than 5 frames"),
    ):
        with pytest.raises(VideoError, match=words):
            segment_video(segmenter, source, Output(path=out), options=VideoOptions(limits=limits))
    assert not out.parent.exists() or left(out.parent) == []


def test_a_huge_image_is_refused_before_memory_is_taken(tmp_path):
    """A GIF of 65000 x 65000 pixels in a few bytes."""
    gif = b"GIF89a" + (65000).to_bytes(2, "little") * 2 + b"\x80\0\0" + bytes(6)
    gif += b"\x21\xf9\x04\0\x0a\0\0\0" + b"," + bytes(4) + (65000).to_bytes(2, "little") * 2 + b"\0\x02\x02\x4c\x01\0;"
    (tmp_path / "bomb.gif").write_bytes(gif)
    with pytest.raises(VideoError):
        Clip(tmp_path / "bomb.gif")


def test_cancelling_leaves_nothing(tmp_path, segmenter, out):
    source = make_clip(tmp_path, frames=24)
    outputs = [Output(path=out), Output(path=out.parent / "frames"), Output(path=out.parent / "m.mkv", kind="mask")]
    with pytest.raises(VideoCancelled, match="nothing was written"):
        segment_video(segmenter, source, outputs, cancelled=lambda: segmenter.seen > 3)
    assert segmenter.seen <= 5
    assert left(out.parent) == []


def test_cancelling_keeps_what_is_finished_where_asked_for(tmp_path, segmenter, out):
    source = make_clip(tmp_path, frames=24)
    options = VideoOptions(keep_partial=True)
    report = segment_video(segmenter, source, Output(path=out), options=options, cancelled=lambda: segmenter.seen > 6)
    assert report.cancelled
    assert 0 < report.frames < 24
    assert len(probe(out).times) == report.frames


def test_what_progress_raises_passes_through(tmp_path, segmenter, out):
    class Interrupted(Exception):
        pass

    told = []

    def progress(state):
        told.append(state)
        if state.done == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        segment_video(segmenter, make_clip(tmp_path), Output(path=out), progress=progress)
    assert [state.done for state in told] == [1, 2, 3]
    assert all(state.total == 12 and state.seconds_left >= 0 for state in told)
    assert told[0].image.shape == (64, 96, 3)
    assert told[0].mask.shape == (64, 96)
    assert left(out.parent) == []


@pytest.mark.parametrize(("writer", "name"), [(FileWriter, "out.mov"), (ImageWriter, "frames")])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, segmenter, monkeypatch, writer, name):
    written = writer.write

    def full(self, pixels, pts, duration):
        if self._plan.output.path.name == name and segmenter.seen > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(self, pixels, pts, duration)

    monkeypatch.setattr(writer, "write", full)
    source = make_clip(tmp_path, frames=40)
    folder = tmp_path / "out"
    outputs = [Output(path=folder / name), Output(path=folder / "mask.mkv", kind="mask")]
    with pytest.raises(VideoError, match=rf"{name}: not written \(No space left on device\)"):
        segment_video(segmenter, source, outputs)
    assert left(folder) == []


def test_a_file_that_may_grow_no_further_is_an_error(tmp_path):
    """The system's own refusal, in FFmpeg: a limit on the size of files."""
    source = make_clip(tmp_path, frames=60, audio=None)
    code = (
        "import resource, signal, sys; sys.path.insert(0, 'tests/video')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from conftest import KnownMasks; from birefnet_core.video import Output, segment_video\n"
        f"segment_video(KnownMasks(), {str(source)!r}, Output(path={str(tmp_path / 'out' / 'out.mov')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "VideoError" in done.stderr and "not written" in done.stderr
    assert left(tmp_path / "out") == []


def test_nothing_has_the_final_name_when_the_process_is_killed(tmp_path):
    source = make_clip(tmp_path, frames=24)
    code = (
        "import sys, time; sys.path.insert(0, 'tests/video')\n"
        "from conftest import KnownMasks; from birefnet_core.video import Output, segment_video\n"
        f"segment_video(KnownMasks(), {str(source)!r}, Output(path={str(tmp_path / 'out' / 'out.mov')!r}),\n"
        "    progress=lambda state: (print(state.done, flush=True), time.sleep(0.5)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert all(name.endswith(".part") for name in left(tmp_path / "out"))


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "background"])
def test_inputs_are_never_overwritten(tmp_path, segmenter, link):
    source = make_clip(tmp_path, name="clip.mov", codec="prores_ks", pixels="yuv422p10le")
    before, path = source.read_bytes(), tmp_path / "out.mov"
    if link == "same":
        path = source
    elif link == "symlink":
        path.symlink_to(source)
    elif link == "hardlink":
        path.hardlink_to(source)
    output = Output(path=path)
    if link == "background":
        other = make_clip(tmp_path, name="other.mp4")
        output, source = Output(path=source, kind="composite", codec="prores", background=source), other
    with pytest.raises(ConfigError, match="is an input"):
        segment_video(segmenter, source, output, options=VideoOptions(overwrite=True))
    assert (tmp_path / "clip.mov").read_bytes() == before
    assert segmenter.seen == 0


def test_a_sequence_is_not_written_into_itself(tmp_path, segmenter):
    source = damaged(tmp_path, "sequence")
    with pytest.raises(ConfigError, match="is an input"):
        segment_video(segmenter, source, Output(path=source), options=VideoOptions(overwrite=True))
    assert len(left(source)) == 8


def test_outputs_that_clash_are_found_first(tmp_path, segmenter, out):
    source = make_clip(tmp_path)
    out.parent.mkdir()
    with pytest.raises(ConfigError, match="named twice"):
        segment_video(segmenter, source, [Output(path=out), Output(path=out.parent / "." / out.name)])
    out.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="already there"):
        segment_video(segmenter, source, Output(path=out))
    assert out.read_bytes() == b"mine"
    (out.parent / "frames").mkdir()
    (out.parent / "frames" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt"):  # which no leave to overwrite would change
        segment_video(segmenter, source, Output(path=out.parent / "frames"))
    segment_video(segmenter, source, Output(path=out), options=VideoOptions(overwrite=True))
    assert len(probe(out).times) == 12


def test_a_replaced_file_stays_when_the_run_fails(tmp_path, segmenter, out):
    out.parent.mkdir()
    out.write_bytes(b"mine")
    frames = out.parent / "frames"
    frames.mkdir()
    (frames / "frame_000001.png").write_text("mine")
    source = damaged(tmp_path, "mov")
    with pytest.raises(VideoError, match="damaged"):
        segment_video(segmenter, source, [Output(path=out), Output(path=frames)], options=VideoOptions(overwrite=True))
    assert out.read_bytes() == b"mine"
    assert left(out.parent) == ["frames", "out.mov"]
    assert left(frames) == ["frame_000001.png"]


def test_an_interrupt_while_an_encoder_finishes_waits_for_it(tmp_path, segmenter, out, monkeypatch):
    finish, close, events = FileWriter.finish, FileWriter.close, []

    def slow_finish(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        finish(self)
        events.append("finished")

    def logged_close(self):
        events.append("closed")
        close(self)

    monkeypatch.setattr(FileWriter, "finish", slow_finish)
    monkeypatch.setattr(FileWriter, "close", logged_close)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            segment_video(segmenter, make_clip(tmp_path), Output(path=out))
    finally:
        signal.signal(signal.SIGINT, former)
    assert events[:2] == ["finished", "closed"]
    assert left(out.parent) == []


@pytest.mark.parametrize("inner", ["frames/mask.mkv", "frames/deeper"])
def test_no_output_lies_in_a_folder_that_is_one(tmp_path, segmenter, out, inner):
    outputs = [Output(path=out.parent / inner), Output(path=out.parent / "frames")]
    for order in (outputs, outputs[::-1]):
        with pytest.raises(ConfigError, match="or in another"):
            segment_video(segmenter, make_clip(tmp_path), order)
    assert not out.parent.exists()


def test_errors_of_the_network_pass_through(tmp_path, segmenter, out):
    class Broken(KnownMasks):
        def __call__(self, *arguments, **options):
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        segment_video(Broken(), make_clip(tmp_path), Output(path=out))
    assert left(out.parent) == []


def test_no_thread_outlives_a_run(tmp_path, segmenter, out):
    import threading

    source = make_clip(tmp_path, frames=40)
    wall = make_clip(tmp_path, name="wall.mp4", frames=40)
    output = Output(path=out, kind="composite", codec="prores", background=wall)
    with pytest.raises(VideoCancelled):
        segment_video(segmenter, source, output, cancelled=lambda: segmenter.seen > 2)
    time.sleep(0.05)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("birefnet")]
