"""The errors callers can rely on. Each message says what was found, what was expected, what to do."""

from __future__ import annotations

from .text import printable

_LONGEST = 8000  # characters of a message; its path may have half of them


class BiRefNetError(Exception):
    """Base of all errors this package raises on purpose.

    A message may name files and tensors, whose names others chose; as text, it shows their control characters escaped,
    and is cut in the middle where they are longer than any name.
    """

    line_breaks = ""  # "\n" where messages have several lines by intention

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > _LONGEST and not self.line_breaks:
            text = f"{text[: _LONGEST * 3 // 4]} ... {text[-_LONGEST // 4 :]}"
        return printable(text, keep=self.line_breaks)


class ConfigError(BiRefNetError, ValueError):
    """An option or a combination of options that no BiRefNet has."""


class CheckpointError(BiRefNetError):
    """Weights that cannot be found, fetched, read or fitted to a network."""


class ImageError(BiRefNetError, ValueError):
    """An image or mask of the wrong shape, type or content."""


class VideoError(BiRefNetError, ValueError):
    """A clip that cannot be read, or a video that cannot be written."""


class DatasetError(BiRefNetError):
    """A data set whose files do not pair, do not fit or cannot be read."""

    line_breaks = "\n"  # lists of files


class TrainingError(BiRefNetError):
    """A training that cannot continue, such as one whose loss is NaN."""


class MemoryLimitError(BiRefNetError, MemoryError):
    """A device has too little memory even for the smallest step."""
