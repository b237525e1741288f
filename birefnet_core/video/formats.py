"""What can be written: codecs, the files they go into, and the pixels they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS = ("cutout", "mask", "composite")

# Suffix -> FFmpeg's muxer.
MUXERS = {
    ".mov": "mov", ".mp4": "mp4", ".mkv": "matroska", ".webm": "webm",
    ".webp": "webp", ".gif": "gif", ".apng": "apng", ".png": "apng",
}  # fmt: skip
# Files that are taken for clips where a folder is given.
CLIP_SUFFIXES = frozenset(
    {
        *MUXERS, ".m4v", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp", ".mxf",
    } - {".png", ".webp"}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A way to write frames.

    Attributes:
        encoders: FFmpeg's encoders; the first that is there is used.
        suffixes: Of the files it goes into; empty for a folder with an image for each frame.
        kinds: What it is for.
        formats: FFmpeg's pixel format for a kind of output. Where the clip has more than 8 bits the name with "deep "
            before it is taken, if there is one.
        bits: Of the values handed to the encoder: 8, or 16 where it keeps more than 8; 32 is floating point.
        hdr: Whether the colours of an HDR clip are written as they are; otherwise they are tone-mapped.
        crf: Default quality, lower is better; None where there is no such number.
        crf_range: The least and the greatest that encoders obey.
        options: Of the encoder.
        cutout_options: More of them for cut-outs.
    """

    encoders: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS
    formats: Mapping[str, str]
    bits: int = 8
    hdr: bool = False
    crf: int | None = None
    crf_range: tuple[int, int] = (0, 51)
    options: Mapping[str, str] = field(default_factory=dict)
    cutout_options: Mapping[str, str] = field(default_factory=dict)

    def pixel_format(self, kind: str, deep: bool) -> str:
        """FFmpeg's name, for a kind of output and a clip of more than 8 bits or not."""
        return (self.formats.get(f"deep {kind}") if deep else None) or self.formats[kind]


_FILM = (".mp4", ".mov", ".mkv")
_FILM_FORMATS = {"mask": "yuv420p", "composite": "yuv420p", "deep composite": "yuv420p10le"}

CODECS: dict[str, Codec] = {
    "prores": Codec(
        encoders=("prores_ks",),
        suffixes=(".mov",),
        kinds=("cutout", "composite"),
        formats={"cutout": "yuva444p10le", "composite": "yuv444p10le"},
        bits=16,
        hdr=True,
        options={"profile": "4444", "vendor": "apl0"},
        cutout_options={"alpha_bits": "16"},
    ),
    "vp9": Codec(
        encoders=("libvpx-vp9",),
        suffixes=(".webm", ".mkv"),
        kinds=("cutout", "composite"),
        formats={"cutout": "yuva420p", "composite": "yuv420p"},
        crf=8,
        crf_range=(0, 63),
        options={"row-mt": "1", "deadline": "good", "cpu-used": "4"},
        cutout_options={"auto-alt-ref": "0"},  # libvpx refuses alpha otherwise
    ),
    "h264": Codec(
        encoders=("libx264",), suffixes=_FILM, kinds=("mask", "composite"), formats=_FILM_FORMATS, hdr=True, crf=16,
        options={"preset": "medium"},
    ),
    "hevc": Codec(
        encoders=("libx265",), suffixes=_FILM, kinds=("mask", "composite"), formats=_FILM_FORMATS, hdr=True, crf=18,
        options={"preset": "medium", "x265-params": "log-level=error"},
    ),
    "av1": Codec(
        encoders=("libsvtav1", "libaom-av1"), suffixes=(".mp4", ".mkv", ".webm"), kinds=("mask", "composite"),
        formats=_FILM_FORMATS, hdr=True, crf=24, crf_range=(1, 63), options={},  # to SVT-AV1 0 is its default
    ),
    "ffv1": Codec(
        encoders=("ffv1",), suffixes=(".mkv",), kinds=("mask",), formats={"mask": "gray16le"}, bits=16,
        options={"level": "3", "slicecrc": "1"},
    ),
    "webp": Codec(
        encoders=("libwebp_anim",), suffixes=(".webp",), kinds=("cutout", "composite"),
        formats={"cutout": "bgra", "composite": "bgra"}, options={"quality": "90"},
    ),
    "gif": Codec(
        encoders=("gif",), suffixes=(".gif",), kinds=("cutout", "composite"),
        formats={"cutout": "pal8", "composite": "pal8"},
    ),
    "apng": Codec(
        encoders=("apng",), suffixes=(".apng", ".png"), kinds=("cutout", "composite"),
        formats={"cutout": "rgba", "composite": "rgb24"},
    ),
    "png": Codec(
        encoders=("png",), formats={"cutout": "rgba64be", "mask": "gray16be", "composite": "rgb48be"}, bits=16,
        hdr=True,
    ),
    "exr": Codec(
        encoders=("exr",), formats={"cutout": "gbrapf32le", "mask": "grayf32le", "composite": "gbrpf32le"}, bits=32,
        hdr=True, options={"format": "half", "compression": "zip16"},
    ),
}  # fmt: skip

# Kind of output -> suffix -> codec, where none is named.
DEFAULTS: dict[str, dict[str, str]] = {
    "cutout": {
        ".mov": "prores", ".webm": "vp9", ".mkv": "vp9", ".webp": "webp", ".gif": "gif", ".apng": "apng",
        ".png": "apng", "": "png",
    },
    "mask": {".mkv": "ffv1", ".mp4": "h264", ".mov": "h264", ".webm": "av1", "": "png"},
    "composite": {
        ".mp4": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9", ".webp": "webp", ".gif": "gif",
        ".apng": "apng", ".png": "apng", "": "png",
    },
}  # fmt: skip
