"""Memory of a video: Segmenter on one frame and on many, peak above inputs and outputs.

    python benchmarks/frames.py [--frames 64] [--size 256] [--modes plain flip region tiled]
    python benchmarks/frames.py --against-single [--frames 32] [--size 256] [--rounds 3]

Each measurement is a process of its own that gives freed memory back at once, with a small untrained network, so that
the frames weigh more than the network does. "before" is the resident size with the network and all frames in memory;
the peak is the largest resident size from then on; "above" is the peak without what was there before and without the
masks. Untrained, the network is sure of nothing, so every tile is run.

--against-single times one call with all frames and one call a frame, in turn in one process: seconds, processor
seconds, and the median of the rounds' ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from resident import giving_back, watched

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

HEIGHT, WIDTH = 720, 1280
MODES = {
    "plain": {},
    "flip": {"flip": True},
    "region": {"region": (300, 100, 600, 500)},
    "tiled": {"tiled": True},
}


def prepared_frames(frames: int, batch_size: int) -> tuple:
    """A Segmenter with a small network, and frames H, W, 3 of stripes."""
    import torch

    import birefnet_core as bc

    torch.manual_seed(0)
    model = bc.fuse_for_inference(bc.BiRefNet(bc.BiRefNetConfig(backbone="pvt_v2_b0")).eval())
    images = torch.empty(frames, HEIGHT, WIDTH, 3)
    for image in images:
        image.copy_(torch.rand(HEIGHT, 1, 3))
    return bc.Segmenter(model, batch_size=batch_size), images


def measure(mode: str, frames: int, size: int, batch_size: int) -> dict:
    """Runs once and reports. Runs in a process of its own."""
    segment, images = prepared_frames(frames, batch_size)
    with watched() as memory:
        start = time.perf_counter()
        masks = segment(images, size, **MODES[mode])
        seconds = time.perf_counter() - start
    outputs = masks.numel() * masks.element_size() / 2**20
    found = {"before": memory.before, "outputs": outputs, "peak": memory.peak, "above": memory.above - outputs}
    return {**found, "seconds": seconds}


def print_against_single(frames: int, size: int, batch_size: int, rounds: int) -> None:
    """One call with all frames beside one call a frame."""
    segment, images = prepared_frames(frames, batch_size)
    segment(images[:1], size)
    wall, processor = [], []  # (all at once, one by one) of each round
    for _ in range(rounds):
        clocks = [(time.perf_counter(), time.process_time())]
        segment(images, size)
        clocks.append((time.perf_counter(), time.process_time()))
        for image in images:
            segment(image[None], size)
        clocks.append((time.perf_counter(), time.process_time()))
        for times, kind in ((wall, 0), (processor, 1)):
            times.append(tuple(clocks[i + 1][kind] - clocks[i][kind] for i in (0, 1)))
    print("| frames | clock | all at once s | one by one s | ratio |")
    print("|---|---|---|---|---|")
    for name, times in (("wall", wall), ("processor", processor)):
        together, apart = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(a / b for a, b in times)
        print(f"| {frames} | {name} | {together:.2f} | {apart:.2f} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--modes", nargs="+", default=["plain", "flip", "region"], choices=MODES)
    parser.add_argument("--against-single", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("MODE", "FRAMES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]), args.size, args.batch_size)))
        return
    if args.against_single:
        print_against_single(args.frames, args.size, args.batch_size, args.rounds)
        return
    print("| mode | frames | before MB | masks MB | peak MB | above MB | seconds |")
    print("|---|---|---|---|---|---|---|")
    for mode in args.modes:
        for frames in (1, args.frames):
            command = [sys.executable, __file__, "--measure", mode, str(frames)]
            command += ["--size", str(args.size), "--batch-size", str(args.batch_size)]
            result = subprocess.run(command, check=True, capture_output=True, text=True, env=giving_back())
            found = json.loads(result.stdout)
            columns = (f"{found[key]:.1f}" for key in ("before", "outputs", "peak", "above", "seconds"))
            print(f"| {mode} | {frames} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
