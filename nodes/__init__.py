"""The pack's nodes, as ComfyUI's extension."""

from . import runtime
from .apply_alpha import BiRefNetApplyAlpha
from .compare_masks import BiRefNetCompareMasks
from .load_model import BiRefNetLoadModel
from .refine_mask import BiRefNetRefineMask
from .remove_background import BiRefNetRemoveBackground
from .segment import BiRefNetSegment

NODES: list[type[runtime.io.ComfyNode]] = [
    BiRefNetLoadModel,
    BiRefNetSegment,
    BiRefNetRefineMask,
    BiRefNetApplyAlpha,
    BiRefNetRemoveBackground,
    BiRefNetCompareMasks,
]


class BiRefNetExtension(runtime.ComfyExtension):
    """What ComfyUI asks the pack for."""

    async def get_node_list(self) -> list[type[runtime.io.ComfyNode]]:
        runtime.register_model_folders()  # not in on_load, which ComfyUI before 0.4 does not call
        return NODES


__all__ = ["NODES", "BiRefNetExtension"]
