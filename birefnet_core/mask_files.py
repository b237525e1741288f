"""Mask files -> grey values: one rule for training and for scoring, so that both see the same mask.

Shapes: H W pixels.
"""

from __future__ import annotations

import dataclasses
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DatasetError
from .text import first_line

# libpng's integer weights (of 2**15) of red, green and blue, with which OpenCV, and so every published evaluation,
# reads a colour file as grey.
_RED, _GREEN, _BLUE = 9797, 19234, 3737

COLOUR = "in colour, converted to grey"
ALPHA = "with an alpha channel, which was ignored (is the mask in there?)"
PALETTE = "with a palette of colours, all but the first of which are taken as the object"
LABELS = "of the labels 0 and 1, read as 0 and 255"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A mask as read from a file.

    Attributes:
        pixels: H, W; uint8, uint16, or float32 in [0, 1], as stored.
        notes: What was converted on the way: ``COLOUR``, ``ALPHA``, ``PALETTE``, ``LABELS``.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> np.ndarray:
        """H, W float32 in [0, 1]."""
        if self.pixels.dtype.kind == "f":
            return self.pixels
        return self.pixels.astype(np.float32) / np.float32(np.iinfo(self.pixels.dtype).max)

    @property
    def has_labels(self) -> bool:
        """Whether the file holds labels instead of grey levels."""
        return LABELS in self.notes or PALETTE in self.notes


@lru_cache(maxsize=1)
def readable_suffixes() -> frozenset[str]:
    """Lower-case file name endings Pillow can open, with the dot."""
    known = Image.registered_extensions()  # fills Image.OPEN too
    return frozenset(ending for ending, kind in known.items() if kind in Image.OPEN)


def read_mask(path: Path, *, labels: bool = True, clamp: bool = False) -> MaskFile:
    """Reads a mask: 1, 8 or 16 bits of grey, floats, colours, or a palette.

    Colours become grey as OpenCV's reader does, alpha channels are ignored, and of a palette of colours every index
    but 0 is the object.

    Args:
        path: A file of any format Pillow opens.
        labels: Whether 8-bit values of at most 1 are the labels 0 and 1 of a ground truth and are brought to 0 and
            255. In a prediction they are grey levels.
        clamp: Whether floats out of [0, 1] are clamped instead of refused.

    Raises:
        DatasetError: The file is missing, corrupt or no image, or its floats are NaN or, unless clamped, out of
            [0, 1].
    """
    mode, pixels = _decode(path)
    notes: tuple[str, ...] = ()
    if mode == "P":
        return MaskFile(pixels=(pixels > 0).astype(np.uint8) * np.uint8(255), notes=(PALETTE,))
    if mode in ("RGB", "RGBA"):
        pixels, notes = _grey(pixels), (COLOUR, ALPHA) if mode == "RGBA" else (COLOUR,)
    elif mode == "LA":
        pixels, notes = np.ascontiguousarray(pixels[:, :, 0]), (ALPHA,)
    elif mode.startswith("I"):  # 16-bit files; old Pillow versions open them with 32 bits
        pixels = np.clip(pixels, 0, 0xFFFF).astype(np.uint16)
    elif mode == "F" and clamp and not np.isnan(pixels).any():
        pixels = pixels.clip(0, 1)
    elif mode == "F" and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails both
        raise DatasetError(
            f"{path} has values from {pixels.min():.4g} to {pixels.max():.4g}; floats must lie in [0, 1]."
        )
    elif mode == "1":
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if labels and pixels.dtype == np.uint8 and pixels.size and pixels.max() == 1:
        pixels, notes = pixels * np.uint8(255), (*notes, LABELS)
    return MaskFile(pixels=pixels, notes=notes)


def _decode(path: Path) -> tuple[str, np.ndarray]:
    """The file's pixels in one of the modes 1, L, LA, I..., F, P (a palette of colours), RGB, RGBA."""
    try:
        with Image.open(path) as image:
            if image.format == "JPEG":
                image.draft("L", image.size)  # decodes only the luma, as OpenCV does
            image.load()
            if image.mode == "P" and not _has_grey_palette(image):
                return image.mode, np.array(image)
            if image.mode not in ("1", "L", "LA", "F", "RGB", "RGBA") and not image.mode.startswith("I"):
                transparent = "A" in image.getbands() or "transparency" in image.info
                converted = image.convert("RGBA" if transparent else "RGB")
                return converted.mode, np.array(converted)
            return image.mode, np.array(image)
    except (OSError, SyntaxError, EOFError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"{path} cannot be read as an image ({first_line(error)}); replace or remove the file."
        ) from error


def _has_grey_palette(image: Image.Image) -> bool:
    """Whether the colours used are greys, and so the mask itself, rather than the colours of labels."""
    used = {index for _, index in image.getcolors(256) or () if isinstance(index, int)}
    palette = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    colours = palette[[index for index in sorted(used) if index < len(palette)]]
    return bool(len(colours)) and bool((colours == colours[:, :1]).all())


def _grey(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = (pixels[:, :, band].astype(np.int32) for band in range(3))
    return ((red * _RED + green * _GREEN + blue * _BLUE) >> 15).astype(np.uint8)
