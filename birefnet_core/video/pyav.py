"""PyAV, the Python binding of FFmpeg's libraries, with a clear message where it is missing."""

from __future__ import annotations

from ..errors import ConfigError

try:
    import av
except ImportError as error:
    raise ConfigError(f"video needs PyAV, which is not installed: pip install av ({error})") from error

__all__ = ["av", "reason"]

# What PyAV raises: FFmpeg's errors, and those of Python for what it checks itself.
FAILURES = (av.FFmpegError, OSError, ValueError)


def reason(error: BaseException) -> str:
    """What FFmpeg says about an error, without the number and the path."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
