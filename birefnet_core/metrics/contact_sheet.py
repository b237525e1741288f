"""The worst images of a set on one sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..error_colours import FALSE_NEGATIVE, FALSE_POSITIVE
from ..errors import ImageError
from ..mask_files import read_mask
from ..text import drawable
from .evaluate import SetResult
from .pair import Pair
from .tables import worst_images

_TILE, _GAP, _TEXT = 256, 8, 20  # pixels: longest side of an image, space between, height of a line of text
_BACKGROUND, _INK = (225, 228, 232), (30, 30, 30)


def save_contact_sheet(
    result: SetResult, path: Path, *, count: int, key: str, images: Mapping[str, Path] | None = None
) -> None:
    """Saves the images with the worst scores, one row each: image, ground truth, prediction, errors.

    In the last column true positives are white; false positives and false negatives have their ``error_colours``.

    Args:
        result: What was measured.
        path: A file ending in .png.
        count: Number of rows.
        key: The score that decides.
        images: Source images by stem; without them the first column is left out.
    """
    chosen = worst_images(result, count, key)
    titles = [*(["image"] if images else []), "ground truth", "prediction", "red: false pos., blue: false neg."]
    rows = [_thumbnails(stem, result, images) for stem, _ in chosen]
    heights = [max(image.height for image in row) for row in rows]
    width = _GAP + len(titles) * (_TILE + _GAP)
    sheet = Image.new("RGB", (width, 2 * _TEXT + _GAP + sum(heights) + len(rows) * (_TEXT + _GAP)), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), _font()
    head = f"{result.method} on {result.set_name}: {len(chosen)} of {len(result.images)} images, worst {key} first"
    draw.text((_GAP, 3), drawable(head), fill=_INK, font=font)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * (_TILE + _GAP), _TEXT + 3), title, fill=_INK, font=font)
    top = 2 * _TEXT + _GAP
    for (stem, score), row, height in zip(chosen, rows, heights, strict=True):
        draw.text((_GAP, top + 3), drawable(f"{stem}   {key} {score:.4g}"), fill=_INK, font=font)
        for column, thumbnail in enumerate(row):
            sheet.paste(thumbnail, (_GAP + column * (_TILE + _GAP), top + _TEXT))
        top += _TEXT + height + _GAP
    sheet.save(path, format="PNG")


def _thumbnails(stem: str, result: SetResult, images: Mapping[str, Path] | None) -> list[Image.Image]:
    prediction_path, truth_path = result.files[stem]
    pair = Pair(read_mask(prediction_path, labels=False).pixels, read_mask(truth_path).pixels)
    arrays = (pair.ground_truth, pair.prediction, _errors(pair))
    thumbnails = [_fit(Image.fromarray(array)) for array in arrays]
    if images:
        image = _read(images[stem]) if stem in images else None
        thumbnails.insert(0, Image.new("RGB", thumbnails[0].size, _BACKGROUND) if image is None else _fit(image))
    return thumbnails


def _read(path: Path) -> Image.Image | None:
    """An image as people see it; None where it cannot be read."""
    from ..images import read_image, to_bytes  # here, because they import torch, which scoring does not need

    try:
        return Image.fromarray(to_bytes(read_image(path)))
    except (ImageError, MemoryError):
        return None


def _errors(pair: Pair) -> np.ndarray:
    """uint8 (H, W, 3): black, plus white and the two colours of errors as far as a pixel is each of them."""
    prediction, truth = pair.prediction.astype(np.float32)[..., None], pair.ground_truth.astype(np.float32)[..., None]
    errors = np.minimum(prediction, truth) + np.maximum(prediction - truth, 0) * np.array(FALSE_POSITIVE, np.float32)
    errors += np.maximum(truth - prediction, 0) * np.array(FALSE_NEGATIVE, np.float32)
    return np.rint(errors).astype(np.uint8)


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
