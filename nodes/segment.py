"""BiRefNetSegment: images -> masks."""

from __future__ import annotations

from .comfy_compat import ADVANCED, BiRefNetModelType, BoundingBoxType, core, io, pick, schema
from .inputs import checked, expect
from .model_handle import ModelHandle
from .tensors import as_result, progress_bar, region_of

SIZES = {"auto (training size)": None, "native": "native", "512": 512, "1024": 1024, "1536": 1536, "2048": 2048}
CUSTOM = "custom"


def flip_input(what: str) -> io.Boolean.Input:
    """Whether to average with the mask of the mirrored image, or frame."""
    tooltip = f"Averages with the mask of the mirrored {what}: a little better, twice the time."
    return io.Boolean.Input("flip", default=False, optional=True, tooltip=tooltip, **ADVANCED)


def frames_per_step_input(what: str) -> io.Int.Input:
    """How many images, or frames, go through the network together."""
    tooltip = f"{what} that go through the network together. 0: as many as fit. Fewer need less memory."
    return io.Int.Input("frames_per_step", default=0, min=0, max=64, optional=True, tooltip=tooltip, **ADVANCED)


class BiRefNetSegment(io.ComfyNode):
    """Segments the subject of each image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetSegment",
            display_name="BiRefNet Segment",
            description="Finds the subject of each image. The mask is 1 on the subject and has the image's size.",
            inputs=[
                BiRefNetModelType.Input("model", tooltip="From Load BiRefNet Model."),
                io.Image.Input(
                    "image",
                    tooltip="One image, a batch, or the frames of a video. Of an image with alpha, only what is "
                    "visible counts.",
                ),
                io.Combo.Input(
                    "size",
                    options=[*SIZES, CUSTOM],
                    default=next(iter(SIZES)),
                    tooltip="Size the image is stretched to for the network. The training size is the safe choice; "
                    "native suits the dynamic checkpoints. The mask always comes back at the image's size.",
                ),
                io.Int.Input("width", default=1024, min=32, max=4096, step=32, tooltip="Used with size: custom."),
                io.Int.Input("height", default=1024, min=32, max=4096, step=32, tooltip="Used with size: custom."),
                io.Boolean.Input(
                    "tiled",
                    default=False,
                    optional=True,
                    tooltip="For images larger than the size: refines uncertain edges in tiles at full resolution. "
                    "Takes up to one network pass more for every tile.",
                ),
                flip_input("image"),
                frames_per_step_input("Images"),
                io.Float.Input(
                    "margin",
                    default=0.1,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    optional=True,
                    tooltip="Added around a region or box on every side, as a share of its longer side.",
                    **ADVANCED,
                ),
                io.Float.Input(
                    "falloff",
                    default=0.05,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    optional=True,
                    tooltip="Where the part around a region or box ends, the mask fades out over this share of the "
                    "part's longer side instead of ending in a straight edge. 0: off.",
                    **ADVANCED,
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="Where the subject is, roughly: a painted mask. Only the part around it is segmented; "
                    "outside that part the mask is 0. One for all images, or one for each; where one of several is "
                    "empty, so is the mask.",
                ),
                BoundingBoxType.Input(
                    "box",
                    optional=True,
                    tooltip="The same as region, as a bounding box. Used if there is no region.",
                    extra_dict={"forceInput": True},  # else it is a widget, and always has a value
                ),
                io.Mask.Input(
                    "points",
                    optional=True,
                    tooltip="Chooses among several subjects: only those with a mark in them stay. From BiRefNet Point "
                    "at Subject, or any mask with dabs on the subjects. Without any mark, all stay.",
                ),
            ],
            outputs=[
                io.Mask.Output("mask", tooltip="1 on the subject, 0 on the background, soft in between."),
                io.Image.Output("images", display_name="image", tooltip="The image as it came in."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, model, image, size: str, width: int, height: int, region=None, box=None, points=None, **options
    ) -> io.NodeOutput:
        expect(model, ModelHandle, "model", "Load BiRefNet Model")
        wanted = pick({**SIZES, CUSTOM: (width, height)}, size, "size")
        region = region_of(region, box, len(image))
        points = None if points is None else core(".masks").check_marks(points, len(image))
        mask = model.segment(image, wanted, region=region, **options)
        if points is not None:
            mask = as_result(core(".masks").keep_marked(mask, points.to(mask.device), progress_bar()))
        return io.NodeOutput(mask, image)
