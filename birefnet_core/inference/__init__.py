"""Images in, masks out."""

from .segmenter import Segmenter

__all__ = ["Segmenter"]
