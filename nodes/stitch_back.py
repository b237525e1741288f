"""BiRefNetStitchBack: crops that were worked on -> whole images."""

from __future__ import annotations

from .comfy_compat import StitchType, core, io, preview, schema
from .inputs import checked, expect
from .tensors import as_result, progress_bar


class BiRefNetStitchBack(io.ComfyNode):
    """Puts crops back to where they were cut."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetStitchBack",
            display_name="BiRefNet Stitch Back",
            description="Puts a crop back into the picture it was cut from by BiRefNet Crop Around Subject. Outside "
            "the crop every pixel stays exactly as it was.",
            inputs=[
                StitchType.Input("stitch", tooltip="From BiRefNet Crop Around Subject."),
                io.Image.Input("image", tooltip="The crop after the work on it, of any size."),
                io.Int.Input(
                    "blend",
                    default=16,
                    min=0,
                    max=512,
                    tooltip="Pixels over which the crop fades into the picture, at its border and around the mask. "
                    "0: hard edges.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Takes only this from the crop, such as the mask it was inpainted by. Not connected: all.",
                ),
            ],
            outputs=[io.Image.Output("stitched", display_name="image", tooltip="The whole picture.")],
        )

    @classmethod
    @checked
    def execute(cls, stitch, image, blend: int, mask=None) -> io.NodeOutput:
        masks = core(".masks")
        expect(stitch, masks.CropRecord, "stitch", "BiRefNet Crop Around Subject")
        device = stitch.images.device
        mask = None if mask is None else mask.to(device)
        result = as_result(masks.stitch_back(stitch, image.to(device), mask, blend, progress_bar()))
        return io.NodeOutput(result, ui=preview(result, cls))
