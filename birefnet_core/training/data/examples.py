"""Examples of a data set as a training understands it: images, and beside them without their backgrounds."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ...image_ops import resize
from ...images import to_bytes
from ...text import drawable
from .folders import Pair
from .reading import read_pair

COUNT = 16
_COLUMNS = 4
_TILE, _GAP, _TEXT = 144, 4, 14  # pixels: sides of a tile, between tiles, of a line of text
_DIMMED = 0.2  # brightness of the background


def draw_examples(pairs: Sequence[Pair], count: int = COUNT) -> Image.Image:
    """A contact sheet of some pairs, evenly spread over the data.

    Args:
        pairs: Of the data set; each of them can be read.
        count: Number of pairs shown, at most.

    Raises:
        DatasetError: A pair cannot be read.
    """
    shown = [pairs[i * len(pairs) // min(count, len(pairs))] for i in range(min(count, len(pairs)))]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width, height = 2 * _TILE + _GAP, _TILE + _TEXT
    sheet = Image.new("RGB", (columns * (width + 2 * _GAP), rows * (height + 2 * _GAP)), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, pair in enumerate(shown):
        left, top = number % columns * (width + 2 * _GAP) + _GAP, number // columns * (height + 2 * _GAP) + _GAP
        draw.text((left, top), drawable(pair.name)[-44:], fill=(40, 40, 40), font=font)
        for column, tile in enumerate(_tiles(pair)):
            sheet.paste(tile, (left + column * (_TILE + _GAP), top + _TEXT))
    return sheet


def _tiles(pair: Pair) -> tuple[Image.Image, Image.Image]:
    colours, mask = read_pair(pair)  # H W 3, H W
    scale = _TILE / max(mask.shape)
    size = [max(1, round(side * scale)) for side in mask.shape]
    small = resize(colours.permute(2, 0, 1)[None], size, antialias=True)[0]  # 3 h w
    alpha = resize(mask[None, None], size, antialias=True)[0]  # 1 h w
    dimmed = small * (_DIMMED + (1 - _DIMMED) * alpha)
    return tuple(Image.fromarray(to_bytes(tile.permute(1, 2, 0))) for tile in (small, dimmed))  # type: ignore[return-value]
