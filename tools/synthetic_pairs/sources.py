"""Images that scenes are made of: cut-outs with an alpha channel, and photographs.

Files belong to a split by their names, so that no split ever sees a image of another: the first hex digit of
sha1(name) is 0-3 for "outside" (kept for tests from outside, never rendered here), 4-5 for "val", 6-f for "train".
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageStat

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
SPLITS = ("train", "val")

# Photographs that scikit-image and scikit-learn bring. Not among them: those the pack shows as examples.
PACKAGED = {
    "skimage": ("data/brick.png", "data/coffee.png", "data/grass.png", "data/gravel.png", "data/hubble_deep_field.jpg",
                "data/ihc.png", "data/motorcycle_left.png", "data/retina.jpg", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}  # fmt: skip


def split_of(name: str) -> str:
    """The split of a file of that name."""
    digit = int(hashlib.sha1(name.encode()).hexdigest()[0], 16)
    return "outside" if digit < 4 else "val" if digit < 6 else "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Files of one split.

    Attributes:
        cutouts: Images with an alpha channel.
        photographs: Images for backgrounds and surfaces.
        subjects: Photographs with the mask of their own subject as alpha channel.
    """

    cutouts: tuple[Path, ...] = ()
    photographs: tuple[Path, ...] = ()
    subjects: tuple[Path, ...] = ()


def find_sources(folder: Path | None, split: str) -> Sources:
    """The files of a split: those in the folder's ``cutouts/``, ``photographs/`` and ``subjects/``, and packaged ones.

    Args:
        folder: Where the images lie; None for the packaged photographs only.
        split: "train" or "val".
    """
    found: dict[str, tuple[Path, ...]] = {}
    for kind in ("cutouts", "photographs", "subjects") if folder is not None else ():
        files = sorted(p for p in (folder / kind).rglob("*") if p.suffix.lower() in SUFFIXES)
        # A cut photograph is called as the photograph, with an ending of its own.
        found[kind] = tuple(p for p in files if split_of(p.stem if kind == "subjects" else p.name) == split)
    photographs = [path for path in found.pop("photographs", ()) if _is_photograph(path)]
    if split == "train":
        photographs += _packaged()
    return Sources(photographs=tuple(photographs), **found)


def _packaged() -> list[Path]:
    import importlib.util

    found = []
    for package, names in PACKAGED.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            found += [path for name in names if (path := Path(spec.origin).parent / name).exists()]
    return found


def _is_photograph(path: Path) -> bool:
    """Whether a image has surfaces in it, unlike a logo or a card with a few flat colours."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((48, 48), Image.Resampling.BILINEAR)
    colours = len(set(small.quantize(64, dither=Image.Dither.NONE).tobytes()))
    flat = sum(sorted(small.convert("L").histogram(), reverse=True)[:4]) / (48 * 48)
    return colours > 40 and flat < 0.45 and ImageStat.Stat(small.convert("L")).stddev[0] > 12


@functools.lru_cache(maxsize=4096)
def read(path: Path, longest: int, *, whole: bool = False) -> np.ndarray:
    """H, W, 4 bytes, straight alpha, no side longer than ``longest``; cut to what is opaque unless ``whole``."""
    with Image.open(path) as image:
        image = image.convert("RGBA")
        box = None if whole else image.getchannel("A").getbbox()
        image = image.crop(box) if box else image
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        return np.asarray(image)


def photograph(rng: np.random.Generator, path: Path, size: int, least: float = 0.45) -> np.ndarray:
    """A random square part of a photograph, maybe mirrored: N, N, 4 float32 in [0, 1], its alpha last.

    Args:
        rng: Random numbers.
        path: The photograph.
        size: N.
        least: Least side of the part, as a share of the photograph's shorter side.
    """
    pixels = read(path, 640, whole=True)
    height, width = pixels.shape[:2]
    side = max(8, int(min(height, width) * rng.uniform(least, 1.0)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    part = pixels[top : top + side, left : left + side]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    part = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    return part.astype(np.float32) / 255
