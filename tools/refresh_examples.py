"""Makes the example workflows and their thumbnails anew, from the list in `tools/example_workflows/`.

    COMFYUI_DIR=... [COMFYUI_PYTHON=...] python tools/refresh_examples.py [--only WORD ...] [--thumbnails]

Builds each workflow in ComfyUI's page, runs it in both renderers, places its nodes by the sizes they take there, and
draws a thumbnail from a run on the images in examples/. Needs chromium, chromedriver and the packages selenium and
av. With --thumbnails the workflow files stay as they are and no browser is needed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

from birefnet_core.images import to_bytes  # noqa: E402
from birefnet_core.masks import over_checkerboard  # noqa: E402
from tests.comfyui.browser import (  # noqa: E402
    OPEN,
    open_page,
    picture_of,
    run_open_workflow,
    use_renderer,
    wait_until_ready,
    whole_page,
)  # fmt: skip
from tests.comfyui.conftest import ComfyUI  # noqa: E402
from tests.conftest import api_format  # noqa: E402
from tools.example_workflows import EXAMPLES, Example  # noqa: E402

FOLDER = ROOT / "example_workflows"
WIDTH, GAP, ROW_GAP, HEAD = 320, 80, 50, 40  # of nodes and between them; HEAD: the title above a node
NOTE_HEIGHT = 220
WIDTHS = {"CheckpointLoaderSimple": 420, "LoadImage": 460}  # nodes with long values; fonts of newer pages are large
PICTURE_HEIGHT = 360  # of nodes that show an image, a mask, a clip or a table, at least
SHOWS_PICTURE = {"LoadImage", "SaveImage", "PreviewImage", "MaskPreview", "SaveVideo", "PreviewAny"}
PICTURES = {  # for the documents
    "Cut Out to Transparent PNG (BiRefNet)": "workflow.jpg",
    "App - Cut Out an Image (BiRefNet)": "app.jpg",
    "Point at the Subject (BiRefNet)": "pointing.jpg",
    "Box around the Subject (BiRefNet)": "box.jpg",
}
PICTURE = (1000, 700)  # at most
THUMBNAIL, QUALITY = (640, 360), 88
LINE, MOST_PAIRS = 4, 2  # white lines between the images of a thumbnail; rows in it
WIDE = 1.5  # images wider than this many times their place are shown whole, others cover it
CENTER = (0.5, 0.3)  # what stays of a tall image: heads are in its upper part

BUILD = """
const [spec, done] = arguments;
app.graph.clear();
const made = {};
try {
  for (const [key, {kind, title, models, values, size}] of spec.nodes) {
    const node = LiteGraph.createNode(kind);
    if (!node) throw `there is no node ${kind}`;
    if (title) node.title = title;
    if (models.length) node.properties.models = models;
    app.graph.add(node);
    for (const [name, value] of values) {
      const widget = node.widgets?.find((w, n) => w.name === name || n === name);  // a note has no names
      if (!widget) throw `${kind} has no widget ${name}`;
      widget.value = value;
      widget.callback?.(value, app.canvas, node);
    }
    made[key] = node;
  }
  for (const [from, output, to, name] of spec.links) {
    const input = made[to].inputs.findIndex(slot => slot.name === name);
    if (input < 0) throw `${made[to].type} has no input ${name}`;
    if (!made[from].connect(output, made[to], input)) throw `${from} cannot be linked to ${name} of ${to}`;
  }
  for (const [key, {size}] of spec.nodes) {
    const node = made[key];  // may have been made wide enough for its texts
    node.setSize([Math.max(size[0], node.size[0]), Math.max(size[1], node.computeSize()[1])]);
  }
  done({graph: app.graph.serialize()});
} catch (error) { done({error: String(error)}); }"""
HEIGHTS = "return Object.fromEntries(app.graph.nodes.map(node => [node.id, node.size[1]]))"


def build(page, example: Example) -> dict:
    """The workflow as the page saves it, with all nodes at one place.

    Raises:
        RuntimeError: The page lacks a node, an input or a widget, or refuses a link.
    """
    nodes, links = [["note", {"kind": "MarkdownNote", "title": "Note", "values": [[0, example.text]]}]], []
    nodes[0][1].update(models=[], size=[WIDTH, NOTE_HEIGHT])
    for key, node in example.nodes.items():
        values = [[name, value] for name, value in node.inputs.items() if not isinstance(value, tuple)]
        links += [[value[0], value[1], key, name] for name, value in node.inputs.items() if isinstance(value, tuple)]
        size = [WIDTHS.get(node.kind, WIDTH), PICTURE_HEIGHT if node.kind in SHOWS_PICTURE else 0]
        given = {"kind": node.kind, "title": node.title, "models": list(node.models), "values": values, "size": size}
        nodes.append([key, given])
    made = page.execute_async_script(BUILD, {"nodes": nodes, "links": links})
    if "error" in made:
        raise RuntimeError(f"{example.name}: {made['error']}")
    return made["graph"]


def measure(server: ComfyUI, page, graph: dict, example: Example) -> dict[int, float]:
    """The height each node takes: the larger of the two renderers', after a run where that is possible."""
    heights: dict[int, float] = {}
    for vue in (False, True):
        use_renderer(page, vue)
        problem = page.execute_async_script(OPEN, graph)
        if problem:
            raise RuntimeError(f"{example.name}: {problem}")
        if example.runs_at_once:
            run_open_workflow(server, page)
        time.sleep(2)
        for number, height in page.execute_script(HEIGHTS).items():
            heights[int(number)] = max(height, heights.get(int(number), 0))
    use_renderer(page, False)
    return heights


def place(graph: dict, heights: dict[int, float], example: Example) -> dict:
    """The workflow with its nodes in columns, and without what belongs to one session of the page."""
    numbers = {key: n for n, key in enumerate(("note", *example.nodes), start=1)}
    nodes = {node["id"]: node for node in graph["nodes"]}
    columns = [list(column) for column in example.columns]
    columns[0].insert(0, "note")
    in_group = example.group[1]
    x = 40
    for column in columns:
        y = 100
        for row, key in enumerate(column):
            if row and (key in in_group) != (column[row - 1] in in_group):
                y += HEAD  # the title of the group, or its end
            node = nodes[numbers[key]]
            node["pos"] = [x, y]
            y += round(heights[node["id"]]) + HEAD + ROW_GAP
        x += round(max(nodes[numbers[key]]["size"][0] for key in column)) + GAP
    groups = []
    if in_group:
        inside = [nodes[numbers[key]] for key in in_group]
        left, top = (min(node["pos"][axis] for node in inside) for axis in (0, 1))
        right = max(node["pos"][0] + node["size"][0] for node in inside)
        bottom = max(node["pos"][1] + heights[node["id"]] for node in inside)
        box = [left - 20, top - HEAD - 40, right - left + 40, round(bottom - top) + HEAD + 60]
        groups = [
            {"id": 1, "title": example.group[0], "bounding": box, "color": "#3f789e", "font_size": 22, "flags": {}}
        ]
    extra: dict = {"ds": {"scale": 0.7, "offset": [60, 60]}}
    if example.app:
        outputs = [node["id"] for node in graph["nodes"] if node["type"] == "SaveImage"]
        inputs = [[numbers[key], widget] for key, widget in example.app]
        extra |= {"linearMode": True, "linearData": {"inputs": inputs, "outputs": outputs}}
    for node in graph["nodes"]:
        node["properties"] = {k: v for k, v in node["properties"].items() if k in ("Node name for S&R", "models")}
    ordered = sorted(graph["nodes"], key=lambda node: node["id"])
    kept = {key: graph[key] for key in ("last_node_id", "last_link_id", "links")}
    return {"revision": 0, **kept, "nodes": ordered, "groups": groups, "config": {}, "extra": extra, "version": 0.4}


def write_workflows(server: ComfyUI, examples: list[Example], profile: Path) -> None:
    page = open_page(server.url, profile)
    try:
        use_renderer(page, False)
        for example in examples:
            graph = build(page, example)
            workflow = place(graph, measure(server, page, graph, example), example)
            text = json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"
            (FOLDER / example.file).write_text(text, encoding="utf-8")
            print(f"{example.file}: {len(workflow['nodes'])} nodes")
            if example.name in PICTURES:
                write_picture(server, page, workflow, ROOT / "docs" / "images" / PICTURES[example.name])
    finally:
        page.quit()


def write_picture(server: ComfyUI, page, workflow: dict, path: Path) -> None:
    """A screenshot for the documents: of the graph in Nodes 2.0, or of the app; after a run."""
    app = "linearMode" in workflow["extra"]
    use_renderer(page, True)
    server.request("/free", b'{"free_memory": true}')
    page.execute_async_script(OPEN, workflow)
    run_open_workflow(server, page)
    picture = whole_page(page) if app else picture_of(page)
    picture.thumbnail(PICTURE)
    picture.save(path, quality=QUALITY)
    page.refresh()  # out of App mode
    wait_until_ready(page)


def first_frame(data: bytes) -> Image.Image:
    """Of a clip, with its alpha."""
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        if stream.codec_context.name == "vp9":  # FFmpeg's own decoder leaves the alpha out
            codec = av.CodecContext.create("libvpx-vp9", "r")
            frames = (frame for packet in container.demux(stream) for frame in codec.decode(packet))
        else:
            frames = container.decode(stream)
        frame = next(iter(frames))
        return Image.fromarray(frame.to_ndarray(format="rgba" if "yuva" in frame.format.name else "rgb24"))


def images_of(server: ComfyUI, output: dict) -> list[Image.Image]:
    """The images a node wrote; of clips, the first frame."""
    images = []
    for file in output["images"]:
        query = urllib.parse.urlencode({key: file[key] for key in ("filename", "subfolder", "type")})
        data = server.request(f"/view?{query}")
        video = file["filename"].endswith((".webm", ".mov", ".mp4", ".mkv"))
        images.append(first_frame(data) if video else Image.open(io.BytesIO(data)))
    return images


def before_and_after(server: ComfyUI, example: Example, workflow: dict) -> list[tuple[Image.Image, Image.Image]]:
    """Images and what is made of them; where a model is missing, what one node makes of them."""
    numbers = {key: str(n) for n, key in enumerate(example.nodes, start=2)}
    prompt, shown = api_format(workflow), numbers[example.shown]
    if not example.runs_at_once:
        shown = "shown"
        cutout = {"image": [numbers["image"], 0], "model": "demo"}
        prompt = {
            numbers["image"]: prompt[numbers["image"]],
            "cutout": {"class_type": "BiRefNetRemoveBackground", "inputs": cutout},
            shown: {"class_type": "PreviewImage", "inputs": {"images": ["cutout", 0]}},
        }
    prompt["before"] = {"class_type": "PreviewImage", "inputs": {"images": [numbers["image"], 0]}}
    server.request("/free", b'{"free_memory": true}')  # what is cached is not run, and has no outputs
    time.sleep(2)
    outputs = server.run(prompt)
    return list(zip(images_of(server, outputs["before"]), images_of(server, outputs[shown]), strict=False))


def on_checkerboard(image: Image.Image) -> Image.Image:
    pixels = torch.from_numpy(np.array(image.convert("RGBA")))[None].float() / 255
    return Image.fromarray(to_bytes(over_checkerboard(pixels[..., :3], pixels[..., 3])[0]))


def write_thumbnail(path: Path, pairs: list[tuple[Image.Image, Image.Image]]) -> None:
    """Before and after side by side, 16:9; at most two of them."""
    pairs = sorted(pairs, key=lambda pair: pair[0].height / pair[0].width)[:MOST_PAIRS]  # wide ones: rows are wide
    picture = Image.new("RGB", THUMBNAIL, "white")
    cell = (THUMBNAIL[0] - LINE) // 2, (THUMBNAIL[1] - LINE * (len(pairs) - 1)) // len(pairs)
    for row, pair in enumerate(pairs):
        for column, image in enumerate(pair):
            wide = image.width / image.height > WIDE * cell[0] / cell[1]
            fitted = ImageOps.pad(image.convert("RGBA"), cell) if wide else ImageOps.fit(image, cell, centering=CENTER)
            picture.paste(on_checkerboard(fitted), (column * (cell[0] + LINE), row * (cell[1] + LINE)))
    picture.save(path, quality=QUALITY)


def write_thumbnails(server: ComfyUI, examples: list[Example]) -> None:
    for example in examples:
        path = FOLDER / example.file
        workflow = json.loads(path.read_text(encoding="utf-8"))
        write_thumbnail(path.with_suffix(".jpg"), before_and_after(server, example, workflow))
        print(f"{path.stem}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="examples with such a word in their name; default: all"
    )
    parser.add_argument("--thumbnails", action="store_true", help="draw the thumbnails only")
    args = parser.parse_args()
    examples = [e for e in EXAMPLES if not args.only or any(word.lower() in e.name.lower() for word in args.only)]
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyUI(os.environ["COMFYUI_DIR"], Path(folder, "comfyui"), {"HF_HUB_OFFLINE": "1"})
        try:
            if not args.thumbnails:
                write_workflows(server, examples, Path(folder, "chromium"))
            write_thumbnails(server, examples)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
