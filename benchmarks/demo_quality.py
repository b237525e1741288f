"""Scores of the demo checkpoint on rendered pairs it has never seen, beside methods that learn nothing.

    python tools/synthetic_pairs/render.py --out pairs --count 0 --val 320 --sources SOURCES
    python benchmarks/demo_quality.py --pairs pairs/val [MORE ...] [--model demo [MORE ...]] [--limit 320]

GrabCut starts from an ellipse in the middle of the image; Otsu's threshold takes for the subject what the image's
rim is not. Prints a table of the paper's metrics, and two of haze: the mean of a mask over what is background in the
label ("on background"), and the fraction of its pixels that are above 0 and below 0.1 ("faint").
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import birefnet_core as bc  # noqa: E402
from birefnet_core.images import read_image, write_mask  # noqa: E402
from tools.synthetic_pairs.cut_photographs import cut  # noqa: E402

METRICS = ("maxF", "wF", "Sm", "meanE", "MAE")
COLUMNS = (*METRICS, "on background", "faint")
Method = Callable[[torch.Tensor], torch.Tensor]  # H W 3 in [0, 1] -> H W in [0, 1]


def grabcut(image: torch.Tensor) -> torch.Tensor:
    """GrabCut from an ellipse in the middle."""
    return torch.from_numpy(cut(_bytes(image)).astype(np.float32) / 255)


def otsu(image: torch.Tensor) -> torch.Tensor:
    """Otsu's threshold of the grey image; the rim is background."""
    grey = cv2.cvtColor(_bytes(image), cv2.COLOR_RGB2GRAY)
    _, mask = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    return torch.from_numpy((1 - mask if rim > 0.5 else mask).astype(np.float32))


def network(model: str) -> Method:
    """A checkpoint at its training size."""
    segment = bc.Segmenter(bc.load_model(model))
    return lambda image: segment(image[None])[0]


def haze(mask: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    """Mean of a mask over the label's background, and the fraction of its pixels between 0 and 0.1: H W each."""
    faint = (mask > 0.5 / 255) & (mask < 0.1)  # what an 8-bit file holds as above 0
    background = label == 0
    return float(mask[background].mean()) if background.any() else 0.0, float(faint.float().mean())


def score(method: Method, images: list[Path], masks: Path) -> dict[str, float]:
    """Scores of a method over all pairs."""
    hazes = []
    with tempfile.TemporaryDirectory() as folder:
        predictions, truth = Path(folder) / "pred", Path(folder) / "gt"
        truth.mkdir()
        for path in images:
            mask = method(read_image(path))
            write_mask(predictions / f"{path.stem}.png", mask)
            label = cv2.imread(str(masks / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
            hazes.append(haze(mask, torch.from_numpy(label)))
            (truth / f"{path.stem}.png").symlink_to((masks / f"{path.stem}.png").resolve())
        on_background, fraction = np.mean(hazes, axis=0)
        table = bc.evaluate(predictions, truth, metrics=METRICS)
        return {**table, "on background": float(on_background), "faint": float(fraction)}


def _bytes(image: torch.Tensor) -> np.ndarray:
    return (image.numpy() * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help="folders with im/ and gt/")
    parser.add_argument("--model", nargs="+", default=["demo"], help="names or files (%(default)s)")
    parser.add_argument("--limit", type=int, default=320, help="pairs of each folder (%(default)s)")
    args = parser.parse_args()
    methods: dict[str, Method] = {Path(model).name: network(model) for model in args.model}
    methods |= {"GrabCut": grabcut, "Otsu": otsu}
    print(f"| pairs | method | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for folder in args.pairs:
        images = sorted((folder / "im").iterdir())[: args.limit]
        for name, method in methods.items():
            scores = score(method, images, folder / "gt")
            columns = " | ".join(f"{scores[key]:.3f}" for key in COLUMNS)
            print(f"| {len(images)} of {folder} | {name} | {columns} |", flush=True)


if __name__ == "__main__":
    main()
