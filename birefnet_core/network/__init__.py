"""The network of the paper, one file for each part."""

from .birefnet import BiRefNet, BiRefNetOutput
from .fuse import fuse_for_inference
from .reconstruction import GradientMaps

__all__ = ["BiRefNet", "BiRefNetOutput", "GradientMaps", "fuse_for_inference"]
