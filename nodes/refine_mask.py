"""BiRefNetRefineMask: masks -> better masks."""

from __future__ import annotations

import math
from typing import Any

from ..birefnet_core import ConfigError, ImageError
from .comfy_compat import ADVANCED, core, io, number_or_off, schema
from .inputs import checked
from .tensors import computed, in_color, progress_bar


class BiRefNetRefineMask(io.ComfyNode):
    """Cleans up masks; every operation is off until it is given a value."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetRefineMask",
            display_name="BiRefNet Refine Mask",
            description="Cleans up a mask. Everything is off by default, and happens in this order: smooth over time, "
            "black and white point, threshold, keep the largest part or remove islands, fill holes, grow or shrink, "
            "smooth the edge, guided filter, feather, invert.",
            inputs=[
                io.Mask.Input("mask", tooltip="1 on the subject."),
                io.Int.Input(
                    "temporal_radius",
                    default=0,
                    min=0,
                    max=16,
                    tooltip="For video: frames before and after that are averaged where nothing moves. 0: off.",
                    **ADVANCED,
                ),
                io.Float.Input(
                    "black_point", default=0.0, min=0.0, max=0.99, step=0.01, tooltip="Values up to this become 0."
                ),
                io.Float.Input(
                    "white_point", default=1.0, min=0.01, max=1.0, step=0.01, tooltip="Values from this become 1."
                ),
                number_or_off(
                    "threshold",
                    "Values above this become 1, all others 0: a hard mask. A number from 0 to 1, or off.",
                ),
                io.Boolean.Input("keep_largest", default=False, tooltip="Keep only the largest part of each mask."),
                io.Int.Input(
                    "min_island_area",
                    default=0,
                    min=0,
                    max=2**30,
                    tooltip="Remove separate parts with fewer pixels than this. 0: off.",
                ),
                io.Int.Input(
                    "max_hole_area",
                    default=0,
                    min=0,
                    max=2**30,
                    tooltip="Fill enclosed holes with at most this many pixels. 0: off.",
                ),
                io.Int.Input(
                    "grow", default=0, min=-512, max=512, tooltip="Pixels to grow by; negative shrinks. 0: off."
                ),
                io.Float.Input(
                    "smooth_edge",
                    default=0.0,
                    min=0.0,
                    max=64.0,
                    step=0.5,
                    tooltip="Pixels over which a jagged outline is rounded off. 0: off.",
                ),
                io.Int.Input(
                    "guided_radius",
                    default=0,
                    min=0,
                    max=256,
                    tooltip="Pulls the mask to edges of the image, learning from this many pixels around; needs the "
                    "image. 0: off.",
                ),
                io.Float.Input(
                    "guided_epsilon",
                    default=1e-4,
                    min=1e-7,
                    max=1.0,
                    step=1e-5,
                    round=1e-7,
                    tooltip="Color differences (squared) below this are flat to the guided filter. Larger: softer.",
                    **ADVANCED,
                ),
                io.Float.Input(
                    "feather", default=0.0, min=0.0, max=256.0, step=0.5, tooltip="Blur at the end, in pixels. 0: off."
                ),
                io.Boolean.Input("invert", default=False, tooltip="At the very end: make the background 1."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The image the mask belongs to: for the guided filter and smoothing over time.",
                ),
            ],
            outputs=[io.Mask.Output("refined", display_name="mask", tooltip="1 on the subject, unless inverted.")],
        )

    @classmethod
    @checked
    def execute(cls, mask, threshold: str, image=None, **operations) -> io.NodeOutput:
        if image is None and operations.get("guided_radius"):
            raise ImageError("The guided filter needs the image: connect the input image, or set guided_radius to 0.")
        masks = core(".masks")
        options = masks.RefineOptions(threshold=_threshold(threshold), **operations)

        def refine(mask, image):
            return masks.refine_mask(mask, options, image, progress_bar())

        return io.NodeOutput(computed(cls, refine, mask, None if image is None else in_color(image)))


def _threshold(value: Any) -> float | None:
    """What the field says; workflows of version 0.1 have a number, and -0.01 for off."""
    if isinstance(value, str) and value.strip().lower() in ("off", ""):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not -0.01 - 1e-6 <= number <= 1 + 1e-6:
        raise ConfigError(f"threshold is {value!r}, expected a number from 0 to 1, or off.")
    return number if number >= 0 else None
