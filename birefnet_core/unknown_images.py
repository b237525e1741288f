"""What an image file is that Pillow does not read, and what to do about it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from PIL import UnidentifiedImageError

from .image_formats import image_formats
from .placeholders import what_is_in, what_it_holds
from .text import first_line

_CLIPS = (b"iso", b"mp4", b"qt ", b"M4V", b"avc", b"3gp", b"das")  # beginnings of MP4's and MOV's names of their kinds
_LARGE_PSD, _PSD_BITS = 2, 8  # a version of Photoshop files; the bits of those that Pillow reads


def why_unreadable(path: str | Path, error: BaseException) -> str:
    """Why a reader failed: by what is in a file's place or what kind of file it is, or else by the reader's own words.

    Args:
        path: The file.
        error: What the reader raised.
    """
    return what_it_is(path) if isinstance(error, UnidentifiedImageError) else what_is_in(path) or first_line(error)


def what_it_is(path: str | Path) -> str:
    """What a file is that no reader knows, from its first bytes."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        head = file.read(256)
        if not head:
            return "the file is empty"
        if found := what_it_holds(head):
            return found
        if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heif", b"mif1", b"msf1", b"hevc"):
            return "HEIC; pip install pillow-heif to read it, or convert it"
        if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis") and "AVIF" not in image_formats():
            return "AVIF; pip install pillow-avif-plugin to read it, or convert it"
        if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
            return "JPEG XL; pip install pillow-jxl-plugin to read it, or convert it"
        if head.startswith(b"\x1aE\xdf\xa3") or (head[4:8] == b"ftyp" and head[8:11] in _CLIPS):
            return "a clip, which birefnet video reads"
        if head.startswith(b"8BPS"):
            return _psd(head)
        if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return "a TIFF or a camera's raw file, damaged or of a kind that Pillow does not know; convert it to PNG"
    return "damaged, or a format Pillow does not know"


def _psd(head: bytes) -> str:
    """A Photoshop file, by its first bytes."""
    version, bits = (int.from_bytes(head[at : at + 2], "big") for at in (4, 22))
    if version == _LARGE_PSD:
        return "a Photoshop file of the large kind (PSB), which Pillow does not read; save it as PSD or PNG"
    if bits != _PSD_BITS:
        return f"a Photoshop file of {bits} bits, of which Pillow reads those of 8; save it with 8 bits, or as PNG"
    return "a Photoshop file, damaged or of a kind that Pillow does not know; save it as PNG"
