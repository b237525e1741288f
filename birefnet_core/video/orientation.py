"""How a clip's frames are turned: the display matrix of its container.

Frames are H, W, C arrays: "stored" as the codec has them, "upright" as a player shows them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import av

ONE, CORNER = 2**16, 2**30  # 1 in the matrix's first two columns, and in its third
_PNG = ("png", "apng")  # codecs


class Orientation(NamedTuple):
    """Stored to upright: first transpose, then mirror.

    Attributes:
        transpose: Whether width and height are exchanged.
        mirror_x: Whether left and right are.
        mirror_y: Whether top and bottom are.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def upright(self, frame: np.ndarray) -> np.ndarray:
        """A stored frame as a player shows it."""
        frame = frame.swapaxes(0, 1) if self.transpose else frame
        return self._mirrored(frame)

    def stored(self, frame: np.ndarray) -> np.ndarray:
        """An upright frame as the codec is to have it."""
        frame = self._mirrored(frame)
        return frame.swapaxes(0, 1) if self.transpose else frame

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height the other way round where frames are transposed."""
        return (height, width) if self.transpose else (width, height)

    def matrix(self, width: int, height: int) -> list[int]:
        """The display matrix, for stored frames of a size."""
        x, y = (-ONE if self.mirror_x else ONE), (-ONE if self.mirror_y else ONE)
        width, height = self.size(width, height)
        shift = [width * ONE if self.mirror_x else 0, height * ONE if self.mirror_y else 0, CORNER]
        return [0, y, 0, x, 0, 0, *shift] if self.transpose else [x, 0, 0, 0, y, 0, *shift]

    def _mirrored(self, frame: np.ndarray) -> np.ndarray:
        frame = frame[:, ::-1] if self.mirror_x else frame
        return frame[::-1] if self.mirror_y else frame


class Orientations:
    """Of the decoded frames of a clip, one after another.

    PyAV keeps a frame whose side data are asked for until Python's garbage collector runs, and PyAV 18 releases the
    name of a colour profile in frames of PNG twice, which ends the process. So they are asked for once for each
    recording in a clip, whose frames have one size and angle, and not of PNG, nor of single images.
    """

    def __init__(self) -> None:
        self._recording: tuple[int, int, int] | None = None
        self._orientation = Orientation()

    def of(self, frame: av.VideoFrame, stream: av.VideoStream | None) -> Orientation:
        """The orientation of a frame; angles that are no quarter turns are not turned.

        Args:
            frame: As decoded.
            stream: Where it is from; None of single images.
        """
        angle = getattr(frame, "rotation", 0) % 360
        if stream is None or stream.codec_context.name in _PNG:
            return _TURNS.get(angle, Orientation())
        recording = (angle, frame.width, frame.height)
        if recording != self._recording:
            self._recording, self._orientation = recording, _of_matrix(frame, angle)
        return self._orientation


def _of_matrix(frame: av.VideoFrame, angle: int) -> Orientation:
    try:
        data = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]
    except (KeyError, ValueError, TypeError):  # none; or others this PyAV has no name for
        return _TURNS.get(angle, Orientation())
    # x' = a x + c y, y' = b x + d y
    a, b, _, c, d = (round(value / ONE) for value in struct.unpack("=9i", data[:36])[:5])
    if (b, c) == (0, 0) and a and d:
        return Orientation(False, a < 0, d < 0)
    if (a, d) == (0, 0) and b and c:
        return Orientation(True, c < 0, b < 0)
    return Orientation()


# Degrees counter-clockwise, as PyAV gives them.
_TURNS = {
    90: Orientation(True, False, True),
    180: Orientation(False, True, True),
    270: Orientation(True, True, False),
}
