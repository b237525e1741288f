"""Draws the icon and the banner that the ComfyUI Registry shows, the banner with a result of the embedded checkpoint.

python tools/draw_registry_images.py [--image examples/portrait.jpg] [--model demo]
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

from PIL import Image, ImageDraw, ImageFont  # noqa: E402

import birefnet_core as bc  # noqa: E402
from birefnet_core.images import read_image, to_bytes  # noqa: E402
from birefnet_core.masks import over_image  # noqa: E402
from examples.demo import backdrop  # noqa: E402

ICON, BANNER = (400, 400), (1680, 720)  # of the Registry: square up to 400 x 400, and 21:9
DARK, LIGHT, BLUE, GREY = "#1f2430", "#f2f4f8", "#4f9dff", "#9aa3b5"
SMOOTH = 4  # drawn that much larger, then reduced
CELL = 50  # of the icon's checkerboard, in pixels
PANEL, GAP, MARGIN = (320, 400), 16, 60  # of the banner, in pixels
LINES = ((104, LIGHT, "BiRefNet"), (46, BLUE, "Masks and clean cut-outs"), (34, GREY, "Nodes for ComfyUI"))


def icon() -> Image.Image:
    """A subject in two halves: as it is photographed, and cut out."""
    width, height = (side * SMOOTH for side in ICON)
    image = Image.new("RGB", (width, height), DARK)
    draw = ImageDraw.Draw(image)
    cell = CELL * SMOOTH
    for row in range(height // cell):
        for column in range(width // 2 // cell):
            if (row + column) % 2:
                x, y = width // 2 + column * cell, row * cell
                draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill="#343c4f")
    for side, color in (((0, width // 2), LIGHT), ((width // 2, width), BLUE)):
        subject = Image.new("L", (width, height))
        shape = ImageDraw.Draw(subject)
        shape.ellipse([SMOOTH * x for x in (112, 66, 288, 242)], fill=255)  # the head
        shape.ellipse([SMOOTH * x for x in (48, 232, 352, 540)], fill=255)  # and shoulders
        shape.rectangle((0, SMOOTH * 352, width, height), fill=0)
        half = Image.new("L", (width, height))
        half.paste(subject.crop((side[0], 0, side[1], height)), (side[0], 0))
        image.paste(color, mask=half)
    corners = Image.new("L", (width, height))
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, width - 1, height - 1), 72 * SMOOTH, fill=255)
    image.putalpha(corners)
    return image.resize(ICON, Image.Resampling.LANCZOS)


def banner(path: Path, model: str) -> Image.Image:
    """The pack's name beside a photograph, its mask, and the subject on another background."""
    image = read_image(path)[None]  # 1 H W 3
    mask = bc.Segmenter(bc.load_model(model))(image)  # 1 H W
    colours = bc.estimate_foreground(image, mask)
    placed = over_image(colours, mask, backdrop(*mask.shape[1:]))
    shown = [image[0], mask[0, ..., None].expand(-1, -1, 3), placed[0]]
    drawn = Image.new("RGB", BANNER, DARK)
    left = BANNER[0] - MARGIN - len(shown) * PANEL[0] - (len(shown) - 1) * GAP
    for number, result in enumerate(shown):
        panel = _panel(Image.fromarray(to_bytes(result)))
        drawn.paste(panel, (left + number * (PANEL[0] + GAP), (BANNER[1] - PANEL[1]) // 2))
    draw, top = ImageDraw.Draw(drawn), 240
    for size, color, text in LINES:
        draw.text((MARGIN, top), text, fill=color, font=ImageFont.load_default(size))
        top += round(size * 1.45)
    return drawn


def _panel(image: Image.Image) -> Image.Image:
    """The middle of an image, as high as a panel."""
    scale = PANEL[1] / image.height
    image = image.resize((round(image.width * scale), PANEL[1]), Image.Resampling.LANCZOS)
    left = (image.width - PANEL[0]) // 2
    return image.crop((left, 0, left + PANEL[0], PANEL[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, default=ROOT / "examples" / "portrait.jpg")
    parser.add_argument("--model", default="demo", help="catalogue name or file")
    args = parser.parse_args()
    folder = ROOT / "docs" / "images"
    icon().save(folder / "icon.png", optimize=True)
    banner(args.image, args.model).save(folder / "banner.jpg", quality=90)


if __name__ == "__main__":
    main()
