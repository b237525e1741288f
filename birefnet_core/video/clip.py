"""Clips as streams of upright RGB frames, whatever they are stored as.

Shapes: H W pixels, C colours and alpha.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch

from ..errors import VideoError
from ..transfer import TO_709, srgb_from_linear
from .containers import ContainerSource, Damage, Packets, Source, check_size, source_name
from .image_files import PillowSource, SequenceSource, find_sequence, is_webp
from .options import Limits
from .orientation import Orientation, Orientations
from .pyav import FAILURES, PLANAR, av, reason, reformat, rgba_of
from .recordings import Joined

# FFmpeg's numbers (ITU-T H.273).
BT709, UNSPECIFIED, RGB, SRGB_TRANSFER = 1, 2, 0, 13
LIMITED, FULL = 1, 2
TRANSFERS = {16: "pq", 18: "hlg"}
# Matrix -> swscale's number of its coefficients; 5, those of BT.601, is what FFmpeg takes for unspecified ones.
MATRICES = {BT709: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
BT601 = 5
A_MOMENT = Fraction(1, 100)  # of a frame: times are typed in decimals
MOST_STEPS = 100  # frames; a last frame is not shown for longer, whatever the clip declares


class Colour(NamedTuple):
    """Colour tags by FFmpeg's numbers (ITU-T H.273)."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0  # not said, which is limited

    @property
    def coefficients(self) -> int:
        """swscale's number of the matrix."""
        return MATRICES.get(self.matrix, BT601)

    @property
    def samples(self) -> int:
        """The range of the samples: ``LIMITED`` or ``FULL``."""
        return FULL if self.range == FULL else LIMITED


class Frame(NamedTuple):
    """One upright frame.

    Attributes:
        pts: When it is shown, in units of the clip's time base.
        duration: How long, in the same; 0 where the clip does not say.
        pixels: H, W, C with C = 3 or 4 (straight alpha), uint8 or uint16, as the clip's transfer function codes them.
            C and the type are those of the frame, which may differ from the first one's.
    """

    pts: int
    duration: int
    pixels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a clip is.

    Attributes:
        name: Path.
        width: Of upright frames, in pixels.
        height: Of upright frames.
        time_base: Unit of the timestamps, in seconds.
        rate: Frames per second on average.
        frames: As declared, for progress only; None where unknown.
        bits: Of a colour: 8, or 16 for everything above.
        alpha: Whether the first frame has an alpha channel.
        colour: Tags, of what is to be written; RGB clips get those of sRGB.
        transfer: "sdr", "pq" or "hlg".
        orientation: From stored frames to upright ones.
        pixel_aspect: Width by height of a pixel, upright.
        interlaced: Whether frames are two fields.
        field_order: FFmpeg's number, 0 where unknown, as with older PyAV.
        start: Seconds the timestamps were moved back by: what was cut off before, and what a recording starts at.
        end: Seconds of the clip's own time at which it was cut, or None.
    """

    name: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    frames: int | None
    bits: int
    alpha: bool
    colour: Colour
    transfer: str
    orientation: Orientation
    pixel_aspect: Fraction
    interlaced: bool
    field_order: int
    start: Fraction
    end: Fraction | None


class Clip:
    """A clip, opened, with its first frame decoded. Iterating gives its frames, once.

    Args:
        source: A video file or its bytes; a folder of images or a pattern, see ``find_sequence``.
        start_time: Seconds to begin at; negative counts from the end.
        duration: Seconds to take; None or 0 for all.
        frame_rate: Of image sequences.
        limits: Bounds.

    Attributes:
        info: What it is.
        notes: What was done to frames that are not as the others.

    Raises:
        VideoError: Nothing that can be read, or not a single frame.
    """

    def __init__(
        self,
        source: Source,
        *,
        start_time: float = 0.0,
        duration: float | None = None,
        frame_rate: Fraction | float = Fraction(25),
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self.name, self.notes, self._orientations = source_name(source), set[str](), Orientations()
        self._source = open_source(source, Fraction(frame_rate).limit_denominator(1001), self._limits)
        try:
            self._recorded_at = self._find_beginning()
            rate = self._source.rate or Fraction(25)
            self._step = max(1, round(1 / rate / self._source.time_base))
            self._trim(start_time, duration)
            self._frames = self._read()
            first = next(self._frames, None)
            if first is None:
                raise VideoError(f"{self.name}: {self._why_no_frame(start_time, duration)}")
            self._first: Packets | None = first
            at, begin = Fraction(first.pts or 0) * self._source.time_base, self._recorded_at
            # A recording whose first timestamps are damaged may say that it begins later.
            self._start = at if self._trimmed or at < begin else begin
            self.info = self._describe(first.frame)
        except Damage as error:
            self.close()
            raise VideoError(f"{self.name}: not a single frame: {error}.") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Clip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            Damage: The clip is damaged after the frames that came.
            VideoError: It has more frames than the limits allow.
        """
        first, self._first = self._first, None
        shift = round(self._start / self._source.time_base)
        if first is not None:
            yield self._convert(first, shift)
        for count, packets in enumerate(self._frames, 2):
            if count > self._limits.frames:
                raise VideoError(f"{self.name}: more than {self._limits.frames} frames; cut it, or raise the limits.")
            yield self._convert(packets, shift)

    def _trim(self, start_time: float, duration: float | None) -> None:
        """Finds the cut in the clip's own time."""
        start, begin = _exact(start_time), self._recorded_at
        if start < 0:
            if isinstance(self._source, ContainerSource):
                self._source.find_end()
            if not self._source.end:
                raise VideoError(f"{self.name}: its length is not known; give a start that counts from the beginning.")
            start = max(start + _exact(self._source.end or 0) - begin, Fraction(0))
        self._end = begin + start + _exact(duration) if duration else None
        self._trimmed = bool(start) or self._end is not None  # the end may be 0, of a clip that begins before
        first = self._units(begin + start)
        self._first_pts = first if start else None
        # At least one unit: those of sequences and AVI are as long as a frame.
        self._end_pts = None if self._end is None else max(self._units(self._end), first + 1)
        if start:
            self._source.seek(begin + start)

    def _units(self, seconds: Fraction) -> int:
        """A time in units of the timestamps, which are rounded; frames from it on are those from this number on."""
        units = seconds / self._source.time_base
        return math.ceil(units - A_MOMENT) if self._step == 1 else int(units)

    def _why_no_frame(self, start_time: float, duration: float | None) -> str:
        if not self._trimmed:
            return "no frame could be decoded, expected at least one; is it damaged?"
        length = (self._source.end or 0) - float(self._recorded_at)
        ends = f"; the clip ends at {length:.2f} s" if length > 0 else ""
        part = f"from {start_time:g} s on" + (f" within {duration:g} s" if duration else "")
        return f"no frame {part}{ends}. Choose another start or a longer duration."

    def _find_beginning(self) -> Fraction:
        return self._source.begins_at() if isinstance(self._source, ContainerSource) else Fraction(0)

    def _read(self) -> Iterator[Packets]:
        """Frames within the cut, with increasing timestamps, each shown until the next.

        Durations of packets are of no use where the order of decoding is another; only the last frame's is taken.
        """
        held: Packets | None = None
        try:
            for packets in self._timed():
                if held is not None:
                    yield held._replace(duration=packets.pts - held.pts)  # type: ignore[operator]
                held = packets
                if self._end_pts is not None and (packets.pts or 0) >= self._end_pts:
                    return
        except Damage:
            if held is not None:
                yield held
            raise
        if held is not None:
            left = (self._source.end_pts or 0) - (held.pts or 0)
            yield held._replace(duration=left if 0 < left < MOST_STEPS * self._step else held.duration or self._step)

    def _timed(self) -> Iterator[Packets]:
        """Frames from the start of the cut on, with increasing timestamps."""
        last: int | None = None
        source = self._source
        joined = None
        if isinstance(source, ContainerSource):
            joined = Joined(source.container, source.time_base, source.shift)
        for frame, pts, duration in source.read():
            if pts is not None and joined is not None:
                pts += joined(pts, self._step)
            if pts is None or (last is not None and pts <= last):
                pts = 0 if last is None else last + self._step
            last = pts
            if self._first_pts is None or pts >= self._first_pts:
                yield Packets(frame, pts, duration)

    def _describe(self, frame: av.VideoFrame) -> VideoInfo:
        check_size(self.name, frame.width, frame.height, self._limits)
        source, stream = self._source, None
        self.notes.update(source.notes if isinstance(source, SequenceSource) else ())
        if isinstance(source, ContainerSource):
            stream = source.stream
            if source.videos > 1:
                size = f"{frame.width} x {frame.height}"
                self.notes.add(f"of its {source.videos} video streams the one of {size} was taken")
        self._stream, self._first_size = stream, (frame.width, frame.height)
        colour, transfer = colour_of(frame, stream)
        orientation = self._orientations.of(frame, self._stream)
        width, height = orientation.size(frame.width, frame.height)
        aspect = (stream.sample_aspect_ratio if stream else None) or Fraction(1)
        rgb, layout = colour.matrix == RGB, rgb_format(frame)
        gamut = colour.primaries if colour.primaries in TO_709 else BT709
        return VideoInfo(
            name=self.name,
            width=width,
            height=height,
            time_base=source.time_base,
            rate=source.rate or Fraction(25),
            frames=self._expected(),
            bits=8 if layout in ("rgb24", "rgba") else 16,
            alpha=layout in ("rgba", "rgba64le", "gbrapf32le"),
            colour=Colour(gamut, SRGB_TRANSFER, BT709, LIMITED) if rgb and transfer == "sdr" else colour,
            transfer=transfer,
            orientation=orientation,
            pixel_aspect=1 / aspect if orientation.transpose else aspect,
            interlaced=bool(frame.interlaced_frame),
            field_order=getattr(stream.codec_context, "field_order", 0) if stream else 0,
            start=self._start,
            end=self._end,
        )

    def _expected(self) -> int | None:
        """Frames by what is declared: for progress, never for memory."""
        source = self._source
        if not self._trimmed and source.frames:
            return source.frames
        if not self._trimmed:
            seconds = source.duration
        else:
            end = source.end or math.inf
            seconds = (end if self._end is None else min(float(self._end), end)) - float(self._start)
        if not seconds or not math.isfinite(seconds) or not source.rate:
            return None
        return max(1, round(seconds * float(source.rate)))

    def _convert(self, packets: Packets, shift: int) -> Frame:
        """A frame as it says of itself: recordings change their colours, sequences mix files."""
        frame, pts, duration = packets
        orientation = self._orientations.of(frame, self._stream)
        size = orientation.size(self.info.width, self.info.height)
        if (frame.width, frame.height) != size:
            check_size(self.name, frame.width, frame.height, self._limits)
            width, height = self._first_size
            self.notes.add(f"frames of {frame.width} x {frame.height} were resized to {width} x {height}")
        if getattr(frame, "is_corrupt", False):
            self.notes.add("some frames are damaged: the decoder filled gaps in the data")
        try:
            pixels = to_rgb(frame, rgb_format(frame), colour_of(frame, self._stream)[0], size)
        except FAILURES as error:
            raise Damage(f"a frame of {frame.format.name} cannot be converted ({reason(error)})") from error
        return Frame((pts or 0) - shift, duration, orientation.upright(pixels))


def open_source(source: Source, rate: Fraction, limits: Limits) -> ContainerSource | SequenceSource | PillowSource:
    """Opens what a path or bytes hold."""
    if not isinstance(source, io.BytesIO) and (images := find_sequence(source)) is not None:
        return SequenceSource(str(source), images, rate, limits)
    if is_webp(source):
        return PillowSource(source, limits, "WEBP")
    found = ContainerSource(source, limits)
    if found.container.format.name == "gif" and found.has_lost_frames():
        found.close()
        return PillowSource(source, limits, "GIF")
    return found


def rgb_format(frame: av.VideoFrame) -> str:
    """The format that holds a frame's colours: rgb24, rgba, rgb48le, rgba64le; for light gbr(a)pf32le, grayf32le."""
    components = frame.format.components
    alpha = frame.format.name == "pal8" or any(component.is_alpha for component in components)
    if "f16" in frame.format.name or "f32" in frame.format.name:
        if len(components) == 1:  # swscale turns half-precision grey into wrong RGB
            return "grayf32le"
        return "gbrapf32le" if alpha else "gbrpf32le"
    if any(component.bits > 8 for component in components):
        return "rgba64le" if alpha else "rgb48le"
    return "rgba" if alpha else "rgb24"


def colour_of(frame: av.VideoFrame, stream: av.VideoStream | None) -> tuple[Colour, str]:
    """A frame's colour tags and the name of its transfer function."""
    context = stream.codec_context if stream else None

    def tag(name: str, unknown: int = UNSPECIFIED) -> int:
        value = getattr(frame, name, unknown)
        return int(value if value != unknown or context is None else getattr(context, name, unknown))

    full = frame.format.name.startswith(("yuvj", "gray"))
    matrix = RGB if frame.format.is_rgb or frame.format.name == "pal8" else tag("colorspace")
    transfer = tag("color_trc")
    # Floating point is light in linear units (EXR), and read as sRGB.
    name = "sdr" if "f32" in frame.format.name or "f16" in frame.format.name else TRANSFERS.get(transfer, "sdr")
    return Colour(tag("color_primaries"), transfer, matrix, FULL if full else tag("color_range", 0)), name


def to_rgb(frame: av.VideoFrame, rgb: str, colour: Colour, size: tuple[int, int]) -> np.ndarray:
    """A decoded frame as H, W, C of a format from ``rgb_format``; light becomes sRGB in 16 bits."""
    if frame.format.name != rgb or (frame.width, frame.height) != size:
        source = colour.coefficients
        coding: dict[str, int] = {
            "src_colorspace": source,
            # Ignored for RGB, but older PyAV sets the matrix only where the two differ.
            "dst_colorspace": BT709 if source != BT709 else BT601,
            "src_color_range": colour.samples,
            "dst_color_range": FULL,
        }
        if "f32" in rgb:  # light has none of it; FFmpeg 8.0 applies it all the same
            coding = {}
        if frame.format.name == "yuva420p" and (frame.width, frame.height) == size and frame.width % 16:
            return rgba_of(frame, **coding)
        frame = reformat(frame, width=size[0], height=size[1], format=PLANAR[size[0] % 2].get(rgb, rgb), **coding)
    pixels = frame.to_ndarray()
    if pixels.dtype != np.float32:
        return pixels
    if rgb == "grayf32le":
        pixels = pixels.reshape(*pixels.shape[:2], 1).repeat(3, axis=2)
    light = torch.from_numpy(np.array(pixels))
    light[..., :3] = srgb_from_linear(light[..., :3])
    return (light.clamp(0, 1) * 65535).round().numpy().astype(np.uint16)


def _exact(seconds: float) -> Fraction:
    """What is meant by a decimal number: 1.64 as a float is less, and lies in the frame before."""
    return Fraction(seconds).limit_denominator(1_000_000)
