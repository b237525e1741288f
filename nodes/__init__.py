"""The pack's nodes, as ComfyUI's extension."""

from . import other_packs
from .apply_alpha import BiRefNetApplyAlpha
from .comfy_compat import ComfyExtension, io
from .compare_masks import BiRefNetCompareMasks
from .load_model import BiRefNetLoadModel
from .migration import register_replacements
from .model_folders import register_model_folders
from .refine_mask import BiRefNetRefineMask
from .remove_background import BiRefNetRemoveBackground
from .segment import BiRefNetSegment

NODES: list[type[io.ComfyNode]] = [
    BiRefNetLoadModel,
    BiRefNetSegment,
    BiRefNetRefineMask,
    BiRefNetApplyAlpha,
    BiRefNetRemoveBackground,
    BiRefNetCompareMasks,
]


class BiRefNetExtension(ComfyExtension):
    """The pack as a ComfyUI extension."""

    async def on_load(self) -> None:
        await register_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_model_folders()  # not in on_load, which ComfyUI before 0.4 does not call
        return [*NODES, *other_packs.NODES]


__all__ = ["NODES", "BiRefNetExtension"]
