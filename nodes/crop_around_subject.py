"""BiRefNetCropAroundSubject: images and masks -> crops to work on, and what puts them back."""

from __future__ import annotations

from .comfy_compat import StitchType, core, io, schema
from .inputs import checked
from .tensors import as_result, in_color, progress_bar


class BiRefNetCropAroundSubject(io.ComfyNode):
    """Crops around the subject, for inpainting at full detail."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetCropAroundSubject",
            display_name="BiRefNet Crop Around Subject",
            description="Crops to the subject and what is around it, for inpainting or upscaling that part only. "
            "BiRefNet Stitch Back puts the result where it came from; the rest of the picture is not touched.",
            inputs=[
                io.Image.Input("image", tooltip="One image, a batch, or the frames of a video."),
                io.Mask.Input("mask", tooltip="1 on the subject, or on what is to be inpainted."),
                io.Float.Input(
                    "padding",
                    default=0.25,
                    min=0.0,
                    max=4.0,
                    step=0.01,
                    tooltip="Added around the subject on every side, as a share of its longer side: what the model "
                    "sees around it.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=8192,
                    step=8,
                    tooltip="Longer side the crop is resized to, such as 1024. 0: its pixels as they are.",
                ),
                io.Boolean.Input("square", default=False, tooltip="Square, as far as the picture is large enough."),
                io.Boolean.Input(
                    "follow",
                    default=False,
                    tooltip="For batches: each image is cropped around its own subject. Off: one box for all, so that "
                    "a video stays still.",
                ),
                io.Int.Input(
                    "multiple",
                    default=8,
                    min=1,
                    max=128,
                    tooltip="Both sides of the crop are multiples of this, as models need it: 8, 16, 32 or 64.",
                ),
            ],
            outputs=[
                io.Image.Output("crop", display_name="image", tooltip="The part around the subject."),
                io.Mask.Output("crop_mask", display_name="mask", tooltip="The mask of that part."),
                StitchType.Output("stitch", tooltip="To BiRefNet Stitch Back."),
            ],
        )  # fmt: skip

    @classmethod
    @checked
    def execute(cls, image, mask, **options) -> io.NodeOutput:
        masks = core(".masks")
        crop, crop_mask, stitch = masks.crop_for_inpainting(
            in_color(image), mask.to(image.device), masks.CropOptions(**options), progress_bar()
        )
        return io.NodeOutput(as_result(crop), as_result(crop_mask), stitch)
