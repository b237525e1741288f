"""Opening clips, which may come from anybody: what is read, and what is wrong with what is not."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import VideoError
from ..placeholders import what_is_in
from ..text import enumerate_names
from .options import Limits
from .pyav import FAILURES, av, reason
from .recordings import Places, is_recording, look_through

Source = str | Path | io.BytesIO

# Demuxers that read one file. Playlists and scripts (hls, dash, concat, lavfi, ...) open others, which a clip from
# anybody must not.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "live_flv", "gif", "apng",
    "asf", "ogg", "mxf", "nut", "yuv4mpegpipe", "ivf", "h264", "hevc", "av1", "obu", "m4v", "mjpeg", "dv", "rm",
    "wtv", "vc1", "dirac", "cavsvideo", "png_pipe", "jpeg_pipe", "exr_pipe", "tiff_pipe", "bmp_pipe", "dpx_pipe",
    "webp_pipe", "wav", "mp3", "flac", "aac", "aiff", "caf",
)  # fmt: skip
GROWING = ("mpegts", "mpeg", "flv", "live_flv", "ogg", "dv", "wtv")
DECODER_THREADS = min(4, os.cpu_count() or 1)  # each holds a frame
LATE = 1  # seconds: files whose pictures and sound all begin later were cut out of something longer
EARLIER_SEEKS = (0, 2, 10, 60)  # seconds before the time that is wanted
MOST_TRIED = 2000  # packets that are read to find a key frame
EARLY = 250  # packets before the first frame that may fail: recordings begin in the middle of a group of pictures


class Packets(NamedTuple):
    """A decoded frame, and what its packet said of it.

    Attributes:
        frame: Decoded.
        pts: In the source's time base, or None.
        duration: In the same; 0 where unknown.
    """

    frame: av.VideoFrame
    pts: int | None
    duration: int


class Damage(VideoError):
    """The clip ends early, or goes on in a way that cannot be decoded."""


def source_name(source: Source) -> str:
    return "the clip" if isinstance(source, io.BytesIO) else str(source)


class SharedBytes(io.RawIOBase):
    """Reads the bytes of a BytesIO at a position of its own, so that several readers may."""

    def __init__(self, source: io.BytesIO) -> None:
        self._bytes, self._position = source.getbuffer(), 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._bytes) if size < 0 else self._position + size
        data = bytes(self._bytes[self._position : end])
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._bytes)}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._bytes.release()
        super().close()


def open_container(source: Source, limits: Limits, demuxer: str | None = None) -> av.container.InputContainer:
    """Opens a clip with FFmpeg.

    Args:
        source: A path or bytes.
        limits: Frames of more pixels are refused by the decoder.
        demuxer: FFmpeg's, where the content is not to decide.

    Raises:
        VideoError: Not there, empty, or nothing that can be read.
    """
    name = source_name(source)
    try:
        size = source.getbuffer().nbytes if isinstance(source, io.BytesIO) else os.stat(source).st_size
    except (OSError, ValueError) as error:
        raise VideoError(f"{name}: cannot be opened ({reason(error)}); expected a clip.") from None
    if not size:
        raise VideoError(f"{name}: the file is empty (0 bytes), expected a clip: copy or download it again.")
    try:
        if demuxer is None and (found := _open_growing(source)) is not None:
            return found
        allowed = ",".join(known for known in DEMUXERS if known not in GROWING)
        options = {"max_pixels": str(limits.pixels), "format_whitelist": allowed, "protocol_whitelist": "file"}
        return av.open(_file(source), "r", format=demuxer, options=options, metadata_errors="replace")
    except FAILURES as error:
        why = reason(error)
        if not isinstance(source, io.BytesIO):
            why = what_is_in(os.path.abspath(source)) or why
        raise VideoError(
            f"{name}: cannot be read as a clip ({why}). Expected a video file such as MP4, MOV, MKV, WebM or "
            "GIF, whole: an MP4 or MOV that was cut off has lost its index. Copy it again, or convert it with FFmpeg."
        ) from error


def _file(source: Source) -> str | SharedBytes:
    return SharedBytes(source) if isinstance(source, io.BytesIO) else os.path.abspath(source)


def _open_growing(source: Source) -> av.container.InputContainer | None:
    """Opens a file whose streams turn up while it is read; None where it is another.

    PyAV before 18 makes room for the options of those streams alone that are known at first, and writes beyond it.
    """
    options = {"format_whitelist": ",".join(GROWING), "protocol_whitelist": "file"}
    try:
        return av.open(_file(source), "r", container_options=options, metadata_errors="replace")
    except FAILURES as error:
        if getattr(error, "errno", None) != errno.EINVAL:  # what FFmpeg says of a format that is not allowed
            raise
    return None


class ContainerSource:
    """The frames of a container's video; of several, that which players show.

    Attributes:
        container: Opened.
        stream: Its video.
        videos: How many it has, without cover pictures.
        time_base: Of the timestamps.
        rate: Frames per second on average, or None.
        frames: Frames as declared, or None.
        duration: Seconds as declared, or None.
        end_pts: Where the last frame ends as declared, or None.
        end: The same in seconds of the clip's own time; less exact where the stream does not say.
        shift: How far the timestamps of the next frames are to be moved, as ``Joined`` does.
    """

    def __init__(self, source: Source, limits: Limits, demuxer: str | None = None) -> None:
        self.name = source_name(source)
        self._open = lambda: open_container(source, limits, demuxer)
        self._limits = limits
        self._begin()
        self.time_base = Fraction(self.stream.time_base or Fraction(1, 1000))
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.rate = Fraction(rate) if rate else None
        self.frames = self.stream.frames or None
        self.duration = self._declared_seconds()
        self.end_pts = (self.stream.start_time or 0) + self.stream.duration if self.stream.duration else None
        from_0 = self.end_pts or self._tagged_seconds() or self.container.format.name == "flv"
        begin = 0 if from_0 else (self.container.start_time or 0) / av.time_base
        self.end = float(self.end_pts * self.time_base) if self.end_pts else begin + (self.duration or 0) or None
        self._sought = False
        self.shift = self._skipped = 0
        self._places: Places | None = None  # of a recording that was read to its end

    def close(self) -> None:
        # Waits for the decoder's threads. What they log (of frames before a cut, for example) waits for Python's lock,
        # which PyAV holds while it frees a decoder and waits for them itself: neither would ever end.
        self._decoder.flush_buffers()
        self.container.close()

    def seek(self, seconds: Fraction) -> None:
        """To a key frame at or before a time; what cannot seek is read from the start.

        In files without an index, packets of about that time are found, whose key frame may be long before. Recordings
        are looked through from their start, as their times may begin again.
        """
        self._sought = True
        if is_recording(self.container):
            places = self._places or self._look_through(seconds)
            self._skipped, self.shift, *_ = places.before(seconds, self.time_base)
            return
        for earlier in EARLIER_SEEKS:
            place = int((seconds - earlier) / self.time_base)
            try:
                self.container.seek(place, stream=self.stream)
                first = next((at for at in self._key_times() if at is not None), None)
                if first is not None and first * self.time_base <= seconds:
                    self.container.seek(place, stream=self.stream)
                    return
            except FAILURES:
                break
        self.container.close()
        self._begin()

    def begins_at(self) -> Fraction:
        """Seconds that are to be 0. Broadcasts and live streams begin at any time; players begin at their first frame.

        Not the container's own time, which is rounded, perhaps to after its first packet.
        """
        streams = (self.stream, *self.container.streams.audio)
        begin = [s.start_time * Fraction(s.time_base) for s in streams if s.start_time is not None and s.time_base]
        earliest = min(begin, default=Fraction(0))
        if self.container.format.name.startswith("mpeg") or earliest >= LATE:
            return earliest
        # Frames before 0 would be hidden in MOV and MP4; sound there only prepares its decoder.
        return min(begin[0], Fraction(0)) if self.stream.start_time is not None else Fraction(0)

    def has_lost_frames(self) -> bool:
        """Whether the packets are fewer than the frames: FFmpeg puts those of a GIF that say no time into others."""
        try:
            packets = sum(packet.size > 0 for packet in self.container.demux(self.stream))
        except FAILURES:  # said when it is decoded
            packets = self.frames or 0
        self.container.close()
        self._begin()
        return packets < (self.frames or 0)

    def find_end(self) -> None:
        """Sets ``end`` to that of recordings, which do not say it, or that of the last one alone."""
        if is_recording(self.container):
            self._places = self._look_through(None)

    def _look_through(self, until: Fraction | None) -> Places:
        places = look_through(self.container, self.stream, self.time_base, until)
        if places.end is not None:
            self.end = float(places.end)
        self.container.close()
        self._begin()
        return places

    def _begin(self) -> None:
        """Opens the file at its start."""
        self.container = self._open()
        try:
            self.stream = self._video()
            self._decoder = self._open_decoder(self._limits)
        except BaseException:
            self.container.close()
            raise

    def _key_times(self) -> Iterator[int | None]:
        """Timestamps of the key frames among the next packets."""
        for packet in islice(self.container.demux(self.stream), MOST_TRIED):
            if packet.size and packet.is_keyframe:
                yield packet.dts if packet.pts is None else packet.pts

    def read(self) -> Iterator[Packets]:
        """Decodes; the frames come in the order in which they are shown.

        Raises:
            Damage: A packet cannot be decoded, or the file ends before its end.
        """
        durations: dict[int, int] = {}
        packets = decoded = 0
        last = 0.0
        try:
            for packet in islice(self.container.demux(self.stream), self._skipped, None):
                packets += packet.size > 0
                if packet.pts is not None:
                    durations[packet.pts] = packet.duration or 0
                    last = max(last, float((packet.pts + (packet.duration or 0)) * self.time_base))
                try:
                    frames = self._decoder.decode(packet if packet.size else None)
                except av.EOFError:
                    break
                except FAILURES:
                    if decoded or packets > EARLY:
                        raise
                    continue
                for frame in frames:
                    decoded += 1
                    yield Packets(frame, frame.pts, durations.pop(frame.pts, 0) if frame.pts is not None else 0)
                    if len(durations) > 256 and frame.pts is not None:
                        durations = {pts: value for pts, value in durations.items() if pts > frame.pts}
        except FAILURES as error:
            raise Damage(f"frame {decoded + 1} cannot be decoded ({reason(error)})") from error
        if not self._sought:
            self._check_end(packets, last)

    def _check_end(self, packets: int, last: float) -> None:
        """Whether the file holds what its index promises; a few frames less are no reason to complain."""
        fewer = self.frames and packets < 0.98 * self.frames - 2 and self.container.format.name.startswith("mov")
        # Of a clip that was trimmed without encoding it again, the index has frames that are not shown.
        if fewer and (self.end is None or last < 0.98 * self.end - 2 / float(self.rate or 25)):
            raise Damage(f"the file has {packets} frames, and its index promises {self.frames}: it was cut off")
        tagged = self._tagged_seconds()
        if tagged and packets and last < 0.98 * tagged - 0.5:
            raise Damage(f"the frames end at {last:.1f} s, and the file promises {tagged:.1f} s: it was cut off")

    def _video(self) -> av.VideoStream:
        streams = self.container.streams
        videos = [stream for stream in streams.video if not stream.disposition.value & 1024]  # no cover pictures
        if not videos:
            # Not by each stream's type: of an unknown one PyAV 14 reads the name from no address.
            kinds = {"video": streams.video, "audio": streams.audio, "subtitle": streams.subtitles}
            listed = [f"{kind} ({_codec(stream)})" for kind, several in kinds.items() for stream in several]
            listed += ["others"] if len(streams) > len(listed) else []
            found = enumerate_names(listed) or "nothing"
            raise VideoError(f"{self.name}: has no video, only {found}; expected a clip with a video stream.")
        self.videos = len(videos)
        best = streams.best("video")
        return next((stream for stream in videos if best is not None and stream.index == best.index), videos[0])

    def _open_decoder(self, limits: Limits) -> Any:
        context: Any = self.stream.codec_context
        if context is None:
            raise VideoError(
                f"{self.name}: this FFmpeg cannot decode its video, or the file was cut off; convert it, to H.264 for "
                "example, or copy it again."
            )
        check_size(self.name, context.width, context.height, limits)
        with_alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.codec.name)
        alpha = {key.lower(): value for key, value in self.stream.metadata.items()}.get("alpha_mode") == "1"
        if alpha and with_alpha in av.codecs_available:
            context = av.CodecContext.create(with_alpha, "r")  # FFmpeg's own decoders drop the alpha channel
        else:
            context.thread_type = "AUTO"
            context.thread_count = DECODER_THREADS
        context.options = {**context.options, "max_pixels": str(limits.pixels)}
        return context

    def _declared_seconds(self) -> float | None:
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        tagged = self._tagged_seconds()
        if tagged:
            return tagged
        return self.container.duration / av.time_base if self.container.duration else None

    def _tagged_seconds(self) -> float | None:
        """The video's duration as Matroska files have it."""
        parts = self.stream.metadata.get("DURATION", "").split(":")
        try:
            hours, minutes, seconds = (float(part) for part in parts)
        except ValueError:
            return None
        return 3600 * hours + 60 * minutes + seconds


def check_size(name: str, width: int, height: int, limits: Limits) -> None:
    """Raises a VideoError for frames without pixels, or with more than the limits allow."""
    if width < 1 or height < 1:
        raise VideoError(f"{name}: its frames are {width} x {height} pixels; the clip is damaged, or no video.")
    if max(width, height) > limits.side or width * height > limits.pixels:
        raise VideoError(
            f"{name}: its frames are {width} x {height} pixels, expected at most {limits.side} on a side and "
            f"{limits.pixels} in all: scale the clip down, or raise the limits."
        )


def _codec(stream: av.stream.Stream) -> str:
    context = getattr(stream, "codec_context", None)
    return context.name if context is not None else "unknown"
