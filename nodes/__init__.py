"""The pack's nodes, as ComfyUI's extension."""

from comfy_api.latest import ComfyExtension, io

from . import runtime
from .load_model import BiRefNetLoadModel
from .segment import BiRefNetSegment

NODES: list[type[io.ComfyNode]] = [BiRefNetLoadModel, BiRefNetSegment]


class BiRefNetExtension(ComfyExtension):
    """What ComfyUI asks the pack for."""

    async def on_load(self) -> None:
        runtime.register_model_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


__all__ = ["NODES", "BiRefNetExtension"]
