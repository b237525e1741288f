"""Encoding: arrays of one frame after the other into a file, or into a folder of images.

Shapes: H W pixels, C colours and alpha. Arrays are upright.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError, VideoError
from ..transfer import TO_709
from .clip import BT601, BT709, FULL, LIMITED, SRGB_TRANSFER, UNSPECIFIED, Colour, VideoInfo
from .containers import Source
from .formats import MUXERS
from .options import Output
from .orientation import Orientation
from .own_outputs import SOFTWARE, TAG, mark
from .palette import Palette
from .pyav import FAILURES, av, reason, reformat
from .side_streams import SideStreams
from .vp9_alpha import AVAILABLE, KEYFRAMES, AlphaEncoder

# Containers whose display matrix this FFmpeg writes and players obey; in others frames are stored upright.
TURNING = ("mov", "mp4")
ENCODER_THREADS = min(8, os.cpu_count() or 1)  # FFmpeg's own default is one
SVT_MOST_RATE = 240  # SVT-AV1 refuses more; timestamps are what counts
INTERLEAVE = 1_000_000  # microseconds of one stream that wait for packets of another, in memory
GIF_RATE = 100
PNG_HEADER = 33  # bytes before the second chunk
ARRAYS = {
    (1, "u1"): "gray", (3, "u1"): "rgb24", (4, "u1"): "rgba",
    (1, "u2"): "gray16le", (3, "u2"): "rgb48le", (4, "u2"): "rgba64le",
    (1, "f4"): "grayf32le", (3, "f4"): "gbrpf32le", (4, "f4"): "gbrapf32le",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an output is written.

    Attributes:
        output: What is wanted.
        info: The clip.
        encoder: FFmpeg's.
        pixel_format: FFmpeg's.
        hdr: Whether colours stay as in an HDR clip.
        orientation: Upright to stored, where the file has a display matrix.
        colour: Tags.
        bits: Of the arrays: 8, 16 or 32.
        alpha_apart: Whether alpha is encoded by ``vp9_alpha``.
    """

    output: Output
    info: VideoInfo
    encoder: str
    pixel_format: str
    hdr: bool
    orientation: Orientation
    colour: Colour
    bits: int
    alpha_apart: bool = False


def make_plan(output: Output, info: VideoInfo, note: Callable[[str], None]) -> Plan:
    """Decides how to write an output for a clip.

    Args:
        output: What is wanted.
        info: The clip.
        note: Called with a sentence for what will be different from the clip.

    Raises:
        ConfigError: This PyAV has no encoder for it.
    """
    codec, deep = output.format, info.bits > 8
    encoder = next((name for name in codec.encoders if name in av.codecs_available and _encodes(name)), None)
    if encoder is None:
        raise ConfigError(
            f"{output.path}: this PyAV has no encoder for {output.codec} ({' or '.join(codec.encoders)}); "
            "install PyAV from its wheels (pip install av), or choose another codec."
        )
    pixel_format = codec.pixel_format(output.kind, deep)
    if info.transfer != "sdr" and not codec.hdr and output.kind != "mask":
        note(f"{output.codec} keeps no HDR colours; they were tone-mapped to SDR")
    turns = _muxer(output) in TURNING and hasattr(av.video.stream.VideoStream, "set_display_matrix")
    orientation = info.orientation if turns else Orientation()
    width, height = orientation.size(info.width, info.height)
    if pixel_format.startswith("yuv420p") and encoder in ("libx264", "libx265") and (width % 2 or height % 2):
        pixel_format = pixel_format.replace("420", "444")
        note(f"{output.codec} holds no odd sizes in 4:2:0; it is written in 4:4:4, which fewer players show")
    if info.pixel_aspect != 1 and _muxer(output) not in TURNING and encoder not in ("libx264", "libx265"):
        name, aspect = output.path.suffix or "images", info.pixel_aspect
        note(f"{output.codec} in {name} keeps no pixel aspect ({aspect.numerator}:{aspect.denominator} here)")
    alpha_apart = pixel_format == "yuva420p" and AVAILABLE
    if alpha_apart:
        pixel_format = "yuv420p"
    hdr = codec.hdr and info.transfer != "sdr"
    return Plan(
        output=output,
        info=info,
        encoder=encoder,
        pixel_format=pixel_format,
        hdr=hdr,
        orientation=orientation,
        colour=_colour(output, info, hdr, pixel_format),
        bits=16 if codec.bits == 8 and "10" in pixel_format else codec.bits,
        alpha_apart=alpha_apart,
    )


def _encodes(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except ValueError:
        return False
    return True


def _muxer(output: Output) -> str:
    return MUXERS.get(output.path.suffix.lower(), "") if output.format.suffixes else ""


def _colour(output: Output, info: VideoInfo, hdr: bool, pixel_format: str) -> Colour:
    if output.kind == "mask":
        return Colour(UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, FULL if "gray" in pixel_format else LIMITED)
    tags = info.colour if hdr or info.transfer == "sdr" else Colour(BT709, SRGB_TRANSFER, BT709, info.colour.range)
    if not pixel_format.startswith("yuv"):
        return tags._replace(matrix=0, range=FULL)
    # ProRes is limited by convention, and has no place to say otherwise.
    return tags._replace(range=LIMITED) if output.codec == "prores" and tags.range == FULL else tags


class Writer(Protocol):
    """Takes frames in order."""

    def write(self, pixels: np.ndarray, pts: int, duration: int) -> None:
        """Takes an upright frame H, W, C of the plan's bits, in the clip's time base."""

    def finish(self) -> None:
        """Completes the file."""

    def close(self) -> None:
        """Releases everything, whether finished or not."""


def open_writer(plan: Plan, part: str | Path, source: Source, note: Callable[[str], None]) -> Writer:
    """Opens what a plan describes.

    Args:
        plan: How to write.
        part: The temporary file or folder.
        source: The clip, for audio and subtitles.
        note: Called with a sentence for each stream that is not copied.

    Raises:
        VideoError: FFmpeg refuses.
    """
    try:
        if plan.output.is_folder:
            return ImageWriter(plan, Path(part))
        return FileWriter(plan, str(part), source, note)
    except FAILURES as error:
        if isinstance(error, (VideoError, ConfigError)):
            raise
        raise VideoError(f"{plan.output.path}: cannot be written as {plan.output.codec} ({reason(error)}).") from error


class FileWriter:
    """A video file, with the clip's audio and subtitles where it has a place for them."""

    def __init__(self, plan: Plan, part: str, source: Source, note: Callable[[str], None]) -> None:
        self._plan, self._part, self._side, self._note = plan, part, None, note
        self._alpha: AlphaEncoder | None = None
        muxer = _muxer(plan.output)
        self._container = av.open(part, "w", format=muxer, container_options=_container_options(muxer, plan.info))
        try:
            self._stream = self._add_video()
            films = muxer in ("mov", "mp4", "matroska", "webm")
            if films and plan.output.audio and plan.output.kind != "mask":
                self._side = _side_streams(source, self._container, plan.info, note)
            self._container.metadata[TAG] = SOFTWARE
            self._palette = Palette(plan.info.time_base) if plan.encoder == "gif" else None
            self._durations: dict[int, int] = {}  # of frames in the encoder, by their timestamps
            self._first_pts = self._end = 0
            self._first_dts: int | None = None
            self._last_tick = -1  # of a GIF
            self._container.start_encoding()
        except BaseException:
            self.close()
            raise

    def write(self, pixels: np.ndarray, pts: int, duration: int) -> None:
        if self._palette is not None and not self._has_own_tick(pts):
            self._note(f"GIF holds {GIF_RATE} frames for each second at most; others were left out")
            return
        frame = to_frame(self._plan, pixels)
        frame.pts, frame.time_base = pts, self._plan.info.time_base
        if self._first_dts is None and not self._durations:
            self._first_pts = pts
        self._durations[pts] = duration
        if self._palette is None:
            packets = self._stream.encode(frame)
            self._mux(self._alpha.encode(pixels[:, :, 3], pts, packets) if self._alpha else packets)
            return
        for mapped in self._palette.map(frame):
            self._mux(self._stream.encode(mapped))

    def _has_own_tick(self, pts: int) -> bool:
        """Whether a GIF, which counts in hundredths of a second, tells a frame's time from that of the one before."""
        tick = math.floor(pts * self._plan.info.time_base * GIF_RATE + Fraction(1, 2))
        later = tick > self._last_tick
        self._last_tick = max(tick, self._last_tick)
        return later

    def finish(self) -> None:
        for mapped in self._palette.map(None) if self._palette is not None else ():
            self._mux(self._stream.encode(mapped))
        packets = self._stream.encode(None)
        if self._plan.encoder == "libx265" and self._first_dts is None and len(packets) <= 2:
            for packet in packets:  # of clips of one or two frames x265 leaves these times as its memory was
                packet.dts = packet.pts
        self._mux(self._alpha.encode(None, 0, packets) if self._alpha else packets, last=True)
        if self._side is not None:
            self._side.finish()
        self._container.close()
        mark(self._part, _muxer(self._plan.output))

    def close(self) -> None:
        if self._side is not None:
            self._side.close()
        with contextlib.suppress(*FAILURES):  # the file is going to be deleted; after ``finish`` this does nothing
            self._container.close()

    def _add_video(self) -> Any:
        plan, codec, info = self._plan, self._plan.output.format, self._plan.info
        options = dict(codec.options)
        if plan.output.kind == "cutout":
            options.update(codec.cutout_options)
        crf = plan.output.crf if plan.output.crf is not None else codec.crf
        if plan.output.kind == "mask" and plan.output.crf is None and crf is not None:
            crf //= 2  # a mask's edges are all there is in it, and it takes little space
        if crf is not None:
            options["crf"] = str(crf)
        if plan.alpha_apart:
            options.update(KEYFRAMES)
            self._alpha = AlphaEncoder(info.width, info.height, info.time_base, options, ENCODER_THREADS)
        rate = min(info.rate, Fraction(SVT_MOST_RATE)) if plan.encoder == "libsvtav1" else info.rate
        stream: Any = self._container.add_stream(plan.encoder, rate=rate, options=options)
        context = stream.codec_context
        context.thread_type, context.thread_count = "AUTO", ENCODER_THREADS
        context.width, context.height = plan.orientation.size(info.width, info.height)
        context.pix_fmt, context.bit_rate = plan.pixel_format, 0
        context.time_base = stream.time_base = info.time_base
        aspect = 1 / info.pixel_aspect if plan.orientation.transpose else info.pixel_aspect
        if aspect != 1:
            context.sample_aspect_ratio = aspect
        if plan.alpha_apart:
            stream.metadata["alpha_mode"] = "1"
        primaries, transfer, matrix, value_range = plan.colour
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, value_range
        if info.interlaced and info.field_order and hasattr(context, "field_order"):
            context.field_order = info.field_order
        if plan.orientation != Orientation():
            stream.set_display_matrix(plan.orientation.matrix(context.width, context.height))
        return stream

    def _mux(self, packets: Any, last: bool = False) -> None:
        for number, packet in enumerate(packets, 1):
            duration = self._durations.pop(packet.pts, 0)
            if duration and packet.pts is not None:
                packet.duration = duration
                self._end = max(self._end, packet.pts + duration)
            if packet.dts is not None:
                self._first_dts = packet.dts if self._first_dts is None else self._first_dts
                if last and number == len(packets) and self._end and self._container.format.name in TURNING:
                    # These files add up the distances in decoding order, and the last packet stands for what is left.
                    packet.duration = max(self._end - self._first_pts - packet.dts + self._first_dts, 1)
                if self._side is not None:
                    self._side.write_until(packet.dts * Fraction(packet.time_base))
            self._container.mux(packet)


class ImageWriter:
    """A folder with an image for each frame."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder, self._count = plan, folder, 0
        context: Any = av.CodecContext.create(plan.encoder, "w")
        self._context = context
        context.width, context.height = plan.info.width, plan.info.height
        context.pix_fmt, context.time_base, context.thread_count = plan.pixel_format, plan.info.time_base, 1
        context.options = dict(plan.output.format.options)
        self._cicp = b""
        primaries, transfer = plan.colour.primaries, plan.colour.transfer
        if plan.output.kind != "mask" and plan.encoder == "png" and (plan.hdr or primaries in TO_709):
            # FFmpeg's encoder takes it from frames, which older PyAV cannot tag.
            self._cicp = b"cICP" + bytes([primaries, transfer, 0, 1])

    def write(self, pixels: np.ndarray, pts: int, duration: int) -> None:
        frame = to_frame(self._plan, pixels)
        frame.pts = self._count
        self._count += 1
        name = f"frame_{self._count:06d}.{self._plan.encoder}"
        data = b"".join(bytes(packet) for packet in self._context.encode(frame))
        if self._cicp:
            chunk = struct.pack(">I", len(self._cicp) - 4) + self._cicp + struct.pack(">I", zlib.crc32(self._cicp))
            data = data[:PNG_HEADER] + chunk + data[PNG_HEADER:]
        (self._folder / name).write_bytes(data)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


def to_frame(plan: Plan, pixels: np.ndarray) -> av.VideoFrame:
    """An array H, W, C as a frame of the plan's pixel format, turned as it is stored."""
    pixels = np.ascontiguousarray(plan.orientation.stored(pixels))
    name = ARRAYS[pixels.shape[2], pixels.dtype.str[1:]]
    if plan.pixel_format == name.replace("le", "be"):  # PyAV swaps the bytes, exactly
        name = plan.pixel_format
    frame = av.VideoFrame.from_ndarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, format=name)
    if plan.pixel_format == name or plan.encoder == "gif":
        return frame
    yuv = plan.pixel_format.startswith("yuv")
    target = plan.colour.coefficients if yuv else BT709
    frame = reformat(
        frame,
        format=plan.pixel_format,
        src_colorspace=BT709 if target != BT709 else BT601,  # ignored for RGB; older PyAV wants the two to differ
        dst_colorspace=target,
        src_color_range=FULL,
        dst_color_range=plan.colour.samples if yuv else FULL,
    )
    # Some encoders write the tags of frames, not those of the stream. Older PyAV does not know all of them.
    names = ("color_primaries", "color_trc", "colorspace", "color_range")
    for name, value in zip(names, plan.colour, strict=True):
        if hasattr(frame, name):
            setattr(frame, name, value)
    return frame


def _container_options(muxer: str, info: VideoInfo) -> dict[str, str]:
    options = {"max_interleave_delta": str(INTERLEAVE)}
    if muxer in TURNING:
        options["movflags"] = "use_metadata_tags" + ("+faststart" if muxer == "mp4" else "")
        # Starts are rounded to this, which otherwise is a millisecond.
        options["movie_timescale"] = str(min(max(info.time_base.denominator, 1000), 1_000_000))
    if muxer in ("webp", "gif"):
        options["loop"] = "0"
    if muxer == "apng":
        options["plays"] = "0"
    return options


def _side_streams(
    source: Source, container: av.container.OutputContainer, info: VideoInfo, note: Callable[[str], None]
) -> SideStreams | None:
    try:
        return SideStreams(source, container, start=info.start, end=info.end, note=note)
    except VideoError:  # image sequences and animated WebP have none, and FFmpeg may not read them
        return None
