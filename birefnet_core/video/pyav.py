"""PyAV, the Python binding of FFmpeg's libraries, with a clear message where it is missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError

try:
    import av
except ImportError as error:
    raise ConfigError(f"video needs PyAV, which is not installed: pip install av ({error})") from error

__all__ = ["PLANAR", "av", "reason", "reformat", "rgba_of"]

# What PyAV raises: FFmpeg's errors, and those of Python for what it checks itself.
FAILURES = (av.FFmpegError, OSError, ValueError)
UNSPECIFIED, BT2020 = 2, 9  # FFmpeg's numbers (ITU-T H.273)
WIDEST_WRITE = 64  # pixels that swscale's vector code writes at once, or more


def reason(error: BaseException) -> str:
    """What FFmpeg says about an error, without the number and the path."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]


def reformat(frame: av.VideoFrame, **changes: Any) -> av.VideoFrame:
    """``frame.reformat`` of the samples alone, in one thread where several would damage each other's rows.

    swscale writes beyond the end of a row whose length is no multiple of its vectors. Within a thread the next row
    puts that right; the first row of the next thread's part may be there already.

    PyAV 17.0 refuses frames with a transfer function or primaries that swscale does not know, though nothing is done
    with them, and takes the matrix of BT.2020 from the frame's tag alone. So the tags are others meanwhile.

    Args:
        frame: A frame.
        changes: As for ``VideoFrame.reformat``.
    """
    whole = (changes.get("width") or frame.width) % WIDEST_WRITE == 0
    light = {name: getattr(frame, name) for name in ("color_trc", "color_primaries") if hasattr(frame, name)}
    before = {**light, "colorspace": frame.colorspace}
    meanwhile: dict[str, Any] = dict.fromkeys(light, UNSPECIFIED)
    if BT2020 in (changes.get("src_colorspace"), changes.get("dst_colorspace")):
        meanwhile["colorspace"] = BT2020
    _tag(frame, meanwhile)
    try:
        result = frame.reformat(**changes) if whole else frame.reformat(**changes, **ONE_THREAD)
    finally:
        _tag(frame, before)
    _tag(result, light)
    return result


def rgba_of(frame: av.VideoFrame, **changes: Any) -> np.ndarray:
    """A frame of ``yuva420p`` as H, W, 4 bytes.

    swscale leaves up to four pixels at the ends of rows as they were in memory, where the width is no multiple of 16.
    So it converts the colours alone, and alpha is taken as it is.

    Args:
        frame: A frame.
        changes: As for ``VideoFrame.reformat``; no other size.
    """
    plane: Any = frame.planes[3]
    alpha = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
    return np.dstack([reformat(frame, format="rgb24", **changes).to_ndarray(), alpha])


def _tag(frame: av.VideoFrame, tags: dict[str, Any]) -> None:
    for name, value in tags.items():
        setattr(frame, name, value)


def _one_thread() -> dict[str, Any]:
    """The argument for a single thread, where this PyAV takes it; older ones use no more."""
    try:
        av.VideoFrame(2, 2, "rgb24").reformat(format="gray", threads=1)
    except TypeError:
        return {}
    return {"threads": 1}


ONE_THREAD = _one_thread()


def _planar(width: int) -> dict[str, str]:
    """What to convert to in place of RGB of 16 bits, of which FFmpeg 8 gets all rows but the first wrong.

    FFmpeg 8.0 does so for frames of every width, 8.1 for odd ones.
    """
    frame = av.VideoFrame(width, 64, "yuv420p10le")
    for number, plane in enumerate(frame.planes):  # of one colour
        plane.update((600 - 100 * number).to_bytes(2, "little") * (plane.buffer_size // 2))
    rows = frame.reformat(format="rgb48le", **ONE_THREAD).to_ndarray()
    if (rows == rows[:1]).all():
        return {}
    return {"rgb48le": "gbrp16le", "rgba64le": "gbrap16le"}


PLANAR = (_planar(64), _planar(63))  # for even widths, and for odd ones
