"""Renders training pairs like those of DIS5K: slender and complex subjects with exact soft masks.

    python tools/synthetic_pairs/render.py --out DIR [--count N] [--val N] [--size N] [--seed N] [--hard X]
                                           [--photographic X] [--workers N] [--sources DIR | --simple]

Writes DIR/train/{im,gt} and DIR/val/{im,gt}. A pair depends on the seed and its number alone: an interrupted
rendering is resumed, and a longer set begins with a shorter one. Another seed, size or share needs another folder.
Needs OpenCV. ``--sources`` names a folder with ``cutouts/`` (images with an alpha channel), ``photographs/`` and, made
from these by cut_photographs.py, ``subjects/``; docs/demo_checkpoint.md lists those the demo checkpoint was trained
with. Nothing is downloaded. ``--simple`` renders light shapes on dim grounds, for docs/ablation.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.synthetic_pairs.scene import scene, simple_scene
from tools.synthetic_pairs.sources import SPLITS, Sources, find_sources

QUALITIES = (55, 98)  # of the JPEGs
LEAST_SIZE = 8  # pixels; in fewer there is no subject
SETTINGS = "render.json"  # beside the two sets


def render(
    number: int, *, seed: int, split: str, size: int, hard: float, photographic: float, sources: Sources, simple: bool,
    out: Path,
) -> None:  # fmt: skip
    """Writes one pair, unless it is already there.

    Args:
        number: Number of the pair in its split.
        seed: Of the whole set.
        split: "train" or "val".
        size: Side in pixels.
        hard: Share of hard scenes, 0 to 1.
        photographic: Share of photographs' own subjects beyond those among the others, 0 to 1.
        sources: Files the scenes are made of.
        simple: Light shapes on dim grounds instead.
        out: Folder of the set.
    """
    image, mask = out / split / "im" / f"{number:06d}.jpg", out / split / "gt" / f"{number:06d}.png"
    if image.exists() and mask.exists():
        return
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    if simple:
        colours, alpha = simple_scene(rng, split, size)
    else:
        colours, alpha = scene(rng, sources, split, size, hard, photographic)
    bgr = np.round(colours[..., ::-1] * 255).astype(np.uint8)
    write(image, bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*QUALITIES))])
    write(mask, np.round(alpha * 255).astype(np.uint8), [])


def write(path: Path, pixels: np.ndarray, options: Sequence[int] = ()) -> None:
    """Whole or not at all."""
    part = path.with_suffix(f".part{path.suffix}")
    if not cv2.imwrite(str(part), pixels, options):
        raise OSError(f"{path}: could not be written; is there room on the disk?")
    part.replace(path)


def settings_of(folder: Path) -> dict[str, object] | None:
    """How the pairs in a folder were rendered; None where there are none, or by a version that did not say it."""
    try:
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8192, help="training pairs (%(default)s)")
    parser.add_argument("--val", type=int, default=256, help="validation pairs (%(default)s)")
    parser.add_argument("--size", type=int, default=320, help="side in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hard", type=float, default=1.0, help="share of hard scenes, 0 to 1 (%(default)s)")
    parser.add_argument(
        "--photographic", type=float, default=0.0, help="share of photographs' own subjects, 0 to 1 (%(default)s)"
    )
    parser.add_argument("--sources", type=Path, help="folder with cutouts/, photographs/, subjects/")
    parser.add_argument("--simple", action="store_true", help="light shapes on dim grounds, without any sources")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.sources is not None and not args.sources.is_dir():
        parser.error(f"--sources {args.sources}: no such folder")
    for name in ("hard", "photographic"):
        if not 0 <= getattr(args, name) <= 1:
            parser.error(f"--{name} {getattr(args, name):g}: expected a share in 0 ... 1")
    for name, least in (("count", 0), ("val", 0), ("size", LEAST_SIZE), ("workers", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)}: expected {least} or more")
    how = {name: getattr(args, name) for name in ("seed", "size", "hard", "photographic", "simple")}
    if (before := settings_of(args.out)) not in (None, how):
        words = ", ".join(f"{name} {value}" for name, value in before.items() if value != how.get(name))
        parser.error(f"--out {args.out}: holds pairs of another kind ({words}), which would stay; give another folder")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / SETTINGS).write_text(json.dumps(how), "utf-8")
    for split, count in zip(SPLITS, (args.count, args.val), strict=True):
        sources = find_sources(args.sources, split)
        for folder in ("im", "gt"):
            (args.out / split / folder).mkdir(parents=True, exist_ok=True)
        job = partial(render, **how, split=split, sources=sources, out=args.out)
        print(f"{split}: {count} pairs from {len(sources.cutouts)} cut-outs, {len(sources.photographs)} photographs "
              f"and {len(sources.subjects)} photographs' own subjects")  # fmt: skip
        with ProcessPoolExecutor(args.workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for _ in pool.map(job, range(count), chunksize=16):
                pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
