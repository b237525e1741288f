"""Cuts the subjects of photographs out with GrabCut, for ``render.py``.

    python tools/synthetic_pairs/cut_photographs.py --sources DIR

Writes DIR/subjects/NAME.png, the whole photograph with the subject's mask as alpha, for the photographs named in
photo_subjects.txt: those where GrabCut, started from an ellipse in the middle, found the subject, as judged
by eye. They teach a network trained on composites what a subject in its own photograph looks like.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

NAMES = Path(__file__).resolve().with_name("photo_subjects.txt")
SIDE = 320  # pixels, longest side; what the previews of most sources have
ROUNDS = 6
LEAST_PART = 0.02  # of the image; smaller parts of the subject are taken for mistakes
SOFTNESS = 0.8  # pixels; GrabCut's masks are binary


def cut(pixels: np.ndarray) -> np.ndarray:
    """H, W, 3 bytes (RGB) -> H, W bytes, 255 on the subject."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot((x - width / 2) / (width / 2), (y - height * 0.55) / (height / 2))
    labels = np.where(distance < 0.62, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    rim = max(3, int(0.03 * width))
    labels[:rim] = labels[:, :rim] = labels[:, -rim:] = cv2.GC_BGD  # a subject may leave the image at the bottom
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    cv2.grabCut(bgr, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    subject = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(subject)
    large = 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] > LEAST_PART * subject.size)
    subject = np.isin(parts, large).astype(np.float32)
    return np.round(255 * cv2.GaussianBlur(subject, (0, 0), SOFTNESS)).astype(np.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, required=True, help="folder with photographs/")
    args = parser.parse_args()
    names = NAMES.read_text(encoding="utf-8").split()
    found = [path for name in names if (path := args.sources / "photographs" / name).exists()]
    if not found:
        parser.error(f"{args.sources}: none of the {len(names)} photographs is in photographs/")
    out = args.sources / "subjects"
    out.mkdir(exist_ok=True)
    for path in found:
        with Image.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail((SIDE, SIDE))
            pixels = np.asarray(image)
        Image.fromarray(np.dstack([pixels, cut(pixels)])).save(out / f"{path.name}.png")
    print(f"{len(found)} of {len(names)} photographs cut out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
