"""BiRefNetApplyAlpha: images and masks -> cut-outs."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from ..birefnet_core import ImageError
from .comfy_compat import color_input, core, io, opaque, pick, preview, schema
from .inputs import checked
from .tensors import computed, in_color, progress_bar

logger = logging.getLogger(__name__)

COLOURS = {"multilevel": "multilevel", "blur fusion": "blur_fusion", "off": None}
OUTPUTS = {
    "RGBA": "rgba",
    "RGBA premultiplied": "premultiplied",
    "over color": "color",
    "over background": "image",
    "over checkerboard": "checkerboard",
}
FITS = {"fill": "fill", "fit": "fit", "stretch": "stretch"}


class BiRefNetApplyAlpha(io.ComfyNode):
    """Cuts the subject out, with the subject's own colours at soft edges."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetApplyAlpha",
            display_name="BiRefNet Apply Alpha",
            description="Cuts the subject out by its mask (1 on the subject), transparent or over something else. "
            "Estimates the subject's own colors, so that the old background does not shine through at soft edges.",
            essentials_category="Image Tools",
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="One image may go with many masks, and the reverse. What its own alpha hides stays hidden.",
                ),
                io.Mask.Input("mask", tooltip="1 on the subject. Resized to the image if sizes differ."),
                io.Combo.Input(
                    "output",
                    options=list(OUTPUTS),
                    default="RGBA",
                    tooltip="RGBA: for PNG files; alpha is the mask. Premultiplied: for compositing programs. "
                    "Over color, background or checkerboard: without transparency.",
                ),
                io.Combo.Input(
                    "colors",
                    options=list(COLOURS),
                    default="multilevel",
                    tooltip="How the subject's own colors are estimated. multilevel: best. blur fusion: as published "
                    "with the network. off: the image as it is, with fringes of the old background.",
                ),
                color_input(
                    "color",
                    "#ffffff",
                    "For output over color, and the bars of fit. Over a link also as red,green,blue from 0 to 255.",
                ),
                io.Combo.Input(
                    "background_fit",
                    options=list(FITS),
                    default="fill",
                    tooltip="How a background of another shape is placed. fill: covers the frame. fit: shows all of "
                    "it between bars. stretch: changes its proportions.",
                ),
                io.Boolean.Input("crop", default=False, tooltip="Crop to the subject; one box for the whole batch."),
                io.Int.Input("padding", default=16, min=0, max=4096, tooltip="Pixels around the subject with crop."),
                io.Image.Input(
                    "background", optional=True, tooltip="For output over background: one picture or one per image."
                ),
            ],
            outputs=[
                io.Image.Output("cutout", display_name="image", tooltip="RGBA or RGB, as chosen."),
                io.Mask.Output("alpha", display_name="mask", tooltip="The mask at the size of the result."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, image, mask, output, colors, color, background_fit, crop, padding, background=None
    ) -> io.NodeOutput:
        masks = core(".masks")
        options = masks.CutoutOptions(
            output=pick(OUTPUTS, output, "output"),
            colors=pick(COLOURS, colors, "colors"),
            color=opaque(color),
            fit=pick(FITS, background_fit, "background_fit"),
            crop_padding=padding if crop else None,
        )

        def cut_out(image, mask, background):
            return masks.cut_out(image, mask, options, background, progress=progress_bar())

        cutout, alpha = computed(cls, cut_out, in_color(image), mask, _background(output, background))
        _tell_if_empty(alpha)
        return io.NodeOutput(cutout, alpha, ui=preview(cutout, cls))


def _background(output: str, background: Any) -> Any:
    if background is None and OUTPUTS[output] == "image":
        raise ImageError(f"Output {output!r} needs an image: connect the input background, or choose another output.")
    return None if background is None else in_color(background)


def _tell_if_empty(alpha: Tensor) -> None:
    if not alpha.any():
        logger.warning(
            "BiRefNet Apply Alpha: nothing of the image is left, as its mask (or its own alpha) is 0 everywhere. "
            "Masks of Load Image are 0 on what is opaque: Invert Mask turns them round."
        )
