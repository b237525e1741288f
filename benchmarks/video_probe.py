"""Whether outputs of `birefnet_core.video` keep a clip's frames, times, sound and rotation, by ffprobe.

    python benchmarks/video_probe.py [--model demo] [--outputs cutout.mov cutout.webm over.mp4] [--keep FOLDER]

Needs the programs ffmpeg, which makes the clips, and ffprobe. Columns: frames; the largest difference of a frame's time
and of the clip's duration, in milliseconds; samples of the decoded sound; rotation in degrees and the size as stored,
which is the upright size where the file has no rotation. "in -> out" where the two differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import birefnet_core as bc  # noqa: E402
from birefnet_core.video import Output, VideoOptions, segment_video  # noqa: E402

SOUND = "sine=frequency=440:sample_rate=48000:duration={seconds}"
NO_SOUND = None
# Name -> source filter, file, codecs and options, sound.
CLIPS: dict[str, tuple[str, str, str, str | None]] = {
    "H.264": ("testsrc2=s=320x180:r=24:d=1.5", "a.mp4", "-c:v libx264 -c:a aac", SOUND),
    "H.264, variable rate": (
        "testsrc2=s=320x180:r=60:d=1.5,select='not(mod(n\\,3))+not(mod(n\\,7))'", "b.mp4",
        "-c:v libx264 -fps_mode vfr -c:a aac", SOUND,
    ),
    "H.264, rotated": ("testsrc2=s=320x180:r=25:d=1.2", "c.mp4", "-c:v libx264 -c:a aac", SOUND),
    "H.264, no sound, 29.97": ("mandelbrot=s=320x180:r=30000/1001", "d.mkv", "-t 1.2 -c:v libx264", NO_SOUND),
    "HEVC, 10 bits": ("testsrc2=s=320x180:r=25:d=1.2", "e.mp4", "-c:v libx265 -pix_fmt yuv420p10le -c:a aac", SOUND),
    "HEVC, odd size": ("testsrc=s=321x181:r=25:d=1.2", "f.mkv", "-c:v libx265 -pix_fmt yuv444p -c:a flac", SOUND),
    "VP9": ("testsrc2=s=320x180:r=30:d=1.2", "g.webm", "-c:v libvpx-vp9 -c:a libopus", SOUND),
    "ProRes": ("testsrc2=s=320x180:r=24000/1001:d=1.3", "h.mov", "-c:v prores_ks -profile:v 4 -c:a pcm_s16le", SOUND),
    "MJPEG": ("testsrc2=s=320x180:r=15:d=1.4", "i.avi", "-c:v mjpeg -pix_fmt yuvj420p -c:a mp3", SOUND),
    "GIF, odd size": ("testsrc=s=161x121:r=10:d=1.5", "j.gif", "", NO_SOUND),
    "MPEG-2, interlaced": (
        "testsrc2=s=320x180:r=25:d=1.2", "k.ts", "-c:v mpeg2video -flags +ildct+ilme -c:a mp2", SOUND,
    ),
}  # fmt: skip


class Probe(NamedTuple):
    """What ffprobe finds in a file."""

    times: list[float]
    end: float
    samples: int
    rotation: int
    size: tuple[int, int]


def run(*command: str) -> str:
    """The output of a program."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_clip(name: str, folder: Path) -> Path:
    """Makes a clip of the table."""
    source, file, options, sound = CLIPS[name]
    path = folder / file
    seconds = options.partition("-t ")[2].partition(" ")[0] or source.partition("d=")[2].partition(",")[0]
    audio = ["-f", "lavfi", "-i", sound.format(seconds=seconds)] if sound else []
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *audio, *options.split()]
    if "rotated" not in name:
        run(*command, str(path))
        return path
    run(*command, str(folder / "upright.mp4"))
    upright = ("-i", str(folder / "upright.mp4"), "-c", "copy")
    try:
        run("ffmpeg", "-v", "error", "-y", "-display_rotation", "90", *upright, str(path))
    except subprocess.CalledProcessError:  # before FFmpeg 6
        run("ffmpeg", "-v", "error", "-y", *upright, "-metadata:s:v:0", "rotate=90", str(path))
    return path


def probe(path: Path) -> Probe:
    """Decodes a file by ffprobe."""
    entries = (
        "frame=media_type,pts_time,duration_time,nb_samples:stream=codec_type,width,height:stream_side_data=rotation"
    )
    found = json.loads(run("ffprobe", "-v", "error", "-show_entries", entries, "-of", "json", str(path)))
    frames = [frame for frame in found["frames"] if frame.get("media_type") == "video"]
    video = next(stream for stream in found["streams"] if stream["codec_type"] == "video")
    times = [float(frame["pts_time"]) for frame in frames]
    rotation = next((int(data["rotation"]) for data in video.get("side_data_list", []) if "rotation" in data), 0)
    samples = sum(int(frame["nb_samples"]) for frame in found["frames"] if frame.get("media_type") == "audio")
    end = times[-1] + float(frames[-1].get("duration_time", 0))
    return Probe([t - times[0] for t in times], end - times[0], samples, rotation, (video["width"], video["height"]))


def row(first: Probe, then: Probe) -> str:
    """The columns for a clip and an output."""
    moved = max((abs(a - b) for a, b in zip(first.times, then.times, strict=False)), default=0)
    longer = 1000 * (then.end - first.end)
    shape = [f"{p.rotation}, {p.size[0]} x {p.size[1]}" for p in (first, then)]
    pairs = [(len(first.times), len(then.times)), (first.samples, then.samples), tuple(shape)]
    frames, samples, turned = (f"{a}" if a == b else f"{a} -> {b}" for a, b in pairs)
    return f"{frames} | {1000 * moved:.2f} | {longer:+.2f} | {samples} | {turned}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="name or file (%(default)s)")
    parser.add_argument("--outputs", nargs="+", default=["cutout.mov", "cutout.webm", "over.mp4"])
    parser.add_argument("--keep", type=Path, help="folder for clips and outputs")
    args = parser.parse_args()
    segmenter = bc.Segmenter(bc.load_model(args.model))
    options = VideoOptions(overwrite=True)
    columns = ("clip", "output", "frames", "times, ms", "duration, ms", "samples", "rotation, size")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in CLIPS:
            clip = make_clip(name, folder)
            first = probe(clip)
            for output in args.outputs:
                path = folder / f"{clip.stem}_{output}"
                kind, background = ("composite", "#00b140") if output.startswith("over") else ("cutout", None)
                segment_video(segmenter, clip, Output(path=path, kind=kind, background=background), options=options)
                print(f"| {name} | {output} | {row(first, probe(path))} |", flush=True)


if __name__ == "__main__":
    main()
