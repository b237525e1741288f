"""BiRefNetDespill: images with a coloured shine -> images without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..birefnet_core import ImageError
from .comfy_compat import color_input, core, io, opaque, pick, preview, schema
from .inputs import checked
from .tensors import computed, in_color, progress_bar

SCREENS = {"green": "#00ff00", "blue": "#0000ff", "background": None, "color": None}
LIMITS = {"balanced": "balanced", "average": "average", "maximum": "maximum"}


class BiRefNetDespill(io.ComfyNode):
    """Takes the colour of a screen out of the subject."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetDespill",
            display_name="BiRefNet Despill",
            description="Takes out the shine of a green screen, a blue screen or any other background, above all at "
            "edges and in hair. Works on images and on cut-outs; alpha is kept.",
            essentials_category="Image Tools",
            inputs=[
                io.Image.Input("image", tooltip="A picture, or the cut-out of BiRefNet Apply Alpha."),
                io.Combo.Input(
                    "screen",
                    options=list(SCREENS),
                    default="green",
                    tooltip="What shines on the subject. background: the color that is measured where the mask is 0. "
                    "color: the one below.",
                ),
                color_input("color", "#00b140", "With screen color: its hue is taken out, whatever its brightness."),
                io.Combo.Input(
                    "limit",
                    options=list(LIMITS),
                    default="balanced",
                    tooltip="balanced: right for most. average: takes out more, and dulls yellow and blond. maximum: "
                    "mild, leaves yellow and turquoise alone.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="How much of the spill is taken out."
                ),
                io.Float.Input(
                    "keep_brightness",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Gives back as grey the light that was taken out. More than 0 where edges get too dark.",
                ),
                io.Int.Input(
                    "edge_width",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Only this many pixels inwards from the subject's edge, for subjects that have the color "
                    "themselves; needs the mask. 0: everywhere.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 on the subject; for edge_width, and for screen background. A cut-out brings its own.",
                ),
            ],
            outputs=[io.Image.Output("despilled", display_name="image", tooltip="With alpha if it came with alpha.")],
        )  # fmt: skip

    @classmethod
    @checked
    def execute(cls, image, screen: str, color: str, mask=None, **options) -> io.NodeOutput:
        key = pick({**SCREENS, "color": opaque(color)}, screen, "screen")
        pick(LIMITS, options["limit"], "limit")

        def despill(image, mask):
            return _despilled(image, mask, screen == "background", key, options)

        result = computed(cls, despill, in_color(image), mask)
        return io.NodeOutput(result, ui=preview(result, cls))


def _despilled(image: Tensor, mask: Tensor | None, measured: bool, key: Any, options: dict[str, Any]) -> Tensor:
    """Images without the key's color, or without the one that is measured in their background."""
    masks, colors, alpha = core(".masks"), image[..., :3], None
    if image.shape[-1] == 4:
        alpha = core(".image_ops").check_masks(image[..., 3], "the alpha of image")
    mask = alpha if mask is None else mask
    if mask is None and options["edge_width"]:
        raise ImageError("edge_width is measured from the edges of the mask: connect the mask, or set edge_width to 0.")
    if measured:
        _check_background(colors, alpha, mask)
        key = masks.background_color(colors, mask)
    result = masks.remove_spill(colors, key, masks=mask, progress=progress_bar(), **options)
    if alpha is None:
        return result
    return torch.cat([result, alpha.expand(len(result), -1, -1)[..., None]], dim=-1)  # one image may go with many masks


def _check_background(colors: Tensor, alpha: Tensor | None, mask: Tensor | None) -> None:
    if mask is None:
        raise ImageError("mask is not connected, expected one: screen background is measured where it is 0.")
    if alpha is not None and not core(".masks").shows_background(colors, alpha):
        raise ImageError(
            "image is a cut-out without its background: where it is transparent, it has the subject's own colors. "
            "Connect the image before Apply Alpha, with its mask, or set colors of Apply Alpha to off."
        )
