"""Files -> the parts they are made of, and back with right lengths and checksums, so that damage reaches readers."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

TEXTS = (".toml", ".args")  # files that are texts as a whole
Parts = list[tuple[str, bytes]]

_PNG = b"\x89PNG\r\n\x1a\n"


def split(content: bytes, suffix: str) -> Parts:
    """Names and contents of a file's parts; empty where it has none, or is too damaged to tell."""
    try:
        if content[:4] == b"PK\x03\x04":
            return _split_zip(content)
        if suffix == ".safetensors":
            (length,) = struct.unpack("<Q", content[:8])
            return [("header", content[8 : 8 + length]), ("data", content[8 + length :])] if length < 2**24 else []
        if content.startswith(_PNG):
            return _split_png(content)
        if content[:4] == b"RIFF":
            return _split_riff(content)
    except Exception:  # whatever the damage was
        pass
    return []


def join(parts: Sequence[tuple[str, bytes]], suffix: str) -> bytes:
    """The inverse of ``split``; the first part's name says which kind of file it was."""
    if suffix == ".safetensors":
        header = b"".join(inner for name, inner in parts if name == "header")
        return struct.pack("<Q", len(header)) + header + b"".join(inner for name, inner in parts if name == "data")
    kinds = {name.partition(":")[0] for name, _ in parts}
    if kinds == {"png"}:
        return _PNG + b"".join(_png_chunk(name, inner) for name, inner in parts)
    if kinds == {"riff"}:
        chunks = b"".join(_riff_chunk(name, inner) for name, inner in parts[1:])
        return b"RIFF" + struct.pack("<I", len(chunks) + 4) + parts[0][1][:4] + chunks
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        written: set[str] = set()
        for name, inner in parts:
            if name not in written:  # zipfile warns of names that are there already
                archive.writestr(zipfile.ZipInfo(name), inner)
            written.add(name)
    return file.getvalue()


def _split_zip(content: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        pickle = [name for name in names if name.endswith("data.pkl")]
        return [(name, archive.read(name)) for name in [*pickle, *(n for n in names if n not in pickle)]]


def _split_png(content: bytes) -> Parts:
    parts: Parts = []
    at = len(_PNG)
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        parts.append((f"png:{kind.decode('latin-1')}", content[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def _png_chunk(name: str, inner: bytes) -> bytes:
    kind = name[4:].encode("latin-1")
    return struct.pack(">I", len(inner)) + kind + inner + struct.pack(">I", zlib.crc32(kind + inner))


def _split_riff(content: bytes) -> Parts:
    parts: Parts = [("riff:", content[8:12])]
    at = 12
    while at + 8 <= len(content):
        kind, length = struct.unpack("<4sI", content[at : at + 8])
        parts.append((f"riff:{kind.decode('latin-1')}", content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def _riff_chunk(name: str, inner: bytes) -> bytes:
    return name[5:].encode("latin-1") + struct.pack("<I", len(inner)) + inner + bytes(len(inner) % 2)
