"""Masks after the network: choosing subjects, refining, trimaps, foreground colours, despill, compositing, cropping and
stitching, comparing.

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
from .despill import LIMITS, background_color, remove_spill, shows_background
from .foreground import METHODS, estimate_foreground
from .morphology import ELEMENTS
from .refine import RefineOptions, refine_mask
from .select import check_marks, keep_marked, point_marks
from .stitch import CropOptions, CropRecord, crop_for_inpainting, stitch_back
from .trimap import UNKNOWN, make_trimap

__all__ = [
    "ELEMENTS",
    "FITS",
    "LEGEND",
    "LIMITS",
    "METHODS",
    "UNKNOWN",
    "CropOptions",
    "CropRecord",
    "CutoutOptions",
    "RefineOptions",
    "background_color",
    "check_marks",
    "compare_masks",
    "crop_for_inpainting",
    "crop_to_subject",
    "cut_out",
    "estimate_foreground",
    "keep_marked",
    "make_trimap",
    "over_checkerboard",
    "over_color",
    "over_image",
    "parse_color",
    "point_marks",
    "premultiplied_rgba",
    "refine_mask",
    "remove_spill",
    "shows_background",
    "stitch_back",
    "straight_rgba",
    "subject_boxes",
]
