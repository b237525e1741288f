"""Photographs through the whole pipeline: load a model, segment, write masks, cut-outs and new backgrounds.

    python examples/demo.py [--output DIR] [--model demo | BiRefNet_lite | FILE] [--images FILE ...] [--sheet FILE]

Without more flags it takes the small checkpoint that comes with the pack, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

import birefnet_core as bc  # noqa: E402
from birefnet_core.cli.outputs import Inputs, Outputs, prepare_file  # noqa: E402
from birefnet_core.images import read_image, to_bytes, write_image, write_mask  # noqa: E402
from birefnet_core.masks import over_checkerboard, over_image  # noqa: E402

DEMO_NOTE = """\
This is the small checkpoint that comes with the pack ({size:.0f} MB, nothing is downloaded), here at {side} x {side}.
The published ones are better, above all at hair and in crowded pictures, for instance
--model BiRefNet_lite, or make demo MODEL=BiRefNet_lite (178 MB from the Hugging Face Hub, once)."""

PHOTOS = [ROOT / "examples" / f"{name}.jpg" for name in ("portrait", "swan", "taxi", "snowboarder", "plant")]
KINDS = ("mask", "cutout", "new_background")  # of results
SHEET = "contact_sheet.jpg"
SIDE, GAP = 240, 6  # of the contact sheet's pictures and between them, in pixels


def backdrop(height: int, width: int) -> Tensor:
    """1, H, W, 3: a new background, from dusk blue to sand, lighter in the middle."""
    y, x = torch.linspace(0, 1, height)[:, None, None], torch.linspace(-1, 1, width)[None, :, None]
    top, bottom = torch.tensor([0.16, 0.30, 0.48]), torch.tensor([0.93, 0.80, 0.62])
    glow = torch.exp(-(x**2) - ((y - 0.6) * 2) ** 2)
    return (top + (bottom - top) * y + 0.12 * glow).clamp(0, 1)[None]


def contact_sheet(panels: list[list[Tensor]]) -> Tensor:
    """Rows of pictures H, W, 3, each fitted into a white square: one picture H, W, 3."""
    rows = [torch.cat([F.pad(_fitted(panel), (0, 0, 0, GAP), value=1.0) for panel in row], dim=1) for row in panels]
    return torch.cat([F.pad(row, (0, 0, 0, 0, 0, GAP), value=1.0) for row in rows])[:-GAP, :-GAP]


def _fitted(picture: Tensor) -> Tensor:
    """H, W, 3 -> SIDE, SIDE, 3."""
    height, width = picture.shape[:2]
    size = [round(side * SIDE / max(height, width)) for side in (height, width)]
    x = F.interpolate(picture.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
    top, left = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    return F.pad(x, (left, SIDE - size[1] - left, top, SIDE - size[0] - top), value=1.0)[0].permute(1, 2, 0)


def check_outputs(args: argparse.Namespace) -> None:
    """Makes sure that no photograph is replaced, and no result by another."""
    inputs, outputs = Inputs(args.images), Outputs()
    wanted = [args.output / f"{path.stem}_{kind}.png" for path in args.images for kind in KINDS]
    for path in (*wanted, args.sheet):
        prepare_file(path, "--sheet" if path == args.sheet else "--output", inputs, outputs, streams=path == args.sheet)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, nargs="+", default=PHOTOS)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--model", default="demo", help="catalogue name, hub repo id or file of trained weights")
    parser.add_argument("--sheet", type=Path, help=f"all results side by side ({SHEET} in the output folder)")
    args = parser.parse_args()
    args.sheet = args.sheet or args.output / SHEET
    panels = []
    try:
        check_outputs(args)
        model = bc.load_model(args.model)
        if args.model == "demo":
            file = Path(model.checkpoint.path)
            print(DEMO_NOTE.format(size=file.stat().st_size / 1e6, side=model.checkpoint.training_size[0]))
        segment = bc.Segmenter(model)
        for path in args.images:
            image = read_image(path)[None, ..., :3]  # 1 H W 3
            start = time.perf_counter()
            mask = segment(image)  # 1 H W
            seconds = time.perf_counter() - start
            colours = bc.estimate_foreground(image, mask)  # 1 H W 3
            placed = over_image(colours, mask, backdrop(*mask.shape[1:]))
            write_mask(args.output / f"{path.stem}_mask.png", mask[0])
            write_image(args.output / f"{path.stem}_cutout.png", torch.cat([colours, mask[..., None]], dim=-1)[0])
            write_image(args.output / f"{path.stem}_new_background.png", placed[0])
            grey, cut = mask[0, ..., None].expand(-1, -1, 3), over_checkerboard(colours, mask)[0]
            panels.append([image[0], grey, cut, placed[0]])
            print(f"{path.name}: {image.shape[2]} x {image.shape[1]} pixels, segmented in {seconds:.1f} s")
        Image.fromarray(to_bytes(contact_sheet(panels))).save(args.sheet, quality=90)
    except bc.BiRefNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Masks, cut-outs and new backgrounds are in {args.output}/; all on one sheet:\n{args.sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
