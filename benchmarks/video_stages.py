"""Frames per second of `birefnet_core.video` end to end, and where the time goes.

    python benchmarks/video_stages.py [--clip CLIP] [--model demo] [--device auto] [--dtype auto] [--size N]
        [--outputs cutout.mov cutout.webm over.mp4 mask.mkv] [--frames 120] [--width 1920 --height 1080]
        [--batch-size 1] [--temporal-radius 0] [--runs 3]

Without --clip, an H.264 clip is made of a photograph that moves. Each output is a run of its own: its ending and its
name (cutout, over, mask) say what it is. "fps" is the median of the runs. The other columns are milliseconds each
stage worked on a frame, and in brackets their part of the time of a frame end to end: decoding and encoding run in
threads beside the rest, so the parts may add up to more than 100 %. "network" is everything between the frame and its
mask. On a GPU the parts come from one more run, in which the host waits for the device at the end of each stage.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import av
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import birefnet_core as bc  # noqa: E402
from birefnet_core.devices import DTYPES, choose_device, choose_dtype  # noqa: E402
from birefnet_core.masks import RefineOptions  # noqa: E402
from birefnet_core.video import Output, VideoOptions, VideoReport, segment_video  # noqa: E402

KINDS = {"cutout": "cutout", "over": "composite", "mask": "mask"}
# Column -> stages of a report. Those of backgrounds ("decode background") and outputs begin with the name.
COLUMNS = {
    "decode": ("decode",), "network": ("segment", "motion"), "refine": ("smooth", "refine"), "colour": ("colour",),
    "compose": ("compose",), "encode": ("encode",),
}  # fmt: skip
PHOTO = ROOT / "tests/fixtures/photos/astronaut.jpg"


def make_clip(path: Path, frames: int, width: int, height: int) -> None:
    """An H.264 clip: a photograph that moves by a pixel or two for each frame, with noise as of a camera."""
    photo = Image.open(PHOTO).convert("RGB").resize((width + 2 * frames, height + frames))
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 1))
    pixels = np.asarray(photo, dtype=np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(frames):
            image = pixels[t : t + height, 2 * t : 2 * t + width] + np.roll(noise, 7 * t, axis=(0, 1))
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@contextlib.contextmanager
def device_waited_for(device: torch.device) -> Iterator[None]:
    """Stages end when the device has done their work, not when they have asked for it."""
    if device.type != "cuda":
        yield
        return
    plain = VideoReport.stage

    @contextlib.contextmanager
    def stage(report: VideoReport, name: str) -> Iterator[None]:
        with plain(report, name):
            yield
            if not name.startswith(("decode", "encode")):  # of other threads
                torch.cuda.synchronize(device)

    with mock.patch.object(VideoReport, "stage", stage):
        yield


def row(reports: list[VideoReport], parts: VideoReport) -> str:
    """The columns of an output: frames per second of all runs, and parts of one of them."""
    rate, frame = statistics.median(r.frames_per_second for r in reports), parts.seconds / parts.frames
    cells = [f"{rate:.2f}", f"{1000 * frame:.1f}"]
    for stages in COLUMNS.values():
        seconds = sum(s for name, s in parts.stages.items() if name.partition(" ")[0] in stages) / parts.frames
        cells.append(f"{1000 * seconds:.1f} ({100 * seconds / frame:.0f} %)")
    return " | ".join(cells)


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Prints the table."""
    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    model = bc.load_model(args.model, device=device, dtype=dtype, fused=True)
    segmenter = bc.Segmenter(model, batch_size=args.batch_size)
    clip = args.clip or folder / "clip.mp4"
    if args.clip is None:
        make_clip(clip, args.frames, args.width, args.height)
    refine = RefineOptions(temporal_radius=args.temporal_radius)
    options = VideoOptions(size=args.size, refine=refine, overwrite=True)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.model}, {dtype}, {where}, batch {args.batch_size}, {clip.name}\n")
    print(f"| output | frames | fps | ms a frame | {' | '.join(COLUMNS)} |")
    print("|---" * (4 + len(COLUMNS)) + "|")
    for name in args.outputs:
        kind = KINDS[Path(name).stem]
        output = Output(path=folder / name, kind=kind, background="#00b140" if kind == "composite" else None)

        def run(output: Output = output) -> VideoReport:
            return segment_video(segmenter, clip, output, options=options)

        run()  # the first image of a size sets everything up
        reports = [run() for _ in range(args.runs)]
        parts = min(reports, key=lambda r: r.seconds)
        if device.type == "cuda":
            with device_waited_for(device):
                parts = run()
        print(f"| {name} | {parts.frames} | {row(reports, parts)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, help="instead of one that is made")
    parser.add_argument("--model", default="demo", help="name or file (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=("auto", *DTYPES))
    parser.add_argument("--size", type=int, help="of the network's input; default: the training size")
    parser.add_argument("--outputs", nargs="+", default=["cutout.mov", "cutout.webm", "over.mp4", "mask.mkv"])
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--temporal-radius", type=int, default=0)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    if unknown := [name for name in args.outputs if Path(name).stem not in KINDS]:
        parser.error(f"--outputs {', '.join(unknown)}: expected names beginning with {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


if __name__ == "__main__":
    main()
