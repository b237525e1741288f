"""Mask files -> grey values: one rule for training and for scoring, so that both see the same mask.

Shapes: H W pixels.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from . import mask_values
from .errors import DatasetError
from .image_formats import image_formats
from .mask_values import ALPHA, COLOUR, DOUBTS, FAINT, FRAMES, LABEL_NOTES, LOSSY, PALETTE, PHOTO, Read
from .pillow_files import has_more_frames, load_pixels, negative_bytes, orientation, to_full_size, upright
from .unknown_images import why_unreadable

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # TIFF's tag, and the value of files in which 0 is white


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A mask as read from a file.

    Attributes:
        pixels: H, W; uint8, uint16, or float32 in [0, 1].
        notes: What was converted, and what could not be interpreted: constants of ``mask_values``.
        found: The values in the file, in words; "" for predictions.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()
    found: str = ""

    @property
    def values(self) -> np.ndarray:
        """H, W float32 in [0, 1]."""
        if self.pixels.dtype.kind == "f":
            return self.pixels
        return self.pixels.astype(np.float32) / np.float32(np.iinfo(self.pixels.dtype).max)

    @property
    def has_labels(self) -> bool:
        """Whether the file holds labels instead of grey levels."""
        return not LABEL_NOTES.isdisjoint(self.notes)

    @property
    def doubts(self) -> tuple[str, ...]:
        """The notes of what could not be interpreted."""
        return tuple(note for note in self.notes if note in DOUBTS)


def read_mask(path: Path, *, labels: bool = True) -> MaskFile:
    """Reads a mask of any format, depth and mode, turned as its EXIF orientation says.

    A ground truth is read by the meaning of its values (``mask_values``). In a prediction they are grey levels: colours
    become grey as OpenCV's reader does, alpha channels are ignored, and of a palette of colours every index but 0 is
    the object.

    Args:
        path: A file of any format Pillow opens.
        labels: Whether it is a ground truth.

    Raises:
        DatasetError: The file is missing, corrupt or no image, or its floats are NaN or out of [0, 1] (in a ground
            truth also of [0, 255]).
    """
    mode, pixels, doubts = _decode(path, labels)
    if not pixels.size:
        raise DatasetError(f"{path} has no pixels; replace or remove the file.")
    if mode == "F" and not np.isfinite(pixels).all():
        raise DatasetError(
            f"{path} has values from {pixels.min():.4g} to {pixels.max():.4g}; "
            f"{np.count_nonzero(~np.isfinite(pixels))} pixels are NaN or infinite. Floats must be in [0, 1]."
        )
    if not labels:
        return _read_prediction(path, mode, pixels)
    read = _read_truth(mode, pixels)
    if read is None:
        raise _out_of_range(path, pixels)
    pixels, found, notes = read
    if PHOTO in notes:  # scored as published evaluations do, which decode the luma of a JPEG alone
        pixels = _read_prediction(path, *_decode(path, False)[:2]).pixels
    return MaskFile(pixels=pixels, found=found, notes=(*notes, *doubts))


def _read_truth(mode: str, pixels: np.ndarray) -> Read | None:
    if mode == "1":
        return pixels.astype(np.uint8) * np.uint8(255), "black and white", ()
    if mode == "P":
        return mask_values.read_palette(pixels)
    if mode == "F":
        return mask_values.read_floats(pixels)
    if mode in ("L", "I"):
        return mask_values.read_integers(pixels)
    colours = pixels[..., :-1] if mode in ("LA", "RGBA") else pixels
    read = mask_values.read_integers(colours[..., 0]) if mode == "LA" else mask_values.read_colours(colours)
    if mode == "RGB":
        return read
    return mask_values.read_alpha(read, pixels[..., -1], flat=bool((colours == colours[:1, :1]).all()))


def _read_prediction(path: Path, mode: str, pixels: np.ndarray) -> MaskFile:
    if mode == "P":
        return MaskFile(pixels=(pixels > 0).astype(np.uint8) * np.uint8(255), notes=(PALETTE,))
    if mode in ("RGB", "RGBA"):
        return MaskFile(pixels=mask_values.grey(pixels), notes=(COLOUR, ALPHA) if mode == "RGBA" else (COLOUR,))
    if mode == "LA":
        return MaskFile(pixels=np.ascontiguousarray(pixels[:, :, 0]), notes=(ALPHA,))
    if mode == "I":  # 16-bit files; old Pillow versions open them with 32 bits
        return MaskFile(pixels=np.clip(pixels, 0, 0xFFFF).astype(np.uint16))
    if mode == "F" and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise _out_of_range(path, pixels)
    return MaskFile(pixels=pixels.astype(np.uint8) * np.uint8(255) if mode == "1" else pixels)


def _out_of_range(path: Path, pixels: np.ndarray) -> DatasetError:
    return DatasetError(f"{path} has values from {pixels.min():.4g} to {pixels.max():.4g}; floats must be in [0, 1].")


def _decode(path: Path, truth: bool) -> tuple[str, np.ndarray, tuple[str, ...]]:
    """The file's pixels in one of the modes 1, L, LA, I, F, P (a palette of colours), RGB, RGBA; upright. And doubts.

    In the palette of a ground truth 0 is black, or the first colour where black is not used.
    """
    try:
        with Image.open(path, formats=image_formats()) as image:
            to_full_size(image)
            if image.format == "JPEG":
                # Decodes only the luma, as OpenCV does; of a ground truth also the chroma, which tells a colour.
                image.draft("YCbCr" if truth else "L", image.size)
            sixteen_bits = ";16" in repr(getattr(image, "tile", ())[:1])
            load_pixels(image)
            mode, pixels = _plain_modes(image, truth)
            pixels = upright(pixels, orientation(image))
            faint = sixteen_bits and mode in ("LA", "RGB", "RGBA") and _is_faint(mode, pixels)
            lossy = image.format in ("JPEG", "MPO") and mode == "L" and mask_values.are_changed_labels(pixels)
            doubts = ((FAINT,) if faint else ()) + ((LOSSY,) if lossy else ())
            doubts += (FRAMES,) if truth and has_more_frames(image) else ()
    except MemoryError as error:
        raise DatasetError(f"{path} is too large for the memory that is left; make it smaller.") from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise DatasetError(
            f"{path} cannot be read as an image ({why_unreadable(path, error)}); replace or remove the file."
        ) from error
    return mode, pixels, doubts


def _plain_modes(image: Image.Image, truth: bool) -> tuple[str, np.ndarray]:
    """The mode that the file's is converted to, and the pixels."""
    if (negative := negative_bytes(image, getattr(image, "tag_v2", {}))) is not None:
        return ("I", negative) if truth else ("L", np.maximum(negative, 0).view(np.uint8))
    if image.mode == "P" and not _has_grey_palette(image) and not (truth and _is_transparent(image)):
        return image.mode, _black_is_zero(image) if truth else np.array(image)
    if image.mode == "YCbCr":
        luma, *chroma = [np.array(band) for band in image.split()]
        if truth and any((np.abs(band.astype(np.int16) - 128) > 12).any() for band in chroma):
            return "RGB", np.array(image.convert("RGB"))
        return "L", luma
    if image.mode.startswith("I"):
        pixels = np.array(image)
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
        white_is_zero = hasattr(image, "tag_v2") and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return "I", ~pixels if white_is_zero and pixels.dtype == np.uint16 else pixels  # which Pillow does for 8 bits
    if image.mode not in ("1", "L", "LA", "F", "RGB", "RGBA"):
        transparent = "A" in image.getbands() or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    return image.mode, np.array(image)


def _is_faint(mode: str, pixels: np.ndarray) -> bool:
    """Whether little or nothing is left of colours or alpha: of their 16 bits Pillow keeps the upper 8."""
    colours = pixels if mode == "RGB" else pixels[..., :-1]
    return bool(colours.max() < 128 or (mode != "RGB" and pixels[..., -1].max() < 128))


def _is_transparent(image: Image.Image) -> bool:
    return "transparency" in image.info and bool(np.array(image.convert("RGBA"))[..., 3].min() < 255)


def _black_is_zero(image: Image.Image) -> np.ndarray:
    """The indices of a palette, 0 for every index that is black, if any pixel is."""
    indices = np.array(image)
    palette = np.zeros((256, 3), np.uint8)
    colours = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    palette[: len(colours)] = colours
    black = (palette.max(axis=1) == 0)[indices]
    return np.where(black, 0, np.maximum(indices, 1)).astype(np.uint8) if black.any() and not black.all() else indices


def _has_grey_palette(image: Image.Image) -> bool:
    """Whether the colours used are greys, and so the mask itself, rather than the colours of labels."""
    used = {index for _, index in image.getcolors(256) or () if isinstance(index, int)}
    palette = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    colours = np.array([palette[index] if index < len(palette) else (0, 0, 0) for index in sorted(used)])
    if len(used) > 1 and (colours == colours[:1]).all():  # labels, for which no colours were chosen
        return False
    return bool(len(colours)) and bool((colours == colours[:, :1]).all())
