"""Reading masks from files of any kind Pillow opens, as the bytes published evaluations see."""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DatasetError
from .pair import to_bytes

# libpng's integer weights (of 2**15) of red, green and blue, with which OpenCV reads colour files as grey.
_RED, _GREEN, _BLUE = 9797, 19234, 3737

COLOUR = "in colour, converted to grey"
ALPHA = "with an alpha channel, which was ignored (is the mask in there?)"


@lru_cache(maxsize=1)
def extensions() -> frozenset[str]:
    """Lower-case file name endings Pillow can open, with the dot."""
    known = Image.registered_extensions()  # fills Image.OPEN too
    return frozenset(ending for ending, kind in known.items() if kind in Image.OPEN)


def read_mask(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a mask.

    Colour is turned grey as OpenCV's reader does, 16-bit files lose their low byte, alpha channels are ignored.

    Returns:
        uint8 (H, W), and what was converted on the way (``COLOUR``, ``ALPHA``).

    Raises:
        DatasetError: the file is missing, corrupt or no image.
        ImageError: floating-point pixels that are NaN or out of [0, 1].
    """
    mode, pixels = _decode(path)
    if mode in ("RGB", "RGBA"):
        notes = (COLOUR, ALPHA) if mode == "RGBA" else (COLOUR,)
        return _grey(pixels), notes
    if mode == "LA":
        return np.ascontiguousarray(pixels[:, :, 0]), (ALPHA,)
    if mode.startswith("I"):  # 16-bit files; old Pillow versions open them with 32 bits
        return (np.clip(pixels, 0, 0xFFFF) >> 8).astype(np.uint8), ()
    return to_bytes(pixels, str(path)), ()


def _decode(path: Path) -> tuple[str, np.ndarray]:
    """The file's pixels in one of the modes 1, L, LA, I..., F, RGB, RGBA."""
    try:
        with Image.open(path) as image:
            if image.format == "JPEG":
                image.draft("L", image.size)  # decodes only the luma, as OpenCV does
            image.load()
            if image.mode not in ("1", "L", "LA", "F", "RGB", "RGBA") and not image.mode.startswith("I"):
                transparent = "A" in image.getbands() or "transparency" in image.info
                converted = image.convert("RGBA" if transparent else "RGB")
                return converted.mode, np.array(converted)
            return image.mode, np.array(image)
    except (OSError, SyntaxError, EOFError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as an image ({error}); replace or remove the file.") from error


def _grey(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = (pixels[:, :, band].astype(np.int32) for band in range(3))
    return ((red * _RED + green * _GREEN + blue * _BLUE) >> 15).astype(np.uint8)
