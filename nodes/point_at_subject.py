"""BiRefNetPointAtSubject: dabs painted on an image -> marks that choose subjects."""

from __future__ import annotations

from .comfy_compat import core, io, schema
from .inputs import checked
from .tensors import as_result, painted_mask, upload_stamp


class BiRefNetPointAtSubject(io.ComfyNode):
    """Marks subjects on the image itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetPointAtSubject",
            display_name="BiRefNet Point at Subject",
            description="Paint a dab on each subject that is meant, and connect the result to points of BiRefNet "
            "Segment: the others go. Painted over a whole subject, it serves as region, too.",
            inputs=[
                io.Image.Input("image", tooltip="The picture to paint on. Run once if it does not show."),
                io.String.Input(
                    "mask",  # the name the painting canvas looks for
                    default="",
                    socketless=True,
                    tooltip="Click or paint on the subjects; any color. Needs Nodes 2.0.",
                    extra_dict={"widgetType": "PAINTER", "image_upload": True},
                ),
                io.String.Input(
                    "coordinates",
                    optional=True,
                    tooltip='Points in pixels from a points editor, such as [{"x": 120, "y": 80}]; added to what is '
                    "painted.",
                    extra_dict={"forceInput": True},
                ),
                *(
                    io.Int.Input(
                        side,  # the painting canvas sets it to the picture's, and has its shape by it
                        default=512,
                        min=1,
                        max=2**15,
                        optional=True,
                        socketless=True,
                        tooltip=f"The canvas's {side}. Set by the page.",
                        extra_dict={"hidden": True},
                    )
                    for side in ("width", "height")
                ),
            ],
            outputs=[io.Mask.Output("points", tooltip="1 where it is marked, at the image's size.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, mask: str | None = "", **inputs) -> str:
        return upload_stamp(mask)

    @classmethod
    @checked
    def execute(cls, image, mask: str = "", coordinates: str = "", width=None, height=None) -> io.NodeOutput:
        size = image.shape[1:3]
        marks = core(".masks").point_marks(coordinates, *size)
        return io.NodeOutput(as_result(marks.maximum(painted_mask(mask, *size))))
