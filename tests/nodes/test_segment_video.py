"""BiRefNet Segment Video over stand-ins for ComfyUI: sources, trims, edits, results, progress, cancelling."""

import asyncio
import io
import logging
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

av = pytest.importorskip("av")

RATE, SIZE, FRAMES = 12, (48, 32), 12


@pytest.fixture
def clip(tmp_path):
    """A clip with sound and a key frame every fourth frame."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=RATE, options={"g": "4"})
        video.width, video.height = SIZE
        audio = file.add_stream("aac", rate=48000, layout="mono")
        for number in range(FRAMES):
            image = np.full((SIZE[1], SIZE[0], 3), 20 * number, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4000 * FRAMES), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 48000, 0
        file.mux(audio.encode(sound))
        file.mux(audio.encode(None))
    return str(path)


@pytest.fixture
def run(comfy, small_file):
    """Executes the node with defaults and without smoothing colours, which only takes time."""
    nodes = {node.__name__.removeprefix("BiRefNet"): node for node in comfy.nodes.NODES}
    load, segment = nodes["LoadModel"], nodes["SegmentVideo"]
    model = load.execute(small_file, **comfy.compat.default_inputs(load, "model")).result[0]
    folder = Path(comfy.folders.get_output_directory())
    shutil.rmtree(folder, ignore_errors=True)

    def execute(video, **inputs):
        given = {"model": model, "video": video, "colors": "off", "filename_prefix": "", **inputs}
        return segment.execute(**{**comfy.compat.default_inputs(segment), **given})

    yield execute
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def videos(comfy):
    return comfy.compat.VideoFromFile


def frames(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def left_over(comfy):
    return sorted(path.name for path in Path(comfy.folders.get_temp_directory()).rglob("*"))


@pytest.mark.parametrize(
    ("output", "suffix", "codec"),
    [
        ("WebM with alpha", ".webm", "vp9"), ("ProRes with alpha", ".mov", "prores"), ("over color", ".mp4", "h264"),
        ("over background", ".mp4", "h264"),
    ],
)  # fmt: skip
def test_every_output_is_a_clip_with_as_many_frames_and_a_mask(output, suffix, codec, run, clip, videos, comfy):
    result = run(videos(clip), output=output, background=torch.full((1, 8, 8, 3), 0.5)).result
    files = [Path(video.get_stream_source()) for video in result]
    assert [type(video) for video in result] == [videos, videos]
    assert [file.suffix for file in files] == [suffix, ".mp4"]
    assert [len(frames(file)) for file in files] == [FRAMES, FRAMES]
    with av.open(str(files[0])) as opened:
        assert opened.streams.video[0].codec_context.name.replace("libvpx-", "") == codec
        assert len(opened.streams.audio) == 1
    assert left_over(comfy) == sorted(file.name for file in files)  # and no temporary file


def test_files_with_a_prefix_are_numbered_in_the_output_folder(run, clip, videos):
    first, second = (run(videos(clip), filename_prefix="video/mine", mask_file="lossless MKV") for _ in range(2))
    names = [[Path(video.get_stream_source()).name for video in run.result] for run in (first, second)]
    assert names == [["mine_00001_.webm", "mine_00001_mask.mkv"], ["mine_00002_.webm", "mine_00002_mask.mkv"]]
    assert first.ui.values == [("mine_00001_.webm", "video", "output")]
    assert run(videos(clip)).ui.values[0][2] == "temp"


def test_clips_of_another_comfyui_with_the_same_output_folder_are_not_replaced(run, clip, videos, comfy):
    files = comfy.nodes.video_files.result_files
    with files("mine/", ".webm", ".mkv", SIZE) as other:
        path = Path(run(videos(clip), filename_prefix="mine/").result[0].get_stream_source())
        assert (other.video.name, path.name) == ("mine_00001_.webm", "mine_00002_.webm")
        assert other.mask.name == "mine_00001_mask.mkv"


def test_a_prefix_names_the_date_as_in_nodes_of_comfyui(comfy, monkeypatch):
    now = SimpleNamespace(tm_year=2026, tm_mon=3, tm_mday=9, tm_hour=14, tm_min=5, tm_sec=7)
    monkeypatch.setattr(comfy.nodes.video_files, "time", SimpleNamespace(localtime=lambda: now))
    with comfy.nodes.video_files.result_files("%date:yyyy-MM-dd%/%date:d.M.yy hhmmss%", ".mp4", ".mkv", SIZE) as files:
        assert files.video.parts[-2:] == ("2026-03-09", "9.3.26 140507_00001_.mp4")
    shutil.rmtree(files.video.parent)


@pytest.mark.parametrize("prefix", ["../mine", "/elsewhere/mine", "a_file/mine", "a_file/folder/mine", "a\0b/mine"])
def test_a_prefix_that_is_no_place_in_the_output_folder_is_told(prefix, run, clip, videos, comfy):
    folder = Path(comfy.folders.get_output_directory())
    folder.mkdir(exist_ok=True)
    (folder / "a_file").touch()
    with pytest.raises(comfy.core.VideoError, match=r"^filename_prefix is '.*', expected a name, or .* folder .*\.$"):
        run(videos(clip), filename_prefix=prefix)


def test_bytes_are_read_and_the_background_may_be_a_clip(run, clip, videos):
    source = io.BytesIO(Path(clip).read_bytes())
    black = run(videos(clip), output="over color", color="#000000").result[0]
    for background in (videos(clip), SavedVideo(videos, clip)):
        over = run(videos(source), output="over background", background_video=background).result[0]
        assert len(frames(over.file)) == FRAMES
        assert np.mean(frames(over.file)[-1]) > np.mean(frames(black.file)[-1])


def SavedVideo(videos, file):
    """A clip whose file exists only once ComfyUI writes it."""

    class Saved(videos):
        def get_stream_source(self):
            return io.BytesIO(Path(self.file).read_bytes())

        def save_to(self, path):
            shutil.copy(self.file, path)

    return Saved(file)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_frames_in_memory_are_written_without_loss(channels, comfy):
    images = torch.randint(0, 256, (5, 31, 45, 3), generator=torch.Generator().manual_seed(0)) / 255
    wave = torch.sin(torch.arange(8000) * 0.05).expand(1, channels, -1)
    audio = {"waveform": wave, "sample_rate": 48000}
    video = comfy.compat.VideoFromComponents(images, Fraction(30000, 1001), audio)
    with comfy.nodes.video_files.opened(video) as part:
        assert part.size == (45, 31)
        read = np.stack(frames(part.source))
        with av.open(part.source) as file:
            sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)
            assert file.streams.video[0].average_rate == Fraction(30000, 1001)
    assert np.array_equal(read, (images * 255).round().byte().numpy())
    kept = min(channels, 2)
    assert np.array_equal(sound.reshape(-1, kept).T, wave[0, :kept].numpy())
    assert not Path(part.source).exists()


def test_frames_in_memory_that_are_none_are_told(run, comfy):
    with pytest.raises(ValueError, match="it has none, expected at least one"):
        run(comfy.compat.VideoFromComponents(torch.zeros(0, 8, 8, 3), Fraction(24)))


@pytest.mark.parametrize(
    ("value", "says"), [(float("nan"), r"video\[1\] has NaN"), (255.0, "expected \\[0, 1\\]: divide bytes by 255")]
)
def test_frames_and_backgrounds_that_would_be_black_or_white_are_told(value, says, run, clip, videos, comfy):
    images = torch.full((2, 8, 8, 3), 0.5)
    images[1, 3, 3] = value
    with pytest.raises(ValueError, match=says):
        run(comfy.compat.VideoFromComponents(images, Fraction(24)))
    with pytest.raises(ValueError, match=says.replace(r"video\[1\]", "background")):
        run(videos(clip), output="over background", background=images[1:])


def test_what_frames_in_memory_hide_does_not_count(run, comfy):
    images = torch.rand(2, 32, 32, 4, generator=torch.Generator().manual_seed(0))
    images[..., 16:, 3] = 0
    other = images.clone()
    other[..., 16:, :3] = 0.9
    silence = {"waveform": torch.zeros(1, 2, 0), "sample_rate": 48000}
    results = [
        run(
            comfy.compat.VideoFromComponents(frames, Fraction(24), silence),
            mask_file="lossless MKV",
            colors="multilevel",
        )
        for frames in (images, other)
    ]
    clips = [[np.stack(frames(video.file)) for video in result.result] for result in results]
    assert all(np.array_equal(first, second) for first, second in zip(*clips, strict=True))
    assert clips[0][1][..., :16, :].any() and not clips[0][1][..., 16:, :].any()


def test_a_transparent_background_is_grey(run, clip, videos, comfy):
    background = torch.rand(1, 8, 8, 4)
    background[..., 3] = 0
    path = Path(comfy.folders.get_output_directory())
    path.mkdir(exist_ok=True)
    written = comfy.nodes.video_files.background_file(background, None, path)
    assert set(np.asarray(Image.open(written)).flatten()) == {128}


def test_a_trim_is_taken_from_the_window(run, clip, videos):
    result = run(videos(clip, start_time=0.25, duration=0.5), output="over color").result
    assert len(frames(result[0].file)) == len(frames(result[1].file)) == 6


class Older:
    """As in ComfyUI 0.21: no window, but lengths."""

    whole = 1.0

    def __init__(self, file, *, start_time=0, duration=0):
        self.file, self.start, self.taken = file, start_time, duration

    def get_stream_source(self):
        return self.file

    def get_dimensions(self):
        return SIZE

    def get_duration(self):
        rest = min(self.whole, -self.start) if self.start < 0 else self.whole - self.start
        return min(self.taken, rest) if self.taken else rest

    def as_trimmed(self, start_time=0, duration=0, strict_duration=True):
        return Older(self.file, start_time=start_time + self.start, duration=duration)


@pytest.mark.parametrize(
    ("given", "window"),
    [
        ((0, 0), (0, 0)), ((0.25, 0), (0.25, 0)), ((0.25, 0.5), (0.25, 0.5)), ((0, 0.5), (0, 0.5)),
        ((-0.25, 0), (0.75, 0)), ((-5, 0.5), (0, 0.5)), ((0.5, 3), (0.5, 0)), ((0.1, 0.3), (0.1, 0.3)),
    ],
)  # fmt: skip
def test_an_older_comfyui_has_its_trim_worked_out_from_lengths(given, window, comfy, clip, monkeypatch):
    monkeypatch.setattr(comfy.nodes.video_files, "VideoFromFile", Older)
    with comfy.nodes.video_files.opened(Older(clip, start_time=given[0], duration=given[1])) as part:
        assert (part.start_time, part.duration) == pytest.approx(window)
        assert part.source == clip


@pytest.mark.parametrize("edit", ["crop", "flag"])
def test_other_edits_are_written_by_comfyui_first(edit, run, clip, videos, comfy, caplog):
    class Edited(videos):
        def save_to(self, path):
            shutil.copy(self.file, path)

        if edit == "flag":

            def has_pending_frame_edits(self):
                return True

    video = Edited(clip, size=(24, 16) if edit == "crop" else SIZE)
    with caplog.at_level(logging.INFO):
        assert len(frames(run(video).result[0].file)) == FRAMES
    assert "encodes it again" in caplog.text
    assert not [name for name in left_over(comfy) if "edited" in name]
    del Edited.save_to
    with pytest.raises(ValueError, match="cannot encode the video with its edits"):
        run(video)


def test_progress_comes_with_a_preview_and_the_time_left(run, clip, videos, comfy, monkeypatch):
    texts = []
    server = SimpleNamespace(instance=SimpleNamespace(send_progress_text=lambda text, node: texts.append((node, text))))
    server.send_progress_text = None
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=server))
    node = next(node for node in comfy.nodes.NODES if node.__name__ == "BiRefNetSegmentVideo")
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="7"), raising=False)
    comfy.progress.clear()
    comfy.previews.clear()
    run(videos(clip))
    assert comfy.progress == [(done, FRAMES) for done in range(1, FRAMES + 1)]
    kind, image, _ = comfy.previews[0]
    assert kind == "JPEG" and image.size == SIZE
    node_id, text = texts[0]
    assert node_id == "7" and text.startswith(f"1 of {FRAMES} frames, ") and text.endswith("left")
    assert texts[-1][1].startswith(f"{FRAMES} frames, ")


def test_cancelling_leaves_no_file(run, clip, videos, comfy, monkeypatch):
    video = videos(clip)
    run(video)
    before = left_over(comfy)
    calls = []

    def cancel_at_the_third_frame():
        calls.append(None)
        if len(calls) == 30:
            raise comfy.Interrupted

    management = sys.modules["comfy.model_management"]
    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancel_at_the_third_frame)
    with pytest.raises(comfy.Interrupted):
        run(video, filename_prefix="never/written")
    folder = Path(comfy.folders.get_output_directory(), "never")
    assert [name for name in left_over(comfy) if name not in before] == ["never"] and not list(folder.iterdir())


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"video": "clip.mp4"}, "expected what Load Video gives"),
        ({"model": 3}, "expected what Load BiRefNet Model gives"),
        ({"output": "MP4"}, "expected one of WebM with alpha"),
        ({"output": "over background"}, "connect background or background_video"),
        ({"output": "over background", "background": torch.rand(2, 8, 8, 3)}, "2 images, expected one"),
        ({"output": "over color", "color": "greenish"}, "greenish"),
        ({"mask_file": "GIF"}, "expected one of MP4"),
        ({"smoothing": 99}, "expected a whole number from 0 to 8"),
    ],
)
def test_bad_inputs_are_told_and_nothing_is_written(inputs, says, run, clip, videos, comfy):
    before = left_over(comfy)
    with pytest.raises(ValueError, match=says):
        run(**{"video": videos(clip), **inputs})
    assert left_over(comfy) == before


def test_what_comfyui_cannot_read_is_told(run, tmp_path, videos):
    (tmp_path / "broken.mp4").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"broken\.mp4: cannot be read as a clip"):
        run(videos(str(tmp_path / "broken.mp4")))
    broken = videos("")
    broken.get_stream_source = lambda: 1 / 0
    with pytest.raises(ValueError, match="The video cannot be read: division by zero"):
        run(broken)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be opened"),
        (b"", "the file is empty"),
        (b"none", "cannot be read as a clip .* Expected a video file"),
    ],
)
@pytest.mark.parametrize("given", ["video", "background_video"])
def test_a_broken_clip_is_told_where_comfyui_has_a_number(given, content, says, run, clip, tmp_path, videos):
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    broken = videos(str(path))
    broken.get_dimensions = lambda: av.open(str(path)).streams.video[0].width  # as ComfyUI's
    with pytest.raises(ValueError, match=rf"^broken\.mp4: {says}"):
        run(**{"video": videos(clip), "output": "over background", given: broken})


def test_a_model_is_loaded_by_comfyui_with_room_for_a_step(run, clip, videos, comfy):
    comfy.loaded.clear()
    run(videos(clip), frames_per_step=2)
    assert len(comfy.loaded) == 1 and comfy.loaded[0]["force_full_load"] and comfy.loaded[0]["memory_required"] > 0


def test_a_damaged_clip_is_told_or_its_beginning_kept(run, videos, tmp_path, caplog):
    cut = tmp_path / "cut.mkv"
    with av.open(str(cut), "w") as file:
        video = file.add_stream("mjpeg", rate=RATE)
        video.width, video.height, video.pix_fmt = *SIZE, "yuvj420p"
        for noise in np.random.default_rng(0).integers(0, 255, (24, SIZE[1], SIZE[0], 3), np.uint8):
            file.mux(video.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        file.mux(video.encode(None))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged after frame"):
        run(videos(str(cut)))
    with caplog.at_level(logging.WARNING):
        result = run(videos(str(cut)), keep_partial=True).result
    assert 0 < len(frames(result[0].file)) < 24 and "damaged after frame" in caplog.text


@pytest.mark.parametrize("missing", ["type", "package", ""])
def test_without_video_the_node_is_left_out_with_a_line(missing, comfy, monkeypatch, caplog):
    if missing == "type":
        monkeypatch.setattr(comfy.compat, "VideoFromFile", None)
    elif missing:
        monkeypatch.setattr(comfy.compat, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        nodes = asyncio.run(comfy.nodes.BiRefNetExtension().get_node_list())
    assert bool(missing) == ("Segment Video is left out" in caplog.text)
    assert bool(missing) != ("BiRefNetSegmentVideo" in {node.__name__ for node in nodes})
