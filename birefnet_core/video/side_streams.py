"""Audio and subtitles: copied into what is written, between the video's packets."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from .containers import Source, open_container
from .options import Limits
from .pyav import FAILURES, av, reason
from .recordings import Joined, is_recording

# Container -> the encoder for audio it cannot hold as it is.
AUDIO_ENCODERS = {"webm": "libopus", "mov": "aac", "mp4": "aac", "matroska": "flac"}
USUAL_RATE = 48000  # Opus always decodes to it, and all encoders know it
# What a container says of itself, which is not true of another.
CONTAINER_TAGS = ("encoder", "major_brand", "minor_version", "compatible_brands")
SEEK_EARLIER = 2  # seconds: a seek finds video, and audio of the same time may lie before it in the file
MOST_TRIED = 2000  # packets that are read to find one of each stream


class SideStreams:
    """Copies the audio and subtitles of a clip, and its title and other tags.

    Audio is encoded again where the container cannot hold it. Reads the clip by itself, so that nothing has to wait
    in memory for the video to catch up.

    Args:
        source: The clip.
        output: Where to; its streams are added at once.
        start: Seconds cut off at the start, which timestamps are moved back by.
        end: Seconds of the clip's time after which nothing is taken; None for all.
        note: Called with a sentence for each stream that is not copied.
    """

    def __init__(
        self,
        source: Source,
        output: av.container.OutputContainer,
        *,
        start: Fraction,
        end: Fraction | None,
        note: Callable[[str], None],
    ) -> None:
        self._output, self._start, self._end, self._note = output, start, end, note
        self._input = open_container(source, Limits())
        tags = {key: value for key, value in self._input.metadata.items() if key.lower() not in CONTAINER_TAGS}
        output.metadata.update(tags)
        self._copied: dict[int, Any] = {}
        self._encoded: dict[int, Any] = {}
        self._joined: dict[int, Joined] = {}
        streams = [*self._input.streams.audio, *self._input.streams.subtitles]
        reasons = why_not_copied(source, output.format.name)
        for stream in streams:
            self._add(stream, reasons[stream.index])
        self._streams = [s for s in streams if s.index in self._copied or s.index in self._encoded]
        self._packets = self._read()
        self._next: tuple[Fraction, Any] | None = None
        # Not in recordings, whose times may begin again.
        wanted, begin = int((start - SEEK_EARLIER) * av.time_base), self._input.start_time or 0
        if wanted > begin and self._streams and not is_recording(self._input):
            self._input.seek(wanted)

    def close(self) -> None:
        self._input.close()

    def write_until(self, seconds: Fraction | None) -> None:
        """Writes what comes before a time of the output, or all that is left."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            if self._next is None or (seconds is not None and self._next[0] > seconds):
                return
            self._write(self._next[1])
            self._next = None

    def finish(self) -> None:
        """Writes what is left, and what encoders have kept."""
        self.write_until(None)
        for stream in self._encoded.values():
            with self._forgiven():
                self._output.mux(stream.encode(None))

    def _add(self, stream: Any, problem: str | None) -> None:
        muxer, encoder = self._output.format.name, AUDIO_ENCODERS.get(self._output.format.name)
        kind = f"{stream.type} ({stream.codec_context.name if stream.codec_context else 'unknown'})"
        if stream.type == "audio" and stream.codec_context is not None and not stream.codec_context.sample_rate:
            self._note(f"{kind} was left out: the clip announces it, and has none of it where it begins")
            return
        if problem is None:
            added = self._copied[stream.index] = self._output.add_stream_from_template(template=stream, opaque=True)
        elif stream.type == "audio" and stream.codec_context is not None and encoder in av.codecs_available:
            added = self._encoded[stream.index] = self._encoder(stream, encoder)
            stereo = " in stereo" if stream.codec_context.layout.nb_channels > 2 else ""
            self._note(f"{kind} was encoded again as {encoder}{stereo}, as {muxer} files cannot hold it ({problem})")
        else:
            self._note(f"{kind} was left out, as {muxer} files cannot hold it ({problem})")
            return
        added.metadata.update({key: value for key, value in stream.metadata.items() if key in ("language", "title")})

    def _encoder(self, stream: Any, encoder: str) -> Any:
        rate, known = stream.codec_context.sample_rate, av.Codec(encoder, "w").audio_rates
        if encoder == "libopus" or (known and rate not in known):
            rate = USUAL_RATE
        channels = min(stream.codec_context.layout.nb_channels, 2)
        added: Any = self._output.add_stream(encoder, rate=rate)
        added.codec_context.layout = "stereo" if channels == 2 else "mono"
        if encoder != "flac":
            added.codec_context.bit_rate = 96000 * channels
        return added

    def _read(self) -> Iterator[tuple[Fraction, Any]]:
        """Packets within the cut and when they are due in the output."""
        if not self._streams:
            return
        try:
            for packet in self._input.demux(*self._streams):
                if packet.size and packet.pts is not None:
                    self._join(packet)
                    at = packet.pts * Fraction(packet.time_base)
                    if self._end is not None and at >= self._end and packet.stream.type == "audio":
                        return
                    if self._is_within(packet, at):
                        due = (packet.dts if packet.dts is not None else packet.pts) * Fraction(packet.time_base)
                        yield due - self._start, packet
        except FAILURES as error:
            self._note(f"audio and subtitles are damaged, and end before the video ({reason(error)})")

    def _join(self, packet: Any) -> None:
        """Moves a packet of a recording that was joined to another behind it."""
        joined = self._joined.setdefault(packet.stream.index, Joined(self._input, Fraction(packet.time_base)))
        if packet.stream.type == "audio":
            shift = joined(packet.pts if packet.dts is None else packet.dts, packet.duration or 0)
            packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift

    def _is_within(self, packet: Any, at: Fraction) -> bool:
        """Whether a packet belongs to the cut."""
        if self._is_priming(packet, at) or (self._start and at < self._start):
            return False
        return self._end is None or at < self._end

    def _is_priming(self, packet: Any, at: Fraction) -> bool:
        """Whether a packet only prepares the decoder. Matroska would move everything else later to make room for it."""
        matroska = self._output.format.name in ("matroska", "webm")
        return matroska and at < 0 and packet.stream.codec_context.name != "opus"

    def _write(self, packet: Any) -> None:
        index, base = packet.stream.index, Fraction(packet.time_base)
        shift = round(self._start / base)
        with self._forgiven():
            if index in self._copied:
                packet.pts -= shift
                if packet.dts is not None:
                    packet.dts -= shift
                packet.stream = self._copied[index]
                self._output.mux(packet)
                return
            for frame in packet.decode():
                if frame.pts is not None:
                    frame.pts -= round(self._start / Fraction(frame.time_base))
                self._output.mux(self._encoded[index].encode(frame))

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        """What is wrong with a packet, unlike a full disk, is no reason to give up the video."""
        try:
            yield
        except FAILURES as error:
            if not isinstance(error, av.InvalidDataError) and getattr(error, "errno", None) != errno.EINVAL:
                raise
            self._note(f"a part of the audio or subtitles is damaged and was left out ({reason(error)})")


def why_not_copied(source: Source, muxer: str) -> dict[int, str | None]:
    """Why a container cannot hold a clip's audio and subtitles, by the stream's index; None where it can.

    Some say so only when the file is completed, which may be hours later; so a file with one packet is made in memory.
    """
    packets: dict[int, Any] = {}
    with open_container(source, Limits()) as container:
        audio = container.streams.audio
        for number, packet in enumerate(container.demux(*audio) if audio else ()):
            if packet.size:
                packets.setdefault(packet.stream.index, packet)
            if len(packets) == len(audio) or number > MOST_TRIED:
                break
        streams = [*audio, *container.streams.subtitles]
        return {stream.index: _problem(stream, packets.get(stream.index), muxer) for stream in streams}


def _problem(stream: Any, packet: Any, muxer: str) -> str | None:
    try:
        output = av.open(io.BytesIO(), "w", format=muxer)
        copy = output.add_stream_from_template(template=stream, opaque=True)
        output.start_encoding()
        if packet is not None:
            packet.stream = copy
            output.mux(packet)
        output.close()
    except FAILURES as error:
        return reason(error)
    return None
