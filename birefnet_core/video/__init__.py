"""Video: clips in, masks and cut-outs out, steady over time.

``segment_video`` needs PyAV, which comes with its first use.
"""

# ruff: noqa: F401 (type checkers know the lazy names by their imports)

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .formats import CODECS
from .options import Limits, Output, VideoOptions
from .report import VideoProgress, VideoReport

if TYPE_CHECKING:
    from .clip import Clip, VideoInfo
    from .pipeline import VideoCancelled, segment_video

_LAZY = {"Clip": ".clip", "VideoInfo": ".clip", "VideoCancelled": ".pipeline", "segment_video": ".pipeline"}

__all__ = ["CODECS", "Limits", "Output", "VideoOptions", "VideoProgress", "VideoReport", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name], __name__), name)
    return value
