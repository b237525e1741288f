"""The network of the paper, one file for each part."""

from .birefnet import BiRefNet, BiRefNetOutput
from .deform_conv import deform_conv2d
from .reconstruction import GradientMaps

__all__ = ["BiRefNet", "BiRefNetOutput", "GradientMaps", "deform_conv2d"]
