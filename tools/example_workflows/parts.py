"""What the lists of examples are written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# What nodes/example_inputs.py puts into ComfyUI's input folder.
EXAMPLE, SECOND, THIRD = "example_birefnet.jpg", "example_birefnet_two.jpg", "example_birefnet_three.jpg"
FOLDER = "birefnet_examples"
NEEDS_MODEL = {"CheckpointLoaderSimple"}  # nodes that load what neither ComfyUI nor this pack brings
ON_DEMO = (
    "**demo** comes with the pack. It is small: for your own photographs choose **BiRefNet** in its place, which is "
    "downloaded once (444 MB)."
)


@dataclass(frozen=True)
class Node:
    """A node of an example.

    Args:
        kind: Its id in ComfyUI.
        inputs: Values by name of the input; a link is a tuple of the other node's key and the number of its output.
        title: Shown in place of its display name.
        models: Files it needs, which ComfyUI offers to download.
    """

    kind: str
    inputs: dict[str, Any]
    title: str = ""
    models: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Example:
    """A workflow.

    Args:
        name: Title and file name.
        columns: Nodes by key, from left to right.
        shown: The node whose output its thumbnail shows beside the image.
        note: Markdown; the first node, followed by on_demo.
        app: Inputs (node key, widget) of App mode; empty: a graph.
        group: A title and the keys of the nodes it stands around.
    """

    name: str
    columns: tuple[dict[str, Node], ...]
    shown: str
    note: str
    on_demo: str = ON_DEMO
    app: tuple[tuple[str, str], ...] = ()
    group: tuple[str, tuple[str, ...]] = ("", ())
    file: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", f"{self.name}.json")

    @property
    def text(self) -> str:
        """What the note says."""
        return f"{self.note} {self.on_demo}".strip()

    @property
    def nodes(self) -> dict[str, Node]:
        return {key: node for column in self.columns for key, node in column.items()}

    @property
    def runs_at_once(self) -> bool:
        """Whether a fresh ComfyUI has all it needs."""
        return not any(node.kind in NEEDS_MODEL for node in self.nodes.values())


def node(kind: str, title: str = "", models: tuple[dict[str, str], ...] = (), **inputs: Any) -> Node:
    return Node(kind, inputs, title, models)


def load(title: str = "") -> Node:
    return node("BiRefNetLoadModel", title, model="demo")


def image(name: str = EXAMPLE) -> Node:
    return node("LoadImage", image=name)


def segment(title: str = "", image: str = "image", model: str = "model", **inputs: Any) -> Node:
    return node("BiRefNetSegment", title, model=(model, 0), image=(image, 0), **inputs)


def apply(title: str = "", image: tuple[str, int] = ("segment", 1), mask: str = "segment", **inputs: Any) -> Node:
    return node("BiRefNetApplyAlpha", title, image=image, mask=(mask, 0), **inputs)


def save(source: str, prefix: str, title: str = "") -> Node:
    return node("SaveImage", title, images=(source, 0), filename_prefix=prefix)


START = {"image": image(), "model": load()}
