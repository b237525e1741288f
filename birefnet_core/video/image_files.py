"""Frames from image files: sequences, and animations that FFmpeg does not read, or not everywhere."""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ..colour_profiles import differs_from_srgb, profile_of, space_of
from ..errors import ImageError, VideoError
from ..image_colours import coding_of
from ..image_reading import opened_image, read_image_file
from ..images import as_srgb, to_bytes
from ..pillow_files import header_of, orientation
from ..text import first_line
from .containers import ContainerSource, Damage, Packets, SharedBytes, Source, check_size, source_name
from .options import Limits
from .pyav import av

# Suffix -> FFmpeg's demuxer of a single image. Named, as by itself FFmpeg takes "%" in a name for a pattern.
IMAGE_DEMUXERS = {
    ".png": "png_pipe", ".jpg": "jpeg_pipe", ".jpeg": "jpeg_pipe", ".exr": "exr_pipe", ".tif": "tiff_pipe",
    ".tiff": "tiff_pipe", ".bmp": "bmp_pipe", ".dpx": "dpx_pipe", ".webp": "webp_pipe",
}  # fmt: skip
# TIFF tags, and what they have in files that FFmpeg reads right: numbers of 16 bits; greys or RGB; alpha of its own.
_TILE_WIDTH, _PLAIN = 322, {258: {16}, 262: {0, 1, 2}, 338: {2}, 339: {1, 2}}
# Suffix -> Pillow's names of what is in such files; FFmpeg's demuxers above expect that, and nothing else.
_CONTENTS = {
    ".png": ("PNG",), ".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".tif": ("TIFF",), ".tiff": ("TIFF",),
    ".bmp": ("BMP", "DIB"), ".webp": ("WEBP",),
}  # fmt: skip
MILLISECONDS = Fraction(1, 1000)


def find_sequence(source: str | Path) -> list[Path] | None:
    """The images of a sequence in order of their numbers; None where the source is a single file.

    Args:
        source: A folder, a printf pattern such as ``shot/%04d.png``, or a glob such as ``shot/*.exr``.

    Raises:
        VideoError: A folder or pattern without images.
    """
    path = Path(source)
    if os.path.isfile(path):
        return None
    if os.path.isdir(path):
        folder, accepted = path, re.compile(".*")
    elif re.search(r"%\d*d", path.name):
        folder, accepted = path.parent, re.compile(_expression(path.name, r"%\d*d", r"\\d+"))
    elif "*" in path.name:
        folder, accepted = path.parent, re.compile(_expression(path.name, r"\*", ".*"))
    else:
        return None
    images = sorted(
        (
            file
            for file in (folder.iterdir() if os.path.isdir(folder) else ())
            if file.suffix.lower() in IMAGE_DEMUXERS and accepted.fullmatch(file.name) and not file.name.startswith(".")
        ),
        key=lambda file: (
            [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)],
            file.name,  # of 1.png and 01.png, which a folder lists in any order
        ),
    )
    if not images:
        known = ", ".join(IMAGE_DEMUXERS)
        raise VideoError(f"{source}: no images there, expected a clip or a sequence of images ({known}).")
    return images


def missing_numbers(images: list[Path]) -> int:
    """How many images are missing by the numbers in their names, which may go on in steps; 0 of other names."""
    names = [re.fullmatch(r"(.*?)(\d+)(\D*)", file.name) for file in images]
    if not all(names) or len({(name[1], name[3]) for name in names if name}) != 1:
        return 0
    numbers = [int(name[2]) for name in names if name]
    steps = [later - number for number, later in itertools.pairwise(numbers)]
    step = min(steps, default=1)
    return sum(other // step - 1 for other in steps) if step > 0 else 0


def is_webp(source: Source) -> bool:
    """By content, not by name."""
    try:
        with SharedBytes(source) if isinstance(source, io.BytesIO) else open(source, "rb") as file:
            head = file.read(12)
    except (OSError, ValueError):  # the latter of names that no file can have
        return False
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


class SequenceSource:
    """A sequence of image files at a constant rate; see ``ContainerSource``."""

    def __init__(self, name: str, images: list[Path], rate: Fraction, limits: Limits) -> None:
        self.name, self._images, self._limits = name, images, limits
        self.rate: Fraction | None = rate
        self.time_base = 1 / rate
        self.frames: int | None = len(images)
        self.duration: float | None = float(len(images) * self.time_base)
        self.end = self.duration
        self.end_pts: int | None = None
        self._first = 0
        missing = missing_numbers(images)
        self.notes = [f"{missing} numbers are missing among the images; those after follow at once"] if missing else []
        if _keeps_other_colours(images[0]):
            self.notes.append(
                "the images have 16 bits and a colour profile that is not sRGB's, whose colours were taken for sRGB; "
                "convert them to sRGB before"
            )

    def close(self) -> None:
        pass

    def seek(self, seconds: Fraction) -> None:
        self._first = max(int(seconds / self.time_base), 0)

    def read(self) -> Iterator[Packets]:
        for number in range(self._first, len(self._images)):
            path = self._images[number]
            try:
                yield Packets(_by_pillow(path) if _is_beyond_ffmpeg(path) else self._by_ffmpeg(path), number, 1)
            except StopIteration:
                raise Damage(f"{path} holds no image") from None
            except (VideoError, ImageError) as error:
                raise Damage(str(error)) from error

    def _by_ffmpeg(self, path: Path) -> av.VideoFrame:
        source = ContainerSource(path, self._limits, IMAGE_DEMUXERS[path.suffix.lower()])
        try:
            return next(source.read()).frame
        finally:
            source.close()


def _is_beyond_ffmpeg(path: Path) -> bool:
    """Whether FFmpeg cannot read an image, scrambles it, takes its colours for others or does not turn it.

    It goes by the name, and passes over colour profiles and over linear light of PNG. Of TIFF it knows the plain ones,
    and those alone keep more than 8 bits; of EXIF, by its version, all or nothing, and PyAV 18 does not tell what is
    mirrored.
    """
    if path.suffix.lower() not in _CONTENTS:
        return False
    try:
        with opened_image(path) as image:
            if image.format not in _CONTENTS[path.suffix.lower()]:
                return True
            if image.format == "TIFF":
                tags: Any = image.tag_v2  # type: ignore[attr-defined]
                if _TILE_WIDTH in tags or any(not _listed(tags.get(tag)) <= known for tag, known in _PLAIN.items()):
                    return True
            if _has_other_colours(image) and not _is_deep(image):
                return True
            if image.format == "PNG":
                if (coding := coding_of(image)) is not None and coding.transfer == "gamma":
                    return True
                if "exif" not in image.info:  # or all of it is read to look for more
                    return False
            return orientation(image) != 1
    except (ImageError, MemoryError):  # said when it is read; or Pillow does not know it, and FFmpeg may
        return False


def _keeps_other_colours(path: Path) -> bool:
    """Whether a profile would have to be applied to more than 8 bits, which Pillow cannot."""
    try:
        with opened_image(path) as image:
            return _is_deep(image) and _has_other_colours(image)
    except (ImageError, MemoryError):
        return False


def _has_other_colours(image: Image.Image) -> bool:
    """Whether a profile says that an image's numbers are not sRGB."""
    profile = profile_of(image)
    return image.mode in ("CMYK", "LAB") or space_of(profile) == b"GRAY" or differs_from_srgb(profile)


def _is_deep(image: Image.Image) -> bool:
    return ";16" in header_of(image).packing


def _listed(value: Any) -> set[Any]:
    return set(value) if isinstance(value, tuple) else {value} - {None}


def _by_pillow(path: Path) -> av.VideoFrame:
    file = as_srgb(read_image_file(path))
    pixels = file.colours if file.alpha is None else torch.cat([file.colours, file.alpha.unsqueeze(-1)], dim=-1)
    return av.VideoFrame.from_ndarray(to_bytes(pixels), format="rgb24" if file.alpha is None else "rgba")


class PillowSource:
    """An animation by Pillow: WebP, and GIF; see ``ContainerSource``."""

    def __init__(self, source: Source, limits: Limits, kind: str) -> None:
        self.name = source_name(source)
        try:
            file: Any = SharedBytes(source) if isinstance(source, io.BytesIO) else source
            self._image = Image.open(file, formats=[kind])
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(f"{self.name}: cannot be read as {kind} ({first_line(error)}).") from error
        check_size(self.name, *self._image.size, limits)
        self.time_base = MILLISECONDS
        self.rate: Fraction | None = None
        self.frames: int | None = getattr(self._image, "n_frames", 1)
        self.duration: float | None = None
        self.end: float | None = None
        self.end_pts: int | None = None

    def close(self) -> None:
        self._image.close()

    def seek(self, seconds: Fraction) -> None:
        pass

    def read(self) -> Iterator[Packets]:
        pts = 0
        for number in range(self.frames or 1):
            try:
                self._image.seek(number)
                pixels = np.ascontiguousarray(self._image.convert("RGBA"))
            except (OSError, EOFError, SyntaxError, ValueError) as error:
                raise Damage(f"frame {number + 1} cannot be decoded ({first_line(error)})") from error
            duration = int(self._image.info.get("duration", 0)) or 100  # as browsers do where there is none
            yield Packets(av.VideoFrame.from_ndarray(pixels, format="rgba"), pts, duration)
            pts += duration


def _expression(name: str, wildcard: str, meaning: str) -> str:
    """A regular expression for a file name with wildcards."""
    return meaning.replace("\\\\", "\\").join(re.escape(part) for part in re.split(wildcard, name))
