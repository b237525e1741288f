"""Image files -> colours, alpha channel and colour profile: the image as people see it.

Shapes: H W pixels, C channels. Values are floats in [0, 1].
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .colour_profiles import is_far_from_srgb, profile_of, space_of, to_srgb
from .errors import ImageError, MemoryLimitError
from .image_colours import Coding
from .image_formats import image_formats
from .image_ops import HIGHEST
from .pillow_files import (
    SELECTION,
    Header,
    has_more_frames,
    header_of,
    load_pixels,
    lower_bytes,
    negative_bytes,
    notes_on_psd,
    orientation,
    to_full_size,
    upright,
)
from .placeholders import what_is_in
from .text import first_line, printable
from .unknown_images import what_it_is

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags, and the photometric interpretation
_SAMPLE_FORMAT, _SIGNED, _HIGHEST_SIGNED = 339, 2, 32767  # another tag, what it says of signed numbers, and their top
_SPARE_ALPHA = ("BMP", "DIB", "TGA", "DDS")  # formats of which many files have 32 bits for colours alone, the rest 0
_GREY_TOPS = (255, 1023, 4095, 65535)  # largest values of 8, 10, 12 and 16 bits
_UPPERS = (3, 15)  # of the upper 8 of 16 bits, which are what Pillow keeps of colours: those of 10 and 12 bits
_LOWEST = -0.1  # sharpening undershoots 0 a little; floats below that are something else
_WITH_FRAMES = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")  # those of other formats are previews, layers or sizes


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageFile:
    """An image as read from a file.

    Attributes:
        colours: H, W, 3 float32.
        alpha: H, W float32; None where the file is opaque.
        icc_profile: The profile that ``colours`` are in; None for sRGB or unknown.
        notes: What was guessed or lost on the way.
    """

    colours: Tensor
    alpha: Tensor | None = None
    icc_profile: bytes | None = None
    notes: tuple[str, ...] = ()


def read_image_file(path: str | Path) -> ImageFile:
    """Reads an image as people see it: turned by its EXIF orientation, the first frame of several.

    Integers of 8, 10, 12 and 16 bits and floats are brought to [0, 1]. CMYK, LAB, grey with a colour profile and what
    says by itself that it is something else (see ``image_colours``) become sRGB; RGB keeps its numbers and its profile.

    Raises:
        ImageError: Not there, not an image, damaged, without pixels, or with values of an unknown scale.
        MemoryLimitError: Too little memory for it.
    """
    try:
        with opened_image(path) as image:
            to_full_size(image)
            pixels, source = _decode(image, header_of(image))
            if image.format in _WITH_FRAMES and has_more_frames(image):
                source.notes.append("it has several frames or pages, of which the first was read")
        return _image_file(upright(pixels, source.orientation), source, Path(path))
    except MemoryError:
        raise MemoryLimitError(f"{printable(path)}: too little memory to read this image; make it smaller.") from None


def read_pil_image(image: Image.Image) -> ImageFile:
    """Reads an image of Pillow, as ``read_image_file`` but in the orientation that it has in memory.

    Raises:
        ImageError: Its file is damaged, it has no pixels, or values of an unknown scale.
        MemoryLimitError: Too little memory for it.
    """
    path = Path(getattr(image, "filename", "") or "image")
    try:
        header = header_of(image)
        load_pixels(image)
        pixels, source = _decode(image.copy(), header)
        return _image_file(pixels, source, path)
    except MemoryError:
        raise MemoryLimitError(f"{printable(path)}: too little memory for this image; make it smaller.") from None
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{printable(path)}: the image cannot be read ({printable(first_line(error))}).") from error


def _image_file(pixels: np.ndarray, source: _Source, path: Path) -> ImageFile:
    """Pixels as ``_decode`` gives them, brought to floats."""
    if 0 in pixels.shape:
        raise ImageError(f"{printable(path)}: the image has no pixels.")
    if pixels.ndim == 2:
        return _grey_file(pixels, source, path)
    high, top = int(pixels[..., :3].max()), 255
    if pixels.dtype == np.uint16 and high:
        top = _top_value(high, source)
    alpha_top = 255
    if source.sixteen_bits and pixels.dtype == np.uint8 and 0 < high <= _UPPERS[-1]:
        most = int(pixels.max())  # an alpha channel of full depth says nothing of the colours'
        top = next((upper for upper in _UPPERS if most <= upper), _UPPERS[-1])
        alpha_top = top if most <= top else 255
        note = "its 16-bit colours use 12 bits or less, of which Pillow reads the upper 4; save it with 8 bits"
        source.notes.append(note)
    colours = _to_srgb_light(_to_floats(pixels[..., :3], top), source)
    alpha = None
    if pixels.shape[-1] == 4 and pixels[..., 3].min() < 255:
        alpha = _to_floats(pixels[..., 3], alpha_top)
        if alpha_top < 255 and alpha.min() == 1:
            alpha = None
    if alpha is not None and alpha.max() == 0:
        source.notes.append("it is transparent everywhere, so there is no subject")
    return ImageFile(colours=colours, alpha=alpha, icc_profile=source.icc_profile, notes=tuple(source.notes))


@contextlib.contextmanager
def opened_image(path: str | Path) -> Iterator[Image.Image]:
    """An open image file; what its reader raises in the block becomes an error that names the file.

    Readers raise more than they document (struct.error, AttributeError, RuntimeError, ... for damaged files), so the
    block should hold nothing but calls of Pillow.

    Raises:
        ImageError: The file is missing, no image, too large or damaged.
        MemoryLimitError: Too little memory for it.
    """
    name = printable(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError(f"{name}: a folder, pipe or device, expected an image file.")
        with Image.open(path, formats=image_formats()) as image:
            yield image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file.") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image that can be read ({what_it_is(path)}).") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large to be read ({_megapixels(error)}); make the image smaller.") from None
    except MemoryError:
        raise MemoryLimitError(f"{name}: too little memory to read this image; make it smaller.") from None
    except PermissionError as error:
        raise ImageError(f"{name}: the image cannot be read ({error.strerror}).") from error
    except Exception as error:
        reason = printable(first_line(error))
        if found := what_is_in(path):
            raise ImageError(f"{name}: not an image that can be read ({found}).") from None
        if not isinstance(error, OSError | SyntaxError | ValueError | EOFError):
            reason = f"{type(error).__name__}: {reason}"
        raise ImageError(f"{name}: the image cannot be read, perhaps truncated ({reason}).") from error


@dataclasses.dataclass(kw_only=True)
class _Source:
    """What the file says of its pixels."""

    mode: str
    orientation: int
    sixteen_bits: bool
    bits: int | None = None  # of grey, where the file says so
    signed: bool = False  # 16 bits, of which one is the sign
    white_is_zero: bool = False
    transparent_grey: int | None = None
    curve: np.ndarray | None = None  # of grey with a colour profile: sRGB of 256 values from 0 to 1
    icc_profile: bytes | None = None
    coding: Coding | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def _decode(image: Image.Image, header: Header) -> tuple[np.ndarray, _Source]:
    """Pixels H, W of deep grey, or H, W, 3 or 4 uint8. Only Pillow's and NumPy's work."""
    sixteen_bits, tags = ";16" in header.packing, header.tags
    load_pixels(image)
    if image.mode == "La":  # grey times alpha
        image = image.convert("LA")
    psd_notes = notes_on_psd(image)
    if SELECTION in psd_notes:
        image = image.convert("RGB")
    source = _Source(
        mode=image.mode,
        orientation=orientation(image),
        sixteen_bits=sixteen_bits,
        coding=header.coding,
        notes=psd_notes,
    )
    if (negative := negative_bytes(image, tags)) is not None:
        return negative, source
    if image.mode == "F" or image.mode.startswith("I"):
        if tags.get(_BITS_PER_SAMPLE) in (12, (12,)):
            source.bits = 12
        signed = tags.get(_SAMPLE_FORMAT) in (_SIGNED, (_SIGNED,))
        source.signed = signed and tags.get(_BITS_PER_SAMPLE) in (16, (16,))
        source.white_is_zero = image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        transparent = image.info.get("transparency")
        source.transparent_grey = transparent if isinstance(transparent, int) else None
        pixels = np.asarray(image)
        if space_of(profile := profile_of(image)) == b"GRAY":
            with contextlib.suppress(Exception):  # as in _to_rgb
                greys = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
                source.curve = np.asarray(to_srgb(greys, profile))[0, :, 0] / np.float32(255)
    else:
        for bits in (2, 4):  # the pixels of which Pillow brings to 8, and not the one that is transparent
            if f"L;{bits}'" in header.packing and isinstance(hidden := image.info.get("transparency"), int):
                image.info["transparency"] = hidden * 255 // (2**bits - 1)
        hidden = image.info.get("transparency")
        image, source.icc_profile = _to_rgb(image, sixteen_bits)
        pixels = np.asarray(image)
        if sixteen_bits and isinstance(hidden, tuple) and image.mode == "RGBA":
            pixels = _without_neighbours(pixels, hidden, header.name)
        if header.format in _SPARE_ALPHA and image.mode == "RGBA" and pixels.size and not pixels[..., 3].any():
            pixels = pixels[..., :3]
            source.notes.append("its alpha is 0 everywhere, as where it is not meant, and was left out")
        if sixteen_bits and image.mode == "RGB" and pixels.size and pixels.max() <= _UPPERS[-1]:
            lower = lower_bytes(header.name)
            if lower is not None and lower.shape == pixels.shape:
                pixels = pixels.astype(np.uint16) * 256 + lower
    return pixels, source


def _without_neighbours(pixels: np.ndarray, hidden: tuple[int, ...], name: str) -> np.ndarray:
    """16-bit colours of which one is transparent, without those that differ from it in their lower bytes alone."""
    transparent = pixels[..., 3] == 0
    lower = lower_bytes(name) if transparent.any() else None
    if lower is None or lower.shape[:2] != pixels.shape[:2]:
        return pixels
    others = (lower != np.array([value & 255 for value in hidden])).any(axis=-1)
    alpha = np.where(transparent & ~others, np.uint8(0), np.uint8(255))
    return np.concatenate([pixels[..., :3], alpha[..., None]], axis=-1)


def _to_rgb(image: Image.Image, sixteen_bits: bool) -> tuple[Image.Image, bytes | None]:
    """RGB, or RGBA of an image with transparency, and the colour profile it is in."""
    profile = profile_of(image)
    space = space_of(profile)
    transparency = image.info.get("transparency")
    if sixteen_bits and isinstance(transparency, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    if image.mode == "LAB" or space in {"CMYK": b"CMYK", "L": b"GRAY", "LA": b"GRAY"}.get(image.mode, b"-"):
        with contextlib.suppress(Exception):  # without a colour engine, or with a damaged profile: as without profile
            return to_srgb(image, profile), None
    transparent = transparency is not None or "A" in image.getbands() or "a" in image.getbands()
    image = image.convert("RGBA" if transparent else "RGB")
    if space == b"RGB " and is_far_from_srgb(profile):
        return to_srgb(image, profile), None
    return image, profile if space == b"RGB " else None


def _grey_file(pixels: np.ndarray, source: _Source, path: Path) -> ImageFile:
    """Grey of more than 8 bits, whose scale is found."""
    if source.mode == "F":
        grey = _scale_floats(pixels, source, path)
    else:
        grey = _scale_integers(pixels, source, path)
    if source.curve is not None:
        grey = np.interp(grey, np.linspace(0, 1, len(source.curve)), source.curve).astype(np.float32)
    alpha = None
    if source.transparent_grey is not None and (hidden := pixels == source.transparent_grey).any():
        alpha = torch.from_numpy(np.where(hidden, np.float32(0), np.float32(1)))
    colours = torch.from_numpy(grey).unsqueeze(-1).expand(-1, -1, 3).contiguous()
    colours = _to_srgb_light(colours, source)
    return ImageFile(colours=colours, alpha=alpha, notes=tuple(source.notes))


def _to_srgb_light(colours: Tensor, source: _Source) -> Tensor:
    """Colours H, W, 3 that say of themselves that they are not sRGB."""
    if source.coding is None:
        return colours
    source.notes.append(f"its colours are {source.coding.words}, and became sRGB")
    source.icc_profile = None
    return source.coding.to_srgb(colours)


def _scale_integers(pixels: np.ndarray, source: _Source, path: Path) -> np.ndarray:
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > _GREY_TOPS[-1]:
        raise ImageError(
            f"{printable(path)}: has whole numbers from {low} to {high}, expected 0 to 65535. Convert it to 8 or 16 "
            "bits without a sign."
        )
    top = _GREY_TOPS[-1]
    if source.bits:
        top = 2**source.bits - 1
    elif high and not source.white_is_zero:
        top = _top_value(high, source)
    grey = _to_floats(pixels, top)
    return np.subtract(1, grey.numpy()) if source.white_is_zero else grey.numpy()


def _top_value(high: int, source: _Source) -> int:
    """The largest value of the depth that whole numbers up to ``high`` have; noted where that is not 16 bits."""
    tops = (*_GREY_TOPS[:-1], _HIGHEST_SIGNED) if source.signed else _GREY_TOPS
    top = next(top for top in tops if high <= top)
    if top != tops[-1]:
        source.notes.append(f"its values reach {high} of {tops[-1]}, so they are read as {top.bit_length()} bits")
    return top


def _scale_floats(pixels: np.ndarray, source: _Source, path: Path) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN anywhere makes both NaN
        raise ImageError(
            f"{printable(path)}: has NaN or infinite values, expected floats in [0, 1]. Check what wrote it."
        )
    if low >= _LOWEST and high <= HIGHEST:
        if high > 1:
            source.notes.append(f"its values reach {high:.4g}; those above 1 are cut")
        return pixels.clip(0, 1).astype(np.float32, order="C")
    if low >= 0 and high <= _GREY_TOPS[-1] and not np.mod(pixels, 1).any():
        top = _GREY_TOPS[0] if high <= _GREY_TOPS[0] else _GREY_TOPS[-1]
        source.notes.append(f"its floats are whole numbers up to {high:.0f}, read as {top.bit_length()} bits")
        return _to_floats(pixels, top).numpy()
    raise ImageError(
        f"{printable(path)}: has floats from {low:.4g} to {high:.4g}, expected [0, 1]. Scale them, or tone-map an HDR "
        "image, first."
    )


def _to_floats(pixels: np.ndarray, top: int) -> Tensor:
    values = pixels.astype(np.float32, order="C")
    values /= top
    return torch.from_numpy(values)


def _megapixels(error: Exception) -> str:
    numbers = [int(number) / 1e6 for number in re.findall(r"\d{4,}", str(error))]
    if len(numbers) < 2:
        return "more pixels than Pillow reads"
    return f"{numbers[0]:.0f} megapixels, and Pillow reads up to {numbers[1]:.0f}"
