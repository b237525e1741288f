"""BiRefNetBoxSubject: a box drawn on an image -> a region."""

from __future__ import annotations

from .comfy_compat import BoundingBoxType, io, schema
from .inputs import checked, expect


class BiRefNetBoxSubject(io.ComfyNode):
    """Takes a box that is drawn on the image itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetBoxSubject",
            display_name="BiRefNet Box around Subject",
            description="Drag a box around the subject that is meant, and connect it to box of BiRefNet Segment: only "
            "what is in it is segmented.",
            inputs=[
                io.Image.Input("image", tooltip="The picture to draw on. Run once if it does not show."),
                io.BoundingBox.Input(
                    "region",
                    component="ImageCrop",
                    default={"x": 0, "y": 0, "width": 512, "height": 512},
                    tooltip="Drag and resize it on the picture. Needs Nodes 2.0; the numbers work without.",
                ),
            ],
            outputs=[BoundingBoxType.Output("box", tooltip="In pixels of the image. To box of BiRefNet Segment.")],
        )

    @classmethod
    @checked
    def execute(cls, image, region) -> io.NodeOutput:
        expect(region, dict, "region", "a bounding box")
        return io.NodeOutput({**region})
