"""Masks after the network: refining, foreground colours, compositing, cropping, comparing.

Images are B, H, W, 3 and masks B, H, W, floating point in [0, 1] on any device; a mask is 1 on the
subject. Half precision is computed in float32, and results are float32 on the device of the inputs.
Nothing here changes its inputs or keeps gradients.
"""

from .compare import LEGEND, compare_masks
from .compose import (
    FITS,
    over_checkerboard,
    over_color,
    over_image,
    parse_color,
    premultiplied_rgba,
    straight_rgba,
)
from .crop import crop_to_subject, subject_boxes
from .cutout import CutoutOptions, cut_out
from .foreground import METHODS, estimate_foreground
from .morphology import ELEMENTS
from .refine import RefineOptions, refine_mask

__all__ = [
    "ELEMENTS",
    "FITS",
    "LEGEND",
    "METHODS",
    "CutoutOptions",
    "RefineOptions",
    "compare_masks",
    "crop_to_subject",
    "cut_out",
    "estimate_foreground",
    "over_checkerboard",
    "over_color",
    "over_image",
    "parse_color",
    "premultiplied_rgba",
    "refine_mask",
    "straight_rgba",
    "subject_boxes",
]
