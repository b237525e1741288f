"""Marks in the files that are written, by which later runs tell them from the clips beside them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from .containers import open_container
from .formats import MUXERS
from .options import Limits
from .pyav import FAILURES

TAG, SOFTWARE = "software", "birefnet_core"  # in the metadata of films
_TEXT = f"Software\0{SOFTWARE}".encode()
# GIF and PNG files end with a comment, and what ends every such file.
_ENDS = {
    "gif": (b"\x21\xfe" + bytes([len(_TEXT)]) + _TEXT + b"\0", b";"),
    "apng": (
        struct.pack(">I", len(_TEXT)) + b"tEXt" + _TEXT + struct.pack(">I", zlib.crc32(b"tEXt" + _TEXT)),
        b"\0\0\0\0IEND\xaeB`\x82",
    ),
}


def mark(path: str | os.PathLike[str], muxer: str) -> None:
    """Adds the mark to a finished GIF or PNG file; films have theirs in their metadata, WebP files none.

    Args:
        path: The file.
        muxer: FFmpeg's.
    """
    if muxer not in _ENDS:
        return
    comment, end = _ENDS[muxer]
    with open(path, "rb+") as file:
        file.seek(-len(end), os.SEEK_END)
        if file.read() == end:
            file.seek(-len(end), os.SEEK_END)
            file.write(comment + end)


def is_own_output(path: Path) -> bool:
    """Whether a file is a clip that ``segment_video`` wrote."""
    muxer = MUXERS.get(path.suffix.lower())
    if muxer is None:
        return False
    try:
        if muxer in _ENDS:
            ending = b"".join(_ENDS[muxer])
            with open(path, "rb") as file:
                file.seek(-len(ending), os.SEEK_END)
                return file.read() == ending
        with open_container(path, Limits()) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            return tags.get(TAG) == SOFTWARE
    except FAILURES:  # said when it is read
        return False
