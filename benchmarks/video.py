"""Flicker of masks over time, frame by frame and smoothed, on rendered clips with known alpha and motion.

    python benchmarks/video.py [--sources SOURCES] [--model demo] [--clips NAME ...] [--frames 32] [--width 384]
                               [--radii 1 2 3] [--every 2 4 8] [--sheets DIR]
    python benchmarks/video.py --cuts [--sources SOURCES]
    python benchmarks/video.py --cost [--width 1280]

The clips are those of tools/synthetic_pairs/clips.py. Columns: flicker as ``metrics.flicker`` defines it, times 1000,
of the masks alone and of their errors; mean absolute error to the exact alpha, of all pixels and of those within
EDGE pixels of an edge, times 1000; S-measure. The second table is of ``Keyframes``: the share of the frames the network
ran on, and the mean difference to its masks where it runs on all, times 1000.
--cuts prints how many pairs of frames of one scene and of two are taken for a scene cut, and what decides it.
--cost prints milliseconds of the processor per frame of the flow and of the smoothing beside the network.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import birefnet_core as bc  # noqa: E402
from birefnet_core.image_ops import resize  # noqa: E402
from birefnet_core.masks.refine import RefineOptions, refine_mask  # noqa: E402
from birefnet_core.masks.windows import box_mean  # noqa: E402
from birefnet_core.metrics import score_masks  # noqa: E402
from birefnet_core.metrics.flicker import flicker  # noqa: E402
from birefnet_core.video.keyframes import Keyframes  # noqa: E402
from birefnet_core.video.motion import motion_between, small_copy, trust  # noqa: E402
from birefnet_core.video.scene_cuts import colour_distance, is_cut, structure_along  # noqa: E402
from birefnet_core.video.steady import TemporalFilter  # noqa: E402
from tools.synthetic_pairs.clips import CLIPS, Clip, render_clip  # noqa: E402
from tools.synthetic_pairs.sources import find_sources  # noqa: E402

EDGE = 4  # pixels
Method = Callable[[Tensor, Tensor], Tensor]  # frames T 3 H W, masks T H W -> T H W


def smoothed(radius: int) -> Method:
    """Motion-compensated smoothing."""

    def run(frames: Tensor, masks: Tensor) -> Tensor:
        steady, out = TemporalFilter(radius=radius), []
        for frame, mask in zip(frames, masks, strict=True):
            out += steady.push(frame, mask[None])
        return torch.cat([*out, *steady.flush()])

    return run


def averaged(radius: int) -> Method:
    """``temporal_radius`` of refine_mask: an average where nothing moves, without flow."""
    options = RefineOptions(temporal_radius=radius)
    return lambda frames, masks: refine_mask(masks, options, frames.movedim(1, -1))


def propagated(every: int, frames: Tensor, masks: Tensor) -> tuple[Tensor, float]:
    """The masks T, H, W where the network runs on keyframes only, and the share of the frames it ran on."""
    keyframes, out = Keyframes(every=every), []
    for frame, mask in zip(frames, masks, strict=True):
        out += keyframes.push(mask[None] if keyframes.wants(frame) else None)
    return torch.cat([*out, *keyframes.flush()]), keyframes.runs / keyframes.frames


def score(masks: Tensor, clip: Clip) -> dict[str, float]:
    """All columns for the masks T, H, W of a clip."""
    truths, motion, visible = (torch.from_numpy(x) for x in (clip.alphas, clip.motion, clip.visible))
    error = (masks - truths).abs()
    edges = torch.from_numpy((clip.alphas > 0.05) & (clip.alphas < 0.95)).float()
    edges = box_mean(edges, EDGE) > 1e-6
    shown = truths.mean(dim=(1, 2)) > 0.002  # S needs a subject
    return {
        "flicker": flicker(masks, motion, visible) * 1000,
        "flicker of errors": flicker(masks, motion, visible, truths) * 1000,
        "MAE": float(error.mean()) * 1000,
        "MAE at edges": float(error[edges].mean()) * 1000,
        "Sm": score_masks(masks[shown], truths[shown], ["Sm"])["Sm"],
    }


def columns(scores: dict[str, float], first: dict[str, float]) -> str:
    """The columns of a line; flicker also beside that of the first line."""
    less = "" if scores is first else f" ({100 * (scores['flicker'] / first['flicker'] - 1):+.0f} %)"
    errors = f"{scores['flicker of errors']:.2f} | {scores['MAE']:.2f} | {scores['MAE at edges']:.1f}"
    return f"{scores['flicker']:.2f}{less} | {errors} | {scores['Sm']:.4f}"


def sheet(path: Path, clip: Clip, rows: list[Tensor], frames: range) -> None:
    """Frames, truths and the masks of each method, one row each."""
    strips = [clip.images, np.repeat(clip.alphas[..., None], 3, -1)]
    strips += [np.repeat(masks.numpy()[..., None], 3, -1) for masks in rows]
    lines = [np.concatenate([strip[t] for t in frames if t < len(strip)], axis=1) for strip in strips]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(np.concatenate(lines) * 255).astype(np.uint8)).save(path)


def measure(args: argparse.Namespace) -> None:
    """The tables: of smoothing, then of keyframes."""
    sources, segment = find_sources(args.sources, "val"), bc.Segmenter(bc.load_model(args.model))
    methods: dict[str, Method] = {"frame by frame": lambda frames, masks: masks, "temporal_radius 2": averaged(2)}
    methods |= {f"radius {r}": smoothed(r) for r in args.radii}
    print("| clip | masks | flicker | of errors | MAE | at edges | S |\n|---|---|---|---|---|---|---|")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    keyed: dict[int, list[tuple[float, float, dict[str, float]]]] = {n: [] for n in args.every}
    for name in args.clips:
        clip = render_clip(CLIPS[name], sources, args.frames, args.width)
        frames = torch.from_numpy(clip.images).movedim(-1, 1)
        masks = torch.cat([segment(image[None]) for image in torch.from_numpy(clip.images)])
        exact = torch.from_numpy(clip.alphas)
        for label, truth in (("exact", exact), ("exact, radius 2", smoothed(2)(frames, exact))):
            scores = score(truth, clip)
            print(f"| {name} | {label} | {columns(scores, scores)} |")
        results = []
        for method, run in methods.items():
            results.append(run(frames, masks))
            found[method].append(score(results[-1], clip))
            print(f"| {name} | {method} | {columns(found[method][-1], found['frame by frame'][-1])} |", flush=True)
        for every in args.every:
            between, runs = propagated(every, frames, masks)
            results.append(between)
            keyed[every].append((runs, float((between - masks).abs().mean()) * 1000, score(between, clip)))
        if args.sheets:
            sheet(args.sheets / f"{name}.png", clip, results, range(8, 16))
    means = {method: _mean(rows) for method, rows in found.items()}
    for method, scores in means.items():
        print(f"| mean | {method} | {columns(scores, means['frame by frame'])} |")
    print("\n| clip | every | network runs | difference | flicker | of errors | MAE | at edges | S |")
    print("|---|---|---|---|---|---|---|---|---|")
    for every, rows in keyed.items():
        first = [*found["frame by frame"], means["frame by frame"]]
        mean = (float(np.mean([r[0] for r in rows])), float(np.mean([r[1] for r in rows])), _mean([r[2] for r in rows]))
        for name, (runs, difference, scores), scores_1 in zip([*args.clips, "mean"], [*rows, mean], first, strict=True):
            print(f"| {name} | {every} | {100 * runs:.0f} % | {difference:.2f} | {columns(scores, scores_1)} |")


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([scores[key] for scores in rows])) for key in rows[0]}


def cuts(args: argparse.Namespace) -> None:
    """Scene cuts: between consecutive frames of each clip, and from each clip to every other."""
    sources = find_sources(args.sources, "val")
    clips = [render_clip(CLIPS[name], sources, args.frames, args.width) for name in args.clips]
    small = [[small_copy(torch.from_numpy(image).movedim(-1, 0)) for image in clip.images] for clip in clips]
    within = [
        (frames[t - 1], frames[t])
        for clip, frames in zip(clips, small, strict=True)
        for t in range(1, len(frames))
        if t not in clip.cuts
    ]
    across = [(a[3], b[20 % len(b)]) for a, b in itertools.permutations(small, 2)]
    print("| pairs of frames | taken for a cut | correlation | histogram distance | trust |\n|---|---|---|---|---|")
    for name, pairs in (("of one scene", within), ("of two scenes", across)):
        found, rows = 0, []
        for earlier, later in pairs:
            motion = motion_between(earlier, later)
            found += is_cut(earlier, later, motion)
            trusted = (trust(earlier, later, motion).mean(), trust(later, earlier, motion.reversed()).mean())
            structure, distance = structure_along(earlier, later, motion), colour_distance(earlier, later)
            rows.append((structure, distance, float(max(trusted))))
        spans = (f"{min(column):.3f}, {max(column):.3f}" for column in zip(*rows, strict=True))
        print(f"| {len(pairs)} {name} | {found} | {' | '.join(spans)} |")


def cost(args: argparse.Namespace) -> None:
    """Milliseconds of the processor per frame, medians."""
    height, width = round(args.width * 0.5625), args.width
    coarse = torch.rand(12, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    frames = resize(coarse, (height, width))
    masks = frames[:, :1]
    segment, steady = bc.Segmenter(bc.load_model(args.model)), TemporalFilter(radius=2)
    small = [small_copy(frame) for frame in frames]
    steps: dict[str, Callable[[int], object]] = {
        "small copy": lambda t: small_copy(frames[t]),
        "flow, both ways": lambda t: motion_between(small[t - 1], small[t]),
        "radius 2, all": lambda t: steady.push(frames[t], masks[t]),
        f"network, {segment.training_size}": lambda t: segment(frames[t : t + 1].movedim(1, -1)),
    }
    print("| step | processor ms per frame |\n|---|---|")
    for name, step in steps.items():
        times = []
        for t in range(1, len(frames)):
            start = time.process_time()
            step(t)
            times.append(time.process_time() - start)
        print(f"| {name} | {1000 * float(np.median(times[3:])):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, help="folder with cutouts/, photographs/, subjects/")
    parser.add_argument("--model", default="demo", help="name or file (%(default)s)")
    parser.add_argument("--clips", nargs="+", choices=CLIPS, default=list(CLIPS))
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--width", type=int, default=384, help="pixels (%(default)s)")
    parser.add_argument("--radii", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--every", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--sheets", type=Path, help="where to put a picture of each clip")
    parser.add_argument("--cuts", action="store_true", help="count scene cuts instead")
    parser.add_argument("--cost", action="store_true", help="time the steps instead")
    args = parser.parse_args()
    (cost if args.cost else cuts if args.cuts else measure)(args)


if __name__ == "__main__":
    main()
