"""Recordings of broadcasts and discs, whose times begin anywhere, and begin again where several were joined."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from .pyav import FAILURES, av

FARTHEST_BACK, FARTHEST_ON = Fraction(1, 10), 10  # seconds; timestamps that jump farther begin again


class Joined:
    """Puts the timestamps of recordings that were joined, each with times of its own, one behind the other.

    Args:
        container: Of what format; in others than broadcasts and discs, gaps are meant.
        time_base: Of the timestamps, in seconds.
        shift: How far those before were moved.
    """

    def __init__(self, container: av.container.InputContainer, time_base: Fraction, shift: int = 0) -> None:
        self._applies, self._base = container.format.name.startswith("mpeg"), time_base
        self._shift = shift
        self._last: tuple[int, int] | None = None  # time and duration

    def __call__(self, time: int, duration: int) -> int:
        """How far a timestamp is to be moved.

        Args:
            time: As in the file.
            duration: Until the next one.
        """
        if self._applies:
            if self._last is not None:
                jump = (time + self._shift - self._last[0]) * self._base
                if not -FARTHEST_BACK <= jump <= FARTHEST_ON:
                    self._shift = sum(self._last) - time
            self._last = time + self._shift, duration
        return self._shift


class Place(NamedTuple):
    """A key frame, or the start of a file, at which decoding may begin. Times are moved, in units of the timestamps.

    Attributes:
        packets: Of the video, before it.
        shift: How far the timestamps are to be moved there, as ``Joined`` does.
        shown: When it is shown.
        reached: The latest time of decoding up to it.
    """

    packets: int
    shift: int
    shown: int = 0
    reached: int = 0


class Places(NamedTuple):
    """What a recording has.

    Attributes:
        keys: Its key frames, in the order of the file.
        end: Where the last packet ends, in seconds with all timestamps moved; None where there is none.
    """

    keys: list[Place]
    end: Fraction | None

    def before(self, seconds: Fraction, time_base: Fraction) -> Place:
        """The last key frame at or before a time, of those before a packet is decoded later."""
        fitting = (key for key in self.keys if max(key.shown, key.reached) * time_base <= seconds)
        return max(fitting, key=lambda key: key.packets, default=Place(0, 0))


def is_recording(container: av.container.InputContainer) -> bool:
    """Whether a file has no index, and its times may begin again: a search by time would find any of several places."""
    return container.format.name in ("mpegts", "mpeg")


def look_through(
    container: av.container.InputContainer, stream: av.VideoStream, time_base: Fraction, until: Fraction | None
) -> Places:
    """Reads a recording's packets from its start, and decodes none.

    Args:
        container: At its start.
        stream: Its video.
        time_base: Of the timestamps, in seconds.
        until: Seconds of decoding to read until; ``end`` is None then. None reads all.
    """
    joined, keys, end, reached = Joined(container, time_base), list[Place](), 0, None
    try:
        for number, packet in enumerate(container.demux(stream)):
            time = packet.pts if packet.dts is None else packet.dts
            if not packet.size or time is None:
                continue
            shift = joined(time, packet.duration or 0)
            reached = time + shift if reached is None else max(reached, time + shift)
            if until is not None and reached * time_base > until:
                return Places(keys, None)
            delay = 0 if packet.pts is None else packet.pts - time
            if abs(delay * time_base) > FARTHEST_ON:  # of the recording that follows
                delay = 0
            shown = time + shift + delay
            if packet.is_keyframe:
                keys.append(Place(number, shift, shown, reached))
            end = max(end, shown + (packet.duration or 0))
    except FAILURES:  # said when it is decoded
        pass
    return Places(keys, end * time_base or None)
