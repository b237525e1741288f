"""Image files by Pillow, where it reads less than is in them, or reads it wrongly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .errors import ImageError
from .image_colours import Coding, coding_of
from .image_formats import image_formats
from .text import printable

_ORIENTATION = 0x0112  # the EXIF tag
# How pixels are turned to be seen as the tag says.
_TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
_SUBFILE, _REDUCED, _MORE_FILES = 254, 1, 330  # TIFF tags; the first has a bit for small copies
_BITS_PER_SAMPLE, _PLANAR, _SEPARATE = 258, 284, 2  # the second with the value of a plane for each colour
_MOST_THUMBNAILS = 64  # more are something else
_PSD_VERSION, _PSD_ALPHAS = 1057, 1053  # image resources; the second numbers channels beside the colours, 0 is alpha
SELECTION = "its fourth channel is a selection that was saved in Photoshop, not transparency, and was left out"
_NO_TRANSPARENCY = "its transparency is not read; save it as PNG if there is some"
_SAMPLE_FORMAT, _SIGNED = 339, 2  # what numbers are, and that they have a sign


class Header(NamedTuple):
    """What an image says of its file until it is loaded.

    Attributes:
        format: Pillow's name of the format; "" of an image made in memory.
        packing: Pillow's names of how pixels are stored.
        tags: Of a TIFF.
        name: Path, or empty.
        coding: Of its colours; None for sRGB, or by a profile.
    """

    format: str
    packing: str
    tags: dict[int, Any]
    name: str
    coding: Coding | None


def header_of(image: Image.Image) -> Header:
    """What an image that is not loaded yet says of its file."""
    tags = dict(image.tag_v2) if hasattr(image, "tag_v2") else {}
    packing = repr(getattr(image, "tile", [])[:1])
    return Header(image.format or "", packing, tags, getattr(image, "filename", ""), coding_of(image))


def negative_bytes(image: Image.Image, tags: Mapping[int, Any]) -> np.ndarray | None:
    """The pixels of a loaded TIFF of signed bytes, which Pillow takes for unsigned, as int8; None if none is negative.

    Args:
        image: The image.
        tags: Of the file.
    """
    signed = tags.get(_SAMPLE_FORMAT) in (_SIGNED, (_SIGNED,)) and tags.get(_BITS_PER_SAMPLE) in (8, (8,))
    if image.mode != "L" or not signed:
        return None
    pixels = np.array(image).view(np.int8)
    return pixels if pixels.size and pixels.min() < 0 else None


def to_full_size(image: Image.Image) -> None:
    """Moves on from the small copies that a TIFF or a camera's raw file may begin with.

    Raises:
        ImageError: There is more in the file, and it cannot be read.
    """
    while isinstance(kind := getattr(image, "tag_v2", {}).get(_SUBFILE), int) and kind & _REDUCED:
        others = _MORE_FILES in image.tag_v2  # type: ignore[attr-defined]
        try:
            image.seek(image.tell() + 1)
        except Exception as error:  # EOFError where there is none; nearly any other where it cannot be read
            if isinstance(error, EOFError) and not others:  # what is there is the image, whatever it says
                return
            raise ImageError(
                f"{printable(getattr(image, 'filename', '') or 'image')}: only a small copy of {image.width} x "
                f"{image.height} pixels in it can be read; convert the file (a camera's raw file, for example) to PNG."
            ) from error


def load_pixels(image: Image.Image) -> None:
    """``image.load()``, right for three kinds of TIFF and one of PSD.

    Pillow's memory map scrambles those TIFFs whose sides their orientation exchanges; uncompressed planes of 16 bits,
    one for each colour, are taken for planes of 8; and older versions (9.5 is one) turn a TIFF by its EXIF orientation
    but go on saying that it is not upright. In Photoshop's bitmaps 1 is black, and Pillow reads it as white.

    Raises:
        ImageError: A PSD of layers alone.
    """
    name = getattr(image, "filename", None)
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR) == _SEPARATE and set(tags.get(_BITS_PER_SAMPLE, ())) == {16}:
        end = ";16L" if tags.prefix == b"II" else ";16B"
        image.tile = [  # type: ignore[attr-defined]
            _stored_as(tile, (tile[3][0] + end, *tile[3][1:])) if tile[0] == "raw" and len(tile[3][0]) == 1 else tile
            for tile in image.tile  # type: ignore[attr-defined]
        ]
    _refuse_layers_alone(image)
    if image.format == "PSD" and image.mode == "1":
        image.tile = [_stored_as(tile, "1;I") for tile in image.tile]  # type: ignore[attr-defined]
    if name:
        image.filename = ""  # type: ignore[attr-defined]  # files without a name are not mapped
    try:
        image.load()
    finally:
        if name:
            image.filename = name  # type: ignore[attr-defined]
    if getattr(image, "_tile_orientation", None):  # which only those versions have
        image.getexif().pop(_ORIENTATION, None)


def notes_on_psd(image: Image.Image) -> list[str]:
    """What Pillow loses or mistakes in a PSD: ``SELECTION`` where it takes a saved selection for alpha."""
    first = _psd_resource(image, _PSD_ALPHAS)[:4]
    if image.mode == "RGBA":
        return [SELECTION] if any(first) else []
    return [_NO_TRANSPARENCY] if first and not any(first) else []


def _refuse_layers_alone(image: Image.Image) -> None:
    """Refuses a PSD whose picture of all layers together was not saved: there is white in its place."""
    version = _psd_resource(image, _PSD_VERSION)
    if len(version) > 4 and not version[4]:
        raise ImageError(
            f"{printable(getattr(image, 'filename', '') or 'image')}: a Photoshop file of layers alone, without the "
            "picture they make together; save it with Maximize Compatibility, or as PNG."
        )


def _psd_resource(image: Image.Image, number: int) -> bytes:
    resources = getattr(image, "resources", ()) if image.format == "PSD" else ()
    return next((data for found, _, data in resources if found == number), b"")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image; 1, upright, where it has none or a damaged one."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF raises nearly any exception, and the pixels can be used all the same
        return 1
    return value if isinstance(value, int) and value in _TURNED else 1


def upright(pixels: np.ndarray, turned: int) -> np.ndarray:
    """Pixels H, W or H, W, C as they are seen by an EXIF orientation."""
    return np.ascontiguousarray(_TURNED[turned](pixels)) if turned in _TURNED else pixels


def has_more_frames(image: Image.Image) -> bool:
    """Whether there is another frame or page that is not smaller, one of which is shown then; smaller: thumbnails."""
    width, height = image.size
    for _ in range(_MOST_THUMBNAILS):
        try:
            image.seek(image.tell() + 1)
        except Exception:  # EOFError where there is none; nearly any other where it is damaged
            return False
        if image.width * image.height >= width * height:
            return True
    return True


def lower_bytes(path: str) -> np.ndarray | None:
    """The lower 8 bits of 16-bit colours, by reading them in the other order of bytes; None where that cannot be."""
    with contextlib.suppress(OSError, ValueError, TypeError), Image.open(path, formats=image_formats()) as image:
        other = {"B": "L", "L": "B"}
        tiles: list[Any] = list(image.tile)
        image.tile = [_stored_as(tile, tile[3][:-1] + other.get(tile[3][-1], "?")) for tile in tiles]  # RGB;16B of PNG
        load_pixels(image)
        return np.asarray(image)
    return None


def _stored_as(tile: Any, packing: Any) -> Any:
    """A part of an image to be read as another kind of pixels."""
    return tile._replace(args=packing) if hasattr(tile, "_replace") else (*tile[:3], packing)  # Pillow before 11
