"""Memory of a video: Segmenter on one frame and on many, peak above inputs and outputs.

    python benchmarks/frames.py [--frames 64] [--size 256] [--modes plain flip region tiled]

Each measurement is a process of its own, with a small untrained network, so that the frames weigh more than the
network does. "before" is the resident size with the network and all frames in memory; the peak is the process's
largest resident size; "above" is the peak without what was there before and without the masks. Untrained, the
network is sure of nothing, so every tile is run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

HEIGHT, WIDTH = 720, 1280
MODES = {
    "plain": {},
    "flip": {"flip": True},
    "region": {"region": (300, 100, 600, 500)},
    "tiled": {"tiled": True},
}


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(mode: str, frames: int, size: int, batch_size: int) -> dict:
    """Runs once and reports. Runs in a process of its own."""
    import torch

    import birefnet_core as bc

    torch.manual_seed(0)
    model = bc.prepare(bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0")).eval())
    segment = bc.Segmenter(model, batch_size=batch_size)
    images = torch.empty(frames, HEIGHT, WIDTH, 3)
    for image in images:
        image.copy_(torch.rand(HEIGHT, 1, 3))
    before, start = resident_mb(), time.perf_counter()
    masks = segment(images, size, **MODES[mode])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    outputs = masks.numel() * masks.element_size() / 2**20
    return {"before": before, "outputs": outputs, "peak": peak, "above": peak - before - outputs, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--modes", nargs="+", default=["plain", "flip", "region"], choices=MODES)
    parser.add_argument("--measure", nargs=2, metavar=("MODE", "FRAMES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]), args.size, args.batch_size)))
        return
    print("| mode | frames | before MB | masks MB | peak MB | above MB | seconds |")
    print("|---|---|---|---|---|---|---|")
    for mode in args.modes:
        for frames in (1, args.frames):
            command = [sys.executable, __file__, "--measure", mode, str(frames)]
            command += ["--size", str(args.size), "--batch-size", str(args.batch_size)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            columns = (f"{found[key]:.1f}" for key in ("before", "outputs", "peak", "above", "seconds"))
            print(f"| {mode} | {frames} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
