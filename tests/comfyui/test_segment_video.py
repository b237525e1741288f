"""Clips through ComfyUI's own video nodes and ours: frames, alpha, sound, trims, cancelling, memory."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.comfyui.workflows import LOAD, error_of, node

av = pytest.importorskip("av")
pytestmark = pytest.mark.comfyui

RATE, WIDTH, HEIGHT, SAMPLES = 12, 96, 64, 48000
MEMORY_SIZE = tuple(int(side) for side in os.environ.get("COMFYUI_VIDEO_SIZE", "320x180").split("x"))


def write_clip(path, frames, width=WIDTH, height=HEIGHT):
    """A bright disc that moves over a dark gradient, with a tone."""
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=RATE, options={"crf": "12", "g": "6"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = file.add_stream("aac", rate=SAMPLES, layout="mono")
        for number in range(frames):
            image = np.stack([x * 90 // width, y * 90 // height, np.full_like(x, 40)], -1).astype(np.uint8)
            image[np.hypot(y - height / 2, x - width / 3 - number % 24) < height / 4] = (240, 200, 60)
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(video.encode(None))
        tone = 0.2 * np.sin(np.arange(SAMPLES * frames // RATE) * 0.05, dtype=np.float32)[None]
        sound = av.AudioFrame.from_ndarray(tone.astype(np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = SAMPLES, 0
        file.mux(audio.encode(sound))
        file.mux(audio.encode(None))


def frames_of(path, pixels="rgba"):
    """Frames as F, H, W, C bytes, and the times they are shown at."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        decoder = stream.codec_context
        if decoder.name == "vp9":
            decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own drops the alpha
        found = [frame for packet in file.demux(stream) for frame in decoder.decode(packet if packet.size else None)]
        times = [float(frame.pts * stream.time_base) for frame in found]
        return np.stack([frame.to_ndarray(format=pixels) for frame in found]), times


def sound_of(path):
    """Seconds of sound, and its codec."""
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return 0.0, None
        stream = file.streams.audio[0]
        return sum(frame.samples for frame in file.decode(stream)) / stream.rate, stream.codec_context.name


def workflow(clip="clip.mp4", trim=None, **options):
    """Video 1, model 2, ours 3; 8 the trim."""
    nodes = {
        "1": node("LoadVideo", file=clip),
        "2": node("BiRefNetLoadModel", model="demo", **LOAD),
        "3": node("BiRefNetSegmentVideo", model=["2", 0], video=["8" if trim else "1", 0], **{**DEFAULTS, **options}),
    }
    if trim:
        start, duration = trim
        nodes["8"] = node("Video Slice", video=["1", 0], start_time=start, duration=duration, strict_duration=False)
    return nodes


DEFAULTS = {
    "output": "WebM with alpha", "color": "#00b140", "background_fit": "fill", "colors": "multilevel", "smoothing": 0,
    "mask_file": "MP4", "size": "auto (training size)", "filename_prefix": "video/test",
}  # fmt: skip


def results(comfyui, prefix):
    """The files of a prefix: the clip, and its mask."""
    files = sorted((comfyui.base / "output" / Path(prefix).parent).glob(f"{Path(prefix).name}_*"))
    assert len(files) == 2, files
    return sorted(files, key=lambda path: "mask" in path.name)


@pytest.fixture(scope="module")
def clips(comfyui):
    write_clip(comfyui.base / "input" / "clip.mp4", 24)
    return comfyui.base / "input"


@pytest.mark.parametrize(
    ("output", "suffix", "audio"),
    [("WebM with alpha", ".webm", "opus"), ("ProRes with alpha", ".mov", "aac"), ("over color", ".mp4", "aac")],
)
def test_frames_alpha_and_sound_arrive(output, suffix, audio, comfyui, clips):
    prefix = f"video/{suffix[1:]}"
    shown = comfyui.run(workflow(output=output, filename_prefix=prefix))["3"]
    clip, mask = results(comfyui, prefix)
    assert clip.suffix == suffix and mask.suffix == ".mp4"
    assert shown["images"] == [{"filename": clip.name, "subfolder": "video", "type": "output"}]
    _, times = frames_of(clips / "clip.mp4")
    pixels, found = frames_of(clip)
    masks, mask_times = frames_of(mask, "gray")
    assert pixels.shape == (24, HEIGHT, WIDTH, 4) and masks.shape == (24, HEIGHT, WIDTH)
    assert found == pytest.approx(times, abs=1e-3) and mask_times == pytest.approx(times, abs=1e-3)
    seconds, codec = sound_of(clip)
    assert codec == audio and seconds == pytest.approx(2.0, abs=0.1) and sound_of(mask)[1] is None
    assert masks.max() > 200 and masks.min() < 20
    if output == "over color":
        behind = pixels[..., :3][masks < 2]
        assert np.abs(behind.astype(int) - (0, 177, 64)).mean() < 6
    else:
        assert np.abs(pixels[..., 3].astype(int) - masks).mean() < 2


@pytest.mark.parametrize("trim", [(0.5, 0.75), (-1.0, 0.0), (0.0, 0.5)])
def test_a_trim_is_kept(trim, comfyui, clips):
    prefix = f"video/trim{abs(trim[0]):g}{trim[1]:g}"
    comfyui.run(workflow(trim=trim, filename_prefix=prefix, output="over color", colors="off"))
    clip, _ = results(comfyui, prefix)
    pixels, times = frames_of(clip)
    begin = trim[0] % 2
    count = round((trim[1] or 2 - begin) * RATE)
    assert len(pixels) == count and times[0] == 0
    assert sound_of(clip)[0] == pytest.approx(count / RATE, abs=0.1)


@pytest.mark.parametrize("width", [WIDTH, WIDTH - 3])
def test_images_with_sound_made_into_a_video_arrive(width, comfyui, clips):
    nodes = {
        **workflow(filename_prefix=f"video/made{width}x", output="ProRes with alpha", colors="off"),
        "5": node("GetVideoComponents", video=["1", 0]),
        "7": node("ImageCrop", image=["5", 0], width=width, height=HEIGHT, x=0, y=0),
        "6": node("CreateVideo", images=["7", 0], fps=29.97, audio=["5", 1]),
    }
    nodes["3"]["inputs"]["video"] = ["6", 0]
    comfyui.run(nodes)
    clip, _ = results(comfyui, f"video/made{width}x")
    pixels, times = frames_of(clip)
    given = frames_of(clips / "clip.mp4")[0][:, :, :width]
    assert pixels.shape == (24, HEIGHT, width, 4) and sound_of(clip)[0] == pytest.approx(2.0, abs=0.1)
    assert times == pytest.approx(np.arange(24) / 29.97, abs=1e-3)
    seen = pixels[..., 3:] > 250
    assert np.abs(pixels[..., :3].astype(int) - given[..., :3])[np.broadcast_to(seen, pixels[..., :3].shape)].mean() < 3


def test_comfyui_reads_our_alpha_and_saves_composites_and_masks(comfyui, clips):
    """ProRes comes back with alpha; Save Video takes what MP4 can hold."""
    nodes = {
        **workflow(output="over color", filename_prefix=""),
        "5": node("SaveVideo", video=["3", 0], filename_prefix="video/saved", format="auto", codec="auto"),
        "6": node("SaveVideo", video=["3", 1], filename_prefix="video/savedmask", format="auto", codec="auto"),
    }
    shown = comfyui.run(nodes)["3"]["images"][0]
    assert shown["type"] == "temp" and (comfyui.base / "temp" / shown["filename"]).is_file()
    saved, mask = (next((comfyui.base / "output" / "video").glob(f"{name}_0*")) for name in ("saved", "savedmask"))
    assert len(frames_of(saved)[0]) == 24 and sound_of(saved)[1] == "aac"
    assert len(frames_of(mask)[0]) == 24


def test_progress_comes_with_previews_and_the_time_left(comfyui, clips):
    websocket = pytest.importorskip("websocket")
    client = websocket.create_connection(f"{comfyui.url.replace('http', 'ws')}/ws?clientId=video", timeout=60)
    prompt = comfyui.submit(workflow(filename_prefix="", color="#010203"), client="video")
    texts, previews, frames = [], 0, []
    while True:
        message = client.recv()
        if isinstance(message, bytes):
            previews += b"\xff\xd8\xff" in message[:200]  # how a JPEG begins
            texts += [message] if b" per second" in message else []
            continue
        message = json.loads(message)
        if message["type"] == "progress" and message["data"]["node"] == "3":
            frames.append((message["data"]["value"], message["data"]["max"]))
        if message["type"] == "executing" and message["data"]["node"] is None:
            break
    client.close()
    comfyui.wait(prompt)
    assert frames[0] == (1, 24) and frames[-1] == (24, 24)
    assert previews and texts[0].endswith(b"left") and b"1 of 24 frames" in texts[0]


def test_a_cancelled_run_leaves_nothing(comfyui, clips):
    write_clip(clips / "long.mp4", 600)
    prompt = comfyui.submit(workflow("long.mp4", filename_prefix="cancelled/clip"))
    folder = comfyui.base / "output" / "cancelled"
    end = time.monotonic() + 120
    while not (folder.is_dir() and list(folder.iterdir())) and time.monotonic() < end:
        time.sleep(0.1)
    assert list(folder.iterdir()), "it never began to write"
    comfyui.request("/interrupt", b"{}")
    entry = comfyui.wait(prompt)
    assert "execution_interrupted" in dict(entry["status"]["messages"])
    assert not list(folder.iterdir())
    assert not list((comfyui.base / "temp").glob("birefnet_*/*"))


def test_a_clip_that_is_none_is_told(comfyui, clips):
    (clips / "broken.mp4").write_bytes(b"no clip at all")
    error = error_of(comfyui, workflow("broken.mp4"))
    assert error["node_type"] == "BiRefNetSegmentVideo" and "Expected a video file" in error["exception_message"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_clip(start_comfyui, tmp_path):
    """Peak resident memory for ten times the frames, in a server of its own each."""
    peaks = []
    for frames in (120, 1200):
        server = start_comfyui(HF_HUB_OFFLINE="1")
        write_clip(server.base / "input" / "clip.mp4", frames, *MEMORY_SIZE)
        entry = server.wait(server.submit(workflow(output="ProRes with alpha", colors="off")), 3600)
        assert entry["status"]["status_str"] == "success", entry
        assert len(frames_of(results(server, "video/test")[1], "gray")[0]) == frames
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        peaks.append(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]))
        server.stop()
    print(f"peak {peaks[0] / 2**20:.3f} and {peaks[1] / 2**20:.3f} GiB")
    assert peaks[1] <= 1.15 * peaks[0]
