"""Images in, masks out."""

from .prepared import PreparedBiRefNet, prepare
from .segmenter import Segmenter

__all__ = ["PreparedBiRefNet", "Segmenter", "prepare"]
