"""BiRefNetRemoveBackground: the common path in one node."""

from __future__ import annotations

from .apply_alpha import BiRefNetApplyAlpha
from .comfy_compat import GraphBuilder, default_inputs, io, schema
from .inputs import checked
from .load_model import BiRefNetLoadModel
from .model_folders import check_model_name, file_stamp, model_input
from .segment import BiRefNetSegment


class BiRefNetRemoveBackground(io.ComfyNode):
    """Loads, segments and cuts out. ComfyUI runs the three nodes it stands for, and keeps the model between runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BiRefNetRemoveBackground",
            display_name="Background Removal (BiRefNet)",
            description="Image in, cut-out with transparency out. The same as Load BiRefNet Model, BiRefNet Segment "
            "and BiRefNet Apply Alpha with their usual settings.",
            essentials_category="Image Tools",
            enable_expand=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="One image, a batch, or the frames of a video."),
                model_input(),
            ],
            outputs=[
                io.Image.Output("cutout", display_name="image", tooltip="RGBA, with the subject's own colors."),
                io.Mask.Output("mask", tooltip="1 on the subject, 0 on the background, soft in between."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        return check_model_name(model)

    @classmethod
    def fingerprint_inputs(cls, model: str | None, **inputs) -> str:
        return file_stamp(model)

    @classmethod
    @checked
    def execute(cls, image, model: str) -> io.NodeOutput:
        graph, defaults = GraphBuilder(), default_inputs
        model = graph.node("BiRefNetLoadModel", model=model, **defaults(BiRefNetLoadModel, "model")).out(0)
        mask = graph.node("BiRefNetSegment", model=model, image=image, **defaults(BiRefNetSegment)).out(0)
        cutout = graph.node("BiRefNetApplyAlpha", image=image, mask=mask, **defaults(BiRefNetApplyAlpha)).out(0)
        return io.NodeOutput(cutout, mask, expand=graph.finalize())
