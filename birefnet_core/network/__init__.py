"""The network of the paper, one file for each part."""

from .birefnet import BiRefNet, BiRefNetOutput
from .reconstruction import GradientMaps

__all__ = ["BiRefNet", "BiRefNetOutput", "GradientMaps"]
