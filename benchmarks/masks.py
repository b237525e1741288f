"""Seconds and working memory of the mask operations on this CPU, as a Markdown table.

    python benchmarks/masks.py [--sizes 1024 2048] [--repeats 7] [--threads 2]
    python benchmarks/masks.py --against-opencv [--sizes 2048] [--repeats 7]
    python benchmarks/masks.py --errors

Each operation runs in a process of its own: one warm-up, then the median and the fastest of the repeats.
Memory is what the process held at its peak beyond its inputs, results included. With OpenCV installed, the
published blur fusion runs too, in float64 as published.

--against-opencv runs the two foreground estimations in turn with it, in one process. --errors shows how far from the
truth their colours are where the mask is soft, on composites of known layers.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from birefnet_core.masks import (
    RefineOptions,
    compare_masks,
    crop_to_subject,
    estimate_foreground,
    over_checkerboard,
    over_color,
    over_image,
    refine_mask,
    straight_rgba,
)
from birefnet_core.masks.components import label_components

Operation = Callable[[Tensor, Tensor], object]


def refine(**options) -> Operation:
    return lambda images, masks: refine_mask(masks, RefineOptions(**options), images)


def opencv_blur_fusion(images: Tensor, masks: Tensor) -> None:
    import cv2
    import numpy as np

    image, alpha = images[0].double().numpy(), masks[0].double().numpy()
    front = back = image
    share = alpha[..., None]
    for size in ((90, 90), (6, 6)):
        weight = cv2.blur(alpha, size)[..., None]
        front = cv2.blur(front * share, size) / (weight + 1e-5)
        back = cv2.blur(back * (1 - share), size) / (1 - weight + 1e-5)
        front = np.clip(front + share * (image - share * front - (1 - share) * back), 0, 1)


OPERATIONS: dict[str, Operation] = {
    "levels and threshold": refine(black_point=0.1, white_point=0.9, threshold=0.5),
    "keep the largest component": refine(keep_largest=True),
    "remove islands": refine(min_island_area=100),
    "fill holes": refine(max_hole_area=100),
    "label components": lambda images, masks: label_components(masks > 0.5, 8),
    "grow 5, circle": refine(grow=5),
    "grow 50, circle": refine(grow=50),
    "grow 50, square": refine(grow=50, grow_element="square"),
    "smooth edge 3": refine(smooth_edge=3.0),
    "guided filter, radius 8": refine(guided_radius=8),
    "guided filter, radius 60": refine(guided_radius=60),
    "feather 2": refine(feather=2.0),
    "feather 30": refine(feather=30.0),
    "temporal, radius 2, 3 frames": lambda images, masks: refine_mask(
        masks.repeat(3, 1, 1), RefineOptions(temporal_radius=2), images
    ),
    "foreground, multilevel": lambda images, masks: estimate_foreground(images, masks),
    "foreground, blur_fusion": lambda images, masks: estimate_foreground(images, masks, "blur_fusion"),
    "foreground, blur fusion in OpenCV": opencv_blur_fusion,
    "straight RGBA": straight_rgba,
    "over a colour": lambda images, masks: over_color(images, masks, "#336699"),
    "over an image of half the size": lambda images, masks: over_image(images, masks, images[:, ::2, ::2]),
    "over a checkerboard": over_checkerboard,
    "crop to the subject": lambda images, masks: crop_to_subject(images, masks, padding=16),
    "compare": lambda images, masks: compare_masks(masks, masks.flip(2)),
}


def inputs(size: int) -> tuple[Tensor, Tensor]:
    """A noisy picture and a subject of soft blobs, specks and holes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, size // 64, size // 64, generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[:, 0]
    masks = ((blobs - 0.45) * 10).clamp(0, 1)
    specks = torch.rand(masks.shape, generator=generator) > 0.999
    return torch.rand(1, size, size, 3, generator=generator), torch.where(specks, 1 - masks, masks)


def held_kilobytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() // 1024


def measure(name: str, size: int, repeats: int) -> None:
    """Prints median and fastest seconds and megabytes of one operation."""
    run = OPERATIONS[name]
    run(*inputs(256))  # libraries load and threads start before memory is read
    images, masks = inputs(size)
    before = held_kilobytes()
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run(images, masks)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = seconds[1:]
    print(f"{statistics.median(seconds):.3f} {min(seconds):.3f} {max(0, peak - before) / 1024:.0f}")


def against_opencv(sizes: list[int], repeats: int) -> None:
    """Prints medians of runs in turn, so that a busy machine slows all alike, and the ratios of their medians."""
    names = ["foreground, multilevel", "foreground, blur_fusion", "foreground, blur fusion in OpenCV"]
    print("| size | " + " | ".join(f"{name}: median s | fastest s" for name in names) + " | multilevel / OpenCV |")
    print("|---|" + "---|---|" * len(names) + "---|")
    for size in sizes:
        images, masks = inputs(size)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(repeats + 1):
            for name in names:
                start = time.perf_counter()
                OPERATIONS[name](images, masks)
                if turn:  # the first is a warm-up
                    seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        cells = [f"{medians[name]:.3f} | {min(seconds[name]):.3f}" for name in names]
        print(f"| {size} | " + " | ".join(cells) + f" | {medians[names[0]] / medians[names[2]]:.2f} |")


def errors(seeds: int = 4) -> None:
    """Prints mean absolute errors of the subject's colours."""
    from tests.masks.conftest import composite

    print("| seed | the image's colours | blur fusion | multilevel |\n|---|---|---|---|")
    for seed in range(seeds):
        scene = composite(seed)
        soft = (scene.alpha > 0) & (scene.alpha < 1)
        estimates = [scene.image] + [
            estimate_foreground(scene.image, scene.alpha, method) for method in ("blur_fusion", "multilevel")
        ]
        found = [(e - scene.foreground).abs().mean(dim=-1)[soft].mean().item() for e in estimates]
        print(f"| {seed} | " + " | ".join(f"{error:.4f}" for error in found) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--against-opencv", action="store_true", help="run the foreground estimations in turn")
    parser.add_argument("--errors", action="store_true", help="errors of the foreground estimations, not times")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        measure(arguments.one, arguments.sizes[0], arguments.repeats)
        return
    if arguments.errors:
        errors()
        return
    print(
        f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, {arguments.repeats} repeats\n"
    )
    if arguments.against_opencv:
        against_opencv(arguments.sizes, arguments.repeats)
        return
    print("| operation |" + "".join(f" {s}: median s | fastest s | MB |" for s in arguments.sizes))
    print("|---|" + "---|---|---|" * len(arguments.sizes))
    for name in OPERATIONS:
        cells = []
        for size in arguments.sizes:
            command = [sys.executable, __file__, "--one", name, "--sizes", str(size)]
            command += ["--repeats", str(arguments.repeats), "--threads", str(arguments.threads)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            cells += result.stdout.split() if result.returncode == 0 else ["-"] * 3
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
