"""The worst images of a set on one sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .evaluate import SetResult
from .images import read_mask
from .report import worst_images
from .resize import resize_bilinear

_TILE, _GAP, _TEXT = 256, 8, 20  # pixels: longest side of a picture, space between, height of a line of text
_BACKGROUND, _INK = (225, 228, 232), (30, 30, 30)


def save_contact_sheet(
    result: SetResult, path: Path, *, count: int, key: str, images: Mapping[str, Path] | None = None
) -> None:
    """Saves the images with the worst scores, one row each: image, ground truth, prediction, errors.

    In the last column white is right foreground, red false and blue missed foreground.

    Args:
        count: Number of rows.
        key: The score that decides.
        images: Source images by stem; without them the first column is left out.
    """
    chosen = worst_images(result, count, key)
    titles = [*(["image"] if images else []), "ground truth", "prediction", "errors (red: false, blue: missed)"]
    rows = [_pictures(stem, result, images) for stem, _ in chosen]
    heights = [max(picture.height for picture in row) for row in rows]
    width = _GAP + len(titles) * (_TILE + _GAP)
    sheet = Image.new("RGB", (width, 2 * _TEXT + _GAP + sum(heights) + len(rows) * (_TEXT + _GAP)), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), _font()
    head = f"{result.method} on {result.set_name}: {len(chosen)} of {len(result.images)} images, worst {key} first"
    draw.text((_GAP, 3), head, fill=_INK, font=font)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * (_TILE + _GAP), _TEXT + 3), title, fill=_INK, font=font)
    top = 2 * _TEXT + _GAP
    for (stem, score), row, height in zip(chosen, rows, heights, strict=True):
        draw.text((_GAP, top + 3), f"{stem}   {key} {score:.4g}", fill=_INK, font=font)
        for column, picture in enumerate(row):
            sheet.paste(picture, (_GAP + column * (_TILE + _GAP), top + _TEXT))
        top += _TEXT + height + _GAP
    sheet.save(path, format="PNG")


def _pictures(stem: str, result: SetResult, images: Mapping[str, Path] | None) -> list[Image.Image]:
    prediction_path, truth_path = result.files[stem]
    truth = read_mask(truth_path)[0]
    prediction = resize_bilinear(read_mask(prediction_path)[0], *truth.shape)
    errors = np.stack((prediction, np.minimum(prediction, truth), truth), axis=-1)
    pictures = [_fit(Image.fromarray(array)) for array in (truth, prediction, errors)]
    if images:
        empty = Image.new("RGB", pictures[0].size, _BACKGROUND)
        pictures.insert(0, _fit(Image.open(images[stem])) if stem in images else empty)
    return pictures


def _fit(image: Image.Image) -> Image.Image:
    """A thumbnail of at most one tile; small images are enlarged too."""
    scale = _TILE / max(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    return image.convert("RGB").resize((width, height), method)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(13)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()
