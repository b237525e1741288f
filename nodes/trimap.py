"""BiRefNetTrimap: masks -> trimaps."""

from __future__ import annotations

from .comfy_compat import core, io, mask_preview, schema
from .inputs import checked
from .tensors import computed, progress_bar


class BiRefNetTrimap(io.ComfyNode):
    """Makes the trimaps that matting methods start from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetTrimap",
            display_name="BiRefNet Trimap",
            description="Makes a trimap out of a mask: white is subject, black is background, and the grey band "
            "between is left to a matting node to decide.",
            inputs=[
                io.Mask.Input("mask", tooltip="1 on the subject."),
                io.Int.Input(
                    "inside",
                    default=10,
                    min=0,
                    max=512,
                    tooltip="Width of the grey band within the subject, in pixels.",
                ),
                io.Int.Input(
                    "outside",
                    default=10,
                    min=0,
                    max=512,
                    tooltip="Width of the grey band around the subject, in pixels. Wide for hair and fur.",
                ),
            ],
            outputs=[
                io.Mask.Output("trimap", tooltip="1 on the subject, 0 on the background, 0.5 between."),
                io.Mask.Output("band", tooltip="1 on the grey band only, for work on the edge."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, mask, inside: int, outside: int) -> io.NodeOutput:
        masks = core(".masks")
        trimap = computed(cls, lambda mask: masks.make_trimap(mask, inside, outside, progress=progress_bar()), mask)
        return io.NodeOutput(trimap, (trimap == masks.UNKNOWN).float(), ui=mask_preview(trimap, cls))
