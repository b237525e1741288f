"""PyAV, the Python binding of FFmpeg's libraries, with a clear message where it is missing."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError

try:
    import av
except ImportError as error:
    raise ConfigError(f"video needs PyAV, which is not installed: pip install av ({error})") from error

__all__ = ["av", "reason", "reformat"]

# What PyAV raises: FFmpeg's errors, and those of Python for what it checks itself.
FAILURES = (av.FFmpegError, OSError, ValueError)
WIDEST_WRITE = 64  # pixels that swscale's vector code writes at once, or more


def reason(error: BaseException) -> str:
    """What FFmpeg says about an error, without the number and the path."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]


def reformat(frame: av.VideoFrame, **changes: Any) -> av.VideoFrame:
    """``frame.reformat``, in one thread where several would damage each other's rows.

    swscale writes beyond the end of a row whose length is no multiple of its vectors. Within a thread the next row
    puts that right; the first row of the next thread's part may be there already.

    Args:
        frame: A frame.
        changes: As for ``VideoFrame.reformat``.
    """
    whole = (changes.get("width") or frame.width) % WIDEST_WRITE == 0
    return frame.reformat(**changes) if whole else frame.reformat(**changes, **ONE_THREAD)


def _one_thread() -> dict[str, Any]:
    """The argument for a single thread, where this PyAV takes it; older ones use no more."""
    try:
        av.VideoFrame(2, 2, "rgb24").reformat(format="gray", threads=1)
    except TypeError:
        return {}
    return {"threads": 1}


ONE_THREAD = _one_thread()
