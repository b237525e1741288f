"""What differs between ComfyUI versions, and the names of ComfyUI that the nodes share.

The heavy parts of the core (the network with timm and torchvision) are imported at their first use, so that ComfyUI
starts without them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from comfy_api import latest
from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.graph_utils import GraphBuilder
from torch import Tensor

from ..birefnet_core import ConfigError
from .search_words import search_words

__all__ = ["ComfyExtension", "GraphBuilder", "io", "ui"]

BiRefNetModelType = io.Custom("BIREFNET_MODEL")
BackgroundRemovalType = io.Custom("BACKGROUND_REMOVAL")  # input of ComfyUI's own Remove Background node
BoundingBoxType = io.Custom("BOUNDING_BOX")
StitchType = io.Custom("BIREFNET_STITCH")

PACK = Path(__file__).resolve().parents[1]
# ComfyUI draws images to paint on, and to draw a box on, since it has these types.
HAS_CANVAS = hasattr(io, "BoundingBox") and hasattr(io, "Color")
VideoInput = getattr(getattr(latest, "Input", None), "Video", None)
VideoFromFile = getattr(getattr(latest, "InputImpl", None), "VideoFromFile", None)
VideoFromComponents = getattr(getattr(latest, "InputImpl", None), "VideoFromComponents", None)
PREVIEWS = 4  # images of a batch that a node previews

# ComfyUI before 0.4 raises TypeError for these.
ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Int.Input.__init__).parameters else {}
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**options: Any) -> io.Schema:
    """An io.Schema of our category and search words, without what this version of ComfyUI does not know."""
    options.setdefault("category", "BiRefNet")
    options.setdefault("search_aliases", search_words(options["node_id"]))
    return io.Schema(**{k: v for k, v in options.items() if k in _SCHEMA_FIELDS})


def missing_for_video() -> str:
    """What this ComfyUI lacks for the video node; empty for nothing."""
    if VideoInput is None or VideoFromFile is None or not hasattr(io, "Video"):
        return "this version of ComfyUI has no VIDEO type"
    return "" if find_spec("av") else "the Python package av (PyAV) is not installed"


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Shows a line in a node while it runs, where this version of ComfyUI can."""
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    node_id = getattr(getattr(node, "hidden", None), "unique_id", None)
    if node_id is not None and hasattr(server, "send_progress_text"):
        server.instance.send_progress_text(text, node_id)


async def replace_node(**replacement: Any) -> bool:
    """Tells ComfyUI which of our nodes takes the place of another pack's where that is not installed.

    Args:
        replacement: Of io.NodeReplace.

    Returns:
        Whether this version of ComfyUI replaces nodes.
    """
    api = getattr(import_module("comfy_api.latest"), "ComfyAPI", None)
    registry = getattr(api and api(), "node_replacement", None)
    if registry is None or not hasattr(io, "NodeReplace"):
        return False
    await registry.register(io.NodeReplace(**replacement))
    return True


def missing_node(name: str) -> bool:
    """Whether no pack has a node of that id, as far as packs are loaded."""
    return name not in getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", ())


def before_each_prompt(handler: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Has a function see each workflow that comes to the server, before nodes are replaced in it."""
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    if server is not None:
        server.instance.add_on_prompt_handler(handler)


def color_input(id: str, default: str, tooltip: str) -> Any:
    """A colour picker that also takes text over a link, or a text field in a ComfyUI without."""
    if not hasattr(io, "Color"):
        return io.String.Input(id, default=default, tooltip=tooltip)
    return io.MultiType.Input(io.Color.Input(id, default=default, tooltip=tooltip, socketless=False), types=[io.String])


def opaque(color: Any) -> Any:
    """A colour without the opacity that the colour picker may add: #rrggbbaa becomes #rrggbb."""
    return color.strip()[:7] if isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{8}", color.strip()) else color


def number_or_off(id: str, tooltip: str) -> Any:
    """A text field that is "off" until it is given a number, which may also come over a link."""
    field = io.String.Input(id, default="off", tooltip=tooltip)
    return io.MultiType.Input(field, types=[io.Float, io.Int]) if hasattr(io, "MultiType") else field


def core(part: str) -> ModuleType:
    """A part of the core, such as ".masks", imported at its first use.

    Raises:
        ImportError: A package the core needs is not installed; says how to install it.
    """
    try:
        return import_module(f"..birefnet_core{part}", __package__)
    except ImportError as error:
        raise ImportError(
            f"The BiRefNet nodes need the Python package {error.name!r}, which cannot be imported ({error}). Install "
            f"what they need into ComfyUI's Python, then start ComfyUI again: "
            f'"{sys.executable}" -m pip install -r "{PACK / "requirements.txt"}"',
            name=error.name,
        ) from error


def default_inputs(node: type[io.ComfyNode], *given: str) -> dict[str, Any]:
    """The default values of a node's inputs, but for those given."""
    inputs = [getattr(i, "input_override", None) or i for i in node.define_schema().inputs]
    return {i.id: i.default for i in inputs if getattr(i, "default", None) is not None and i.id not in given}


def pick(options: dict[str, Any], value: str, name: str) -> Any:
    """What an option stands for; older versions of ComfyUI pass on any value."""
    if not isinstance(value, str) or value not in options:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(options)}.")
    return options[value]


def mask_preview(masks: Tensor, node: type[io.ComfyNode]) -> Any:
    """Masks as grey pictures in the node itself."""
    return preview(masks[:PREVIEWS, ..., None].expand(-1, -1, -1, 3), node)


def preview(images: Tensor, node: type[io.ComfyNode]) -> Any:
    """Pictures shown in the node itself; the first few of a batch."""
    return ui.PreviewImage(images[:PREVIEWS].float(), cls=node)
