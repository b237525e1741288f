"""What to read and what to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Rational
from pathlib import Path
from typing import Any

from ..checks import check_choice, check_kind, check_number, check_switch
from ..errors import ConfigError
from ..files import path_of
from ..masks import FITS, METHODS, RefineOptions
from ..masks.compose import Color, parse_color
from ..text import did_you_mean
from .formats import CODECS, DEFAULTS, KINDS, Codec

MOST_SECONDS = 1_000_000_000  # of a cut, 31 years; in nanoseconds FFmpeg's 64 bits hold nine times as many


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on clips, which may come from anybody; checked before memory is taken.

    Attributes:
        side: Most pixels of a frame's width or height.
        pixels: Most pixels of a frame.
        frames: Most frames that are decoded.

    Raises:
        ConfigError: No whole number above 0.
    """

    side: int = 16384
    pixels: int = 2**26  # 8192 x 8192
    frames: int = 1_000_000  # nine hours at 30 frames per second

    def __post_init__(self) -> None:
        for name in ("side", "pixels", "frames"):
            check_number(name, value := getattr(self, name), whole=True)
            if value < 1:
                raise ConfigError(f"{name} is {value}, expected 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A file to write, or a folder with an image for each frame.

    Attributes:
        path: The file; without a suffix, the folder.
        kind: "cutout" (the subject with transparency), "mask", or "composite" (the subject over a background).
        codec: A key of ``CODECS``; None takes what ``DEFAULTS`` has for the path's suffix.
        crf: Quality of lossy codecs that know one, lower is better; None for the codec's default.
        premultiplied: Whether a cut-out's colours are multiplied with alpha; straight otherwise.
        background: For a composite: a colour as for ``masks.parse_color``, or the path of an image or clip. A clip
            that ends before the subject's begins again.
        fit: How an image or clip lies behind the subject; see ``masks.over_image``.
        audio: Whether to take along audio and subtitles where the file can hold them. Masks have none.

    Raises:
        ConfigError: What cannot be written like that.
    """

    path: Path
    kind: str = "cutout"
    codec: str | None = None
    crf: int | None = None
    premultiplied: bool = False
    background: Color | Path | None = None
    fit: str = FITS[0]
    audio: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", path_of(self.path, "path"))
        for name in ("premultiplied", "audio"):
            check_switch(name, getattr(self, name))
        for name, value, known in (("kind", self.kind, KINDS), ("fit", self.fit, FITS)):
            check_choice(name, value, known)
        suffix = self.path.suffix.lower()
        if self.codec is None:
            defaults = DEFAULTS[self.kind]
            if suffix not in defaults:
                files = ", ".join(known or "a folder" for known in defaults)
                raise ConfigError(f"{self.path}: a {self.kind} is written as {files}; there is no {suffix!r}.")
            object.__setattr__(self, "codec", defaults[suffix])
        self._check_codec(suffix)
        if (self.background is None) == (self.kind == "composite"):
            raise ConfigError(
                f"{self.path}: a composite needs a background, and only a composite has one "
                f"(kind={self.kind!r}, background={self.background!r})."
            )
        if self.background is not None and not isinstance(self.background, Path):
            parse_color(self.background)

    def _check_codec(self, suffix: str) -> None:
        if not isinstance(self.codec, str) or self.codec not in CODECS:
            known = ", ".join(CODECS)
            raise ConfigError(
                f"codec is {self.codec!r}, expected one of {known}.{did_you_mean(str(self.codec), CODECS)}"
            )
        row = CODECS[self.codec]
        if self.kind not in row.kinds:
            fitting = ", ".join(name for name, other in CODECS.items() if self.kind in other.kinds)
            raise ConfigError(f"{self.path}: {self.codec} cannot hold a {self.kind}; use one of {fitting}.")
        if row.suffixes and suffix not in row.suffixes:
            raise ConfigError(f"{self.path}: {self.codec} is written to {' or '.join(row.suffixes)} files.")
        if not row.suffixes and suffix in {s for other in CODECS.values() for s in other.suffixes}:
            raise ConfigError(f"{self.path}: {self.codec} writes an image for each frame; give a folder.")
        if self.crf is not None:
            self._check_crf(self.crf, row)

    def _check_crf(self, crf: int, row: Codec) -> None:
        least, most = row.crf_range
        if row.crf is None:
            having = [name for name, other in CODECS.items() if other.crf is not None and self.kind in other.kinds]
            raise ConfigError(
                f"crf={crf}: {self.codec} has none; leave it out, or use a codec that has: {', '.join(having)}."
            )
        check_number("crf", crf, whole=True)
        if not least <= crf <= most:
            raise ConfigError(f"crf={crf}: expected {least} (best) to {most} for {self.codec}.")

    @property
    def format(self) -> Codec:
        return CODECS[self.codec or ""]

    @property
    def is_folder(self) -> bool:
        return not self.format.suffixes


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How a clip is read and its masks are made.

    Attributes:
        size: Size for the network; see ``Segmenter.network_size``.
        tiled: Refine at native resolution; see ``Segmenter``.
        flip: Average with the mask of the flipped frame; takes twice as long.
        refine: What is done to each mask. ``temporal_radius`` frames before and after are averaged along the motion,
            before everything else; see ``steady.TemporalFilter``.
        temporal_strength: Weight of the neighbours in that average, 0 to 1.
        every: The network runs on at least one of so many frames, and on more where the clip moves; the masks between
            are fetched along the motion, see ``keyframes.Keyframes``. 1 runs it on all.
        colors: Method of ``estimate_foreground``; None keeps the clip's colours, in which the old background shines
            through at soft edges.
        start_time: Seconds to begin at; negative counts from the end.
        duration: Seconds to take; None or 0 for all.
        frame_rate: Of image sequences, which have none.
        keep_partial: Whether what is finished becomes a valid file where a clip turns out to be damaged or the run is
            cancelled. Otherwise nothing stays.
        overwrite: Whether to replace outputs that are already there.
        limits: Bounds on clips.

    Raises:
        ConfigError: A value out of its range.
    """

    size: Any = None
    tiled: bool = False
    flip: bool = False
    refine: RefineOptions = field(default_factory=RefineOptions)
    temporal_strength: float = 1.0
    every: int = 1
    colors: str | None = METHODS[0]
    start_time: float = 0.0
    duration: float | None = None
    frame_rate: Fraction | float = Fraction(25)
    keep_partial: bool = False
    overwrite: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("tiled", "flip", "keep_partial", "overwrite"):
            check_switch(name, getattr(self, name))
        check_kind("refine", self.refine, RefineOptions)
        check_kind("limits", self.limits, Limits)
        check_number("every", self.every, whole=True)
        for name in ("temporal_strength", "start_time", "duration", "frame_rate"):
            if name == "duration" and self.duration is None:
                continue
            check_number(name, value := getattr(self, name))
            if not isinstance(value, Rational):  # floats of numpy, of which Python makes no fraction
                object.__setattr__(self, name, float(value))
        check_choice("colors", self.colors, (*METHODS, None))
        if self.every < 1:
            raise ConfigError(f"every is {self.every}, expected 1 (all frames) or more.")
        if not 0 <= self.temporal_strength <= 1:
            raise ConfigError(f"temporal_strength is {self.temporal_strength}, expected 0 to 1.")
        if not abs(self.start_time) <= MOST_SECONDS:
            raise ConfigError(f"start_time is {self.start_time}, expected seconds, at most {MOST_SECONDS}.")
        if self.duration is not None and not 0 <= self.duration <= MOST_SECONDS:
            raise ConfigError(
                f"duration is {self.duration}, expected seconds above 0, at most {MOST_SECONDS}, or None for all."
            )
        if not 0 < self.frame_rate <= 1000:
            raise ConfigError(f"frame_rate is {self.frame_rate}, expected above 0 and at most 1000 per second.")
