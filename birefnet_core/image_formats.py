"""Which image formats can be read, with those of optional packages."""

from __future__ import annotations

import contextlib
import importlib
from functools import lru_cache

from PIL import Image

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif", ".ppm",
        ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".tga", ".mpo",
    }
)  # fmt: skip

# Packages that teach Pillow further formats, by the endings of their files.
OPTIONAL_READERS = {
    ".heic": "pillow-heif", ".heif": "pillow-heif", ".hif": "pillow-heif", ".jxl": "pillow-jxl-plugin",
}  # fmt: skip

# Formats whose readers start other programs, or have no pixels to give.
_EXCLUDED = frozenset({"EPS", "WMF", "GRIB", "HDF5", "BUFR", "MPEG"})


@lru_cache(maxsize=1)
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that can be read."""
    for package in ("pillow_heif", "pillow_avif", "pillow_jxl"):
        with contextlib.suppress(Exception):  # not installed, or a broken installation
            module = importlib.import_module(package)
            if package == "pillow_heif":
                module.register_heif_opener()
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _EXCLUDED)


def image_suffixes() -> frozenset[str]:
    """Lower-case endings of image files, with the dot; HEIC and JPEG XL where a package reads them."""
    readable = all_suffixes()
    return IMAGE_SUFFIXES | {suffix for suffix in OPTIONAL_READERS if suffix in readable}


def all_suffixes() -> frozenset[str]:
    """The endings of all formats that can be read."""
    readable = image_formats()
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in readable)
