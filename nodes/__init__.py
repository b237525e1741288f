"""The pack's nodes, as ComfyUI's extension."""

import logging

from . import other_packs
from .apply_alpha import BiRefNetApplyAlpha
from .box_subject import BiRefNetBoxSubject
from .comfy_compat import HAS_CANVAS, ComfyExtension, io, missing_for_video
from .compare_masks import BiRefNetCompareMasks
from .crop_around_subject import BiRefNetCropAroundSubject
from .despill import BiRefNetDespill
from .example_inputs import copy_example_images
from .load_model import BiRefNetLoadModel
from .migration import register_replacements
from .model_folders import register_model_folders
from .point_at_subject import BiRefNetPointAtSubject
from .refine_mask import BiRefNetRefineMask
from .remove_background import BiRefNetRemoveBackground
from .segment import BiRefNetSegment
from .segment_video import BiRefNetSegmentVideo
from .stitch_back import BiRefNetStitchBack
from .trimap import BiRefNetTrimap

NODES: list[type[io.ComfyNode]] = [
    BiRefNetLoadModel,
    BiRefNetSegment,
    BiRefNetRefineMask,
    BiRefNetApplyAlpha,
    BiRefNetRemoveBackground,
    BiRefNetCompareMasks,
    BiRefNetTrimap,
    BiRefNetDespill,
    BiRefNetCropAroundSubject,
    BiRefNetStitchBack,
    BiRefNetSegmentVideo,
    *([BiRefNetPointAtSubject, BiRefNetBoxSubject] if HAS_CANVAS else []),
]


class BiRefNetExtension(ComfyExtension):
    """The pack as a ComfyUI extension."""

    async def on_load(self) -> None:
        await register_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_model_folders()  # not in on_load, which ComfyUI before 0.4 does not call
        copy_example_images()
        if missing := missing_for_video():
            logging.getLogger(__name__).info("BiRefNet Segment Video is left out: %s", missing)
        return [node for node in (*NODES, *other_packs.NODES) if not missing or node is not BiRefNetSegmentVideo]


__all__ = ["NODES", "BiRefNetExtension"]
