"""Memory does not grow with the clip."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import av

ROOT = Path(__file__).resolve().parents[2]
MOST = 1.15

HALVES = """
import resource, sys
sys.path.insert(0, "tests/video")
from conftest import KnownMasks
from pathlib import Path
from birefnet_core.video import Output, VideoOptions, segment_video

clip = Path(sys.argv[1])
outputs = [
    Output(path=clip.with_suffix(".mov")),
    Output(path=clip.with_suffix(".mp4"), kind="composite", background=clip),
]
peaks = []
segment_video(
    KnownMasks(), clip, outputs, options=VideoOptions(colors=None),
    progress=lambda state: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
)
print(peaks[69], peaks[-1])
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


def test_memory_stays_the_same_once_the_queues_are_full(tmp_path):
    """The second 80 frames would take 14 MB as bytes and 55 MB as floats. Encoders look 60 frames ahead."""
    draw(tmp_path / "clip.avi", 150, 320, 180)
    early, late = map(int, run(HALVES, tmp_path / "clip.avi")[0].split())
    assert late - early < 10_000  # KiB


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
