"""BiRefNetSegment: images -> masks."""

from __future__ import annotations

from . import runtime
from .runtime import io

SIZES = {"auto (training size)": None, "native": "native", "512": 512, "1024": 1024, "1536": 1536, "2048": 2048}
CUSTOM = "custom"


class BiRefNetSegment(io.ComfyNode):
    """Segments the subject of each image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return runtime.schema(
            node_id="BiRefNetSegment",
            display_name="BiRefNet Segment",
            description="Finds the subject of each image. The mask is 1 on the subject and has the image's size.",
            search_aliases=["remove background", "background mask", "subject mask", "cut out", "rembg", "matting"],
            inputs=[
                runtime.BiRefNetModelType.Input("model", tooltip="From Load BiRefNet Model."),
                io.Image.Input("image", tooltip="One image, a batch, or the frames of a video."),
                io.Combo.Input(
                    "size",
                    options=[*SIZES, CUSTOM],
                    default=next(iter(SIZES)),
                    tooltip="Size the image is stretched to for the network. The training size is the safe choice; "
                    "native suits the dynamic checkpoints. The mask always comes back at the image's size.",
                ),
                io.Int.Input("width", default=1024, min=32, max=4096, step=32, tooltip="Used with size: custom."),
                io.Int.Input("height", default=1024, min=32, max=4096, step=32, tooltip="Used with size: custom."),
                io.Int.Input(
                    "frames_per_step",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip="Images that go through the network together. 0: as many as fit. Fewer need less memory.",
                    **runtime.ADVANCED,
                ),
            ],
            outputs=[
                io.Mask.Output("mask", tooltip="1 on the subject, 0 on the background, soft in between."),
                io.Image.Output("images", display_name="image", tooltip="The image as it came in."),
            ],
        )

    @classmethod
    def execute(
        cls, model: runtime.ModelHandle, image, size: str, width: int, height: int, frames_per_step: int = 0
    ) -> io.NodeOutput:
        wanted = runtime.pick({**SIZES, CUSTOM: (width, height)}, size, "size")
        return io.NodeOutput(model.segment(image, wanted, frames_per_step=frames_per_step), image)
