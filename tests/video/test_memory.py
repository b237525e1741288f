"""Memory does not grow with the clip."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import av

ROOT = Path(__file__).resolve().parents[2]
MOST = 1.15

SHORT_AND_LONG = """
import resource, sys
sys.path.insert(0, "tests/video")
from conftest import KnownMasks
from pathlib import Path
from birefnet_core.video import Output, VideoOptions, segment_video

folder = Path(sys.argv[1])
for name in ("short", "long"):
    outputs = [
        Output(path=folder / f"{name}.mov"),
        Output(path=folder / f"{name}.mp4", kind="composite", background=folder / "short.avi"),
    ]
    segment_video(KnownMasks(), folder / f"{name}.avi", outputs, options=VideoOptions(colors=None))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

ONE_CLIP = """
import resource, sys
import torch
import birefnet_core as bc
from pathlib import Path
from birefnet_core.video import Output, segment_video

segmenter = bc.Segmenter(bc.load_model("demo", device="cpu", dtype=torch.float32))
report = segment_video(segmenter, sys.argv[1], Output(path=Path(sys.argv[1]).with_suffix(".mov")))
print(report.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, report.frames_per_second, report.stages)
"""


def draw(path, frames, width, height):
    """FFmpeg's test picture."""
    graph = av.filter.Graph()
    source = graph.add("testsrc2", f"size={width}x{height}:rate=24")
    convert = graph.add("format", "yuv420p")
    sink = graph.add("buffersink")
    source.link_to(convert)
    convert.link_to(sink)
    graph.configure()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        for number in range(frames):
            frame = graph.pull()
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_memory_is_that_of_a_short_clip(tmp_path):
    """The first clip fills every queue; 120 frames more would take 21 MB as bytes and 83 MB as floats."""
    draw(tmp_path / "short.avi", 40, 320, 180)
    draw(tmp_path / "long.avi", 160, 320, 180)
    short, long, *_ = (int(line) for line in run(SHORT_AND_LONG, tmp_path) if line)
    assert long - short < 16_000  # KiB


@pytest.mark.slow
def test_1200_frames_of_720p_need_the_memory_of_120(tmp_path):
    peaks = {}
    for frames in (120, 1200):
        draw(tmp_path / f"{frames}.avi", frames, 1280, 720)
        found, peak, *_ = run(ONE_CLIP, tmp_path / f"{frames}.avi")[0].split(" ", 2)
        assert int(found) == frames
        peaks[frames] = int(peak)
    print(peaks)
    assert peaks[1200] < MOST * peaks[120]
