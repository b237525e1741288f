"""The network of the paper, one file for each part."""

from .birefnet import BiRefNet, BiRefNetOutput
from .deform_conv import deform_conv2d
from .fuse import fuse_for_inference
from .reconstruction import GradientMaps

__all__ = ["BiRefNet", "BiRefNetOutput", "GradientMaps", "deform_conv2d", "fuse_for_inference"]
