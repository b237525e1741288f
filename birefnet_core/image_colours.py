"""What image files say of their colours beside a colour profile: gAMA and cICP of PNG, nclx of AVIF and HEIC.

Shapes: H W pixels. Colours are floats in [0, 1].
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from PIL import Image
from torch import Tensor

from .autocast import without_autocast
from .transfer import TO_709, srgb_from_linear, to_linear, to_sdr

_LINEAR, _UNSPECIFIED = 8, 2  # ITU-T H.273, as all numbers here
_HDR = {16: "pq", 18: "hlg"}
_LIKE_SRGB = frozenset({1, _UNSPECIFIED, 4, 5, 6, 13, 14, 15})  # transfer functions
# Of sRGB, and by what part another may be off: that of BT.709 (frames out of FFmpeg) and the 1.8 of old Macs are.
_GAMMA, _AS_GOOD_AS = 1 / 2.2, 0.3
_GAMMAS = (0.1, 5.0)  # others are damage
_MOST_CHUNKS, _MOST_META = 1000, 1 << 18  # before a PNG's pixels; bytes of an AVIF's description


class Coding(NamedTuple):
    """How colours are coded that are not sRGB.

    Attributes:
        transfer: "pq", "hlg", "sdr", or "gamma" for a power of light.
        primaries: FFmpeg's number.
        gamma: The power.
    """

    transfer: str
    primaries: int = 1
    gamma: float = 1.0

    @property
    def words(self) -> str:
        kinds = {"pq": "HDR (PQ)", "hlg": "HDR (HLG)", "sdr": "of a wide gamut"}
        return kinds.get(self.transfer) or ("linear light" if self.gamma == 1 else f"coded with gamma {self.gamma:.4g}")

    @without_autocast
    def to_srgb(self, colours: Tensor) -> Tensor:
        """Colours H, W, 3 as they are seen on a display of sRGB; HDR is tone-mapped, other gamuts are cut."""
        if self.transfer in _HDR.values():
            return to_sdr(colours, self.transfer, self.primaries)
        light = to_linear(colours, "sdr") if self.transfer == "sdr" else colours.pow(1 / self.gamma)
        if self.primaries in TO_709:
            light = light @ light.new_tensor(TO_709[self.primaries]).T
        return srgb_from_linear(light)


def coding_of(image: Image.Image) -> Coding | None:
    """How a file's colours are coded; None for sRGB, where nothing is said, and where a colour profile says it.

    Args:
        image: Opened; its file is read, and is at the same place afterwards.
    """
    if image.format == "PNG":
        with contextlib.suppress(OSError, ValueError, struct.error), _file_of(image) as file:
            if (chunk := _png_chunk(file, b"cICP")) is not None and len(chunk) == 4:
                return _of_numbers(chunk[0], chunk[1])
        if "icc_profile" in image.info or "srgb" in image.info:
            return None
        gamma = image.info.get("gamma")
        if not isinstance(gamma, float) or not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
            return None
        return Coding("gamma", gamma=gamma) if abs(gamma / _GAMMA - 1) > _AS_GOOD_AS else None
    if image.format in ("AVIF", "HEIF") and "icc_profile" not in image.info:
        with contextlib.suppress(OSError, ValueError, struct.error, IndexError), _file_of(image) as file:
            if (numbers := _nclx(file)) is not None:
                return _of_numbers(*numbers)
    return None


def _of_numbers(primaries: int, transfer: int) -> Coding | None:
    if transfer in _HDR:
        return Coding(_HDR[transfer], primaries)
    if transfer == _LINEAR:
        return Coding("gamma", primaries)
    return Coding("sdr", primaries) if transfer in _LIKE_SRGB and primaries in TO_709 else None


@contextlib.contextmanager
def _file_of(image: Image.Image) -> Iterator[BinaryIO]:
    """The file of an image that may be loaded already, from its start."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        with open(getattr(image, "filename", "") or "", "rb") as again:
            yield again
        return
    place = file.tell()
    try:
        file.seek(0)
        yield file
    finally:
        file.seek(place)


def _png_chunk(file: BinaryIO, wanted: bytes) -> bytes | None:
    """The data of a chunk before the pixels."""
    file.seek(8)
    for _ in range(_MOST_CHUNKS):
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == wanted:
            return file.read(min(length, 64))
        if kind == b"IDAT":
            break
        file.seek(length + 4, io.SEEK_CUR)
    return None


def _nclx(file: BinaryIO) -> tuple[int, int] | None:
    """Primaries and transfer function of the picture that an AVIF or HEIC shows (ISO 23008-12)."""
    data = file.read(_MOST_META)
    top = _boxes(data)
    meta = _boxes(top[b"meta"][0][4:])
    properties = _boxes(meta[b"iprp"][0])
    shown = _boxes_in_order(properties[b"ipco"][0])
    version, primary = meta[b"pitm"][0][0], meta[b"pitm"][0][4:]
    wanted = int.from_bytes(primary[: 2 if version == 0 else 4], "big")
    for table in properties[b"ipma"]:
        for place in _associated(table, wanted):
            kind, content = shown[place - 1]
            if place and kind == b"colr" and content[:4] == b"nclx":
                return struct.unpack(">HH", content[4:8])
    return None


def _associated(table: bytes, wanted: int) -> list[int]:
    """The numbers, from 1, of an item's properties."""
    version, wide = table[0], table[3] & 1
    count, at = int.from_bytes(table[4:8], "big"), 8
    size, step = (2 if version == 0 else 4), (2 if wide else 1)
    for _ in range(min(count, len(table))):
        item, several = int.from_bytes(table[at : at + size], "big"), table[at + size]
        at += size + 1
        if item == wanted:
            parts = [int.from_bytes(table[at + n * step : at + (n + 1) * step], "big") for n in range(several)]
            return [part & (0x7FFF if wide else 0x7F) for part in parts]
        at += several * step
    return []


def _boxes(data: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {b"meta": [], b"iprp": [], b"ipco": [], b"pitm": [], b"ipma": []}
    for kind, content in _boxes_in_order(data):
        found.setdefault(kind, []).append(content)
    return found


def _boxes_in_order(data: bytes) -> list[tuple[bytes, bytes]]:
    boxes, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if size < 8:  # 64-bit sizes, and to the end: of pixels
            break
        boxes.append((kind, data[at + 8 : at + size]))
        at += size
    return boxes
