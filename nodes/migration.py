"""Which of our nodes take the places of other packs' nodes, through ComfyUI's own node replacement.

ComfyUI uses the table for nodes it does not know: their pack is not installed. Its page then offers to replace them
when a workflow is opened, and its server replaces them in workflows that come over its API.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .comfy_compat import before_each_prompt, missing_node, replace_node


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replacement:
    """A node of ours for a node of another pack.

    Attributes:
        pack: The other pack's repository.
        old: Its node.
        new: Ours.
        widgets: The old node's widgets, as workflows list their values.
        inputs: Our inputs by the old node's.
        values: Of our inputs that the old node has no like of.
        outputs: Our outputs by number, in the order of the old node's.
        optional: Values of the old node's inputs that a workflow may leave out.
    """

    pack: str
    old: str
    new: str
    widgets: tuple[str, ...] = ()
    inputs: dict[str, str]
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    outputs: tuple[int, ...]
    optional: dict[str, Any] = dataclasses.field(default_factory=dict)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


LL, ZHO = "lldacing/ComfyUI_BiRefNet_ll", "ZHO-ZHO-ZHO/ComfyUI-BiRefNet-ZHO"
_LL_SIZE = ("width", "height", "upscale_method")
_LL_COLORS = ("blur_size", "blur_size_two", "fill_color", "color")
_HUGO = ("background_color_name", "background_color_code", "background_color_mode", "device", "dtype")
# Inputs that an early version of the node did not have.
_HUGO_EARLY = {"model": "", "background_color_code": "#00FF00", "background_color_mode": True, "dtype": "fp32"}
_RMBG = ("mask_blur", "mask_offset", "invert_output", "refine_foreground", "background", "background_color")

REPLACEMENTS = (
    Replacement(
        pack=LL,
        old="AutoDownloadBiRefNetModel",
        new="BiRefNetOtherPackLoadModel",
        widgets=("model_name", "device", "dtype"),
        inputs={"model_name": "model", **_same("device", "dtype")},
        outputs=(0,),
        optional={"dtype": "auto"},
    ),
    Replacement(
        pack=LL,
        old="LoadRembgByBiRefNetModel",
        new="BiRefNetOtherPackLoadModel",
        widgets=("model", "device", "use_weight", "dtype"),
        inputs=_same("model", "device", "dtype"),
        outputs=(0,),
        optional={"dtype": "auto"},
    ),
    Replacement(
        pack=LL,
        old="GetMaskByBiRefNet",
        new="BiRefNetOtherPackMask",
        widgets=(*_LL_SIZE, "mask_threshold"),
        inputs=_same("model", "images", *_LL_SIZE, "mask_threshold"),
        outputs=(0,),
    ),
    Replacement(
        pack=LL,
        old="RembgByBiRefNetAdvanced",
        new="BiRefNetOtherPackCutout",
        widgets=(*_LL_SIZE, *_LL_COLORS, "mask_threshold"),
        inputs=_same("model", "images", *_LL_SIZE, *_LL_COLORS, "mask_threshold"),
        outputs=(0, 1),
    ),
    Replacement(
        pack=LL,
        old="RembgByBiRefNet",
        new="BiRefNetOtherPackCutout",
        inputs=_same("model", "images"),
        values={
            "width": 1024, "height": 1024, "upscale_method": "bilinear", "blur_size": 91, "blur_size_two": 7,
            "fill_color": False, "color": 0, "mask_threshold": 0.0,
        },
        outputs=(0, 1),
    ),
    Replacement(
        pack=LL,
        old="BlurFusionForegroundEstimation",
        new="BiRefNetOtherPackForeground",
        widgets=_LL_COLORS,
        inputs=_same("images", "masks", *_LL_COLORS),
        outputs=(0, 1),
    ),
    Replacement(
        pack="viperyl/ComfyUI-BiRefNet",
        old="BiRefNet",
        new="BiRefNetRemoveBackground",
        widgets=("device",),
        inputs=_same("image"),
        values={"model": "BiRefNet"},
        outputs=(1,),
    ),
    Replacement(
        pack=ZHO,
        old="BiRefNet_ModelLoader_Zho",
        new="BiRefNetOtherPackLoadModel",
        widgets=("birefnet_model",),
        inputs={"birefnet_model": "model"},
        values={"device": "AUTO", "dtype": "auto"},
        outputs=(0,),
    ),
    Replacement(
        pack=ZHO,
        old="BiRefNet_Zho",
        new="BiRefNetOtherPackZHO",
        inputs=_same("birefnetmodel", "image"),
        outputs=(0, 1),
    ),
    Replacement(
        pack="MoonHugo/ComfyUI-BiRefNet-Hugo",
        old="BiRefNet_Hugo",
        new="BiRefNetOtherPackHugo",
        widgets=("model", *_HUGO, "cpu_offload", "Auto_Download_Path"),
        inputs=_same("model", "image", *_HUGO),
        outputs=(0, 1),
        optional=_HUGO_EARLY,
    ),
    Replacement(
        pack="1038lab/ComfyUI-RMBG",
        old="BiRefNetRMBG",
        new="BiRefNetOtherPackRMBG",
        widgets=("model", *_RMBG),
        inputs=_same("image", "model", *_RMBG),
        outputs=(0, 1, 2),
        optional={
            "mask_blur": 0, "mask_offset": 0, "invert_output": False, "refine_foreground": False,
            "background": "Alpha", "background_color": "#222222",
        },
    ),
)  # fmt: skip


def complete(request: dict[str, Any]) -> dict[str, Any]:
    """Adds to a workflow for the API what ComfyUI's replacement does not do without: inputs left out, and titles."""
    prompt = request.get("prompt")
    for node in prompt.values() if isinstance(prompt, dict) else ():
        kind = node.get("class_type") if isinstance(node, dict) else None
        row = next((row for row in REPLACEMENTS if row.old == kind and missing_node(row.old)), None)
        if row is not None and isinstance(node.get("inputs"), dict):
            node["inputs"] = {**row.optional, **node["inputs"]}
            node.setdefault("_meta", {"title": row.old})
    return request


async def register_replacements() -> None:
    """Gives the table to ComfyUI. Versions without node replacement, before 0.13, show the old nodes as missing."""
    for row in REPLACEMENTS:
        mapping = [{"new_id": new, "old_id": old} for old, new in row.inputs.items()]
        mapping += [{"new_id": new, "set_value": value} for new, value in row.values.items()]
        await replace_node(
            new_node_id=row.new,
            old_node_id=row.old,
            old_widget_ids=list(row.widgets) or None,
            input_mapping=mapping,
            output_mapping=[{"new_idx": new, "old_idx": old} for old, new in enumerate(row.outputs)],
        )
    before_each_prompt(complete)
