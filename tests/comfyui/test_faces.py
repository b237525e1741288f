"""What our nodes show, in both renderers of ComfyUI's page. Needs chromium, chromedriver and selenium.

COMFYUI_FLAGS="--front-end-root FOLDER" runs them with another version of the page.
"""

import json
import time

import pytest

from tests.comfyui.browser import OPEN, PROMPT, READY, page_or_skip

pytestmark = pytest.mark.comfyui

PLACE = """
app.graph.clear();
let left = 0;
for (const name of arguments[0]) {
  const node = LiteGraph.createNode(name);
  node.pos = [left, 0];
  app.graph.add(node);
  for (const widget of node.widgets ?? []) {
    const label = widget.options?.getOptionLabel;
    if (label) widget.value = widget.options.values.reduce((a, b) => (label(a).length < label(b).length ? b : a));
  }
  left += node.size[0] + 40;
}
app.canvas.ds.scale = 0.5; app.canvas.ds.offset = [100, 100];
app.canvas.draw(true, true);"""
# Texts with "..." in the page's elements, and such as reach beyond a node that the canvas draws.
CUT_ELEMENTS = """
return [...document.querySelectorAll('[data-node-id] *')]
  .filter(e => !e.children.length && e.textContent.trim() && e.scrollWidth > e.clientWidth + 1)
  .filter(e => getComputedStyle(e).overflow !== 'visible')
  .map(e => e.textContent.trim());"""
CUT_ON_CANVAS = """
const pen = document.createElement('canvas').getContext('2d');
const width = (size, text) => { pen.font = `${size}px ${LiteGraph.NODE_FONT}`; return pen.measureText(text).width; };
return app.graph.nodes.flatMap(node => {
  const lines = (node.widgets ?? []).filter(w => !w.hidden && !w.element && typeof w.value !== 'object');
  const texts = lines.map(w => (w.label ?? w.name) + (w.options.getOptionLabel?.(w.value) ?? w.value));
  const cut = texts.filter(text => width(12, text) + 76 > node.size[0]);  // arrows, margins and the gap between
  return width(14, node.title) + 50 > node.size[0] ? [...cut, node.title] : cut;
});"""
WIDGETS = """
const node = app.graph.nodes.find(n => n.type == arguments[0]);
return Object.fromEntries(node.widgets.map(w => [w.name, [w.value, !!w.hidden]]))"""
CHOOSE = """
const widget = app.graph.nodes.find(n => n.type == arguments[0]).widgets.find(w => w.name == arguments[1]);
widget.value = arguments[2]; widget.callback?.(widget.value);"""
LINK = """
const node = app.graph.nodes.find(n => n.type == arguments[0]);
const source = LiteGraph.createNode('PrimitiveNode'), slot = node.inputs.findIndex(i => i.name == arguments[1]);
app.graph.add(source);
source.connect(0, node, slot);"""
UNLINK = """
const node = app.graph.nodes.find(n => n.type == arguments[0]);
node.disconnectInput(node.inputs.findIndex(i => i.name == arguments[1]));"""
FITS = """
const node = app.graph.nodes.find(n => n.type == arguments[0]);
return node.size[1] >= node.computeSize()[1]"""
LABEL = """
const widget = app.graph.nodes.find(n => n.type == arguments[0]).widgets.find(w => w.name == arguments[1]);
return widget.options.getOptionLabel(arguments[2]);"""
SEEN = """
return [...document.querySelectorAll('[data-node-id]')].map(e => e.innerText).join('\\n')"""
COLOR_TYPES = "return app.graph.nodes.flatMap(n => n.widgets ?? []).filter(w => w.name == 'color').map(w => w.type)"

# As version 0.1 saved it: a number for the threshold, text for the color, every value of Segment.
SAVED_BY_0_1 = {
    "last_node_id": 4, "last_link_id": 0, "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4,
    "nodes": [
        {"id": i, "type": kind, "pos": [400 * i, 0], "size": [270, 300], "flags": {}, "order": i, "mode": 0,
         "inputs": [], "outputs": [], "properties": {}, "widgets_values": values}
        for i, (kind, values) in enumerate({
            "BiRefNetLoadModel": ["demo", "fp32", "auto", "auto", "none", False],
            "BiRefNetSegment": ["custom", 640, 480, True, False, 2, 0.25, 0.05],
            "BiRefNetRefineMask": [0, 0.1, 0.9, -0.01, False, 0, 0, 0, 0.0, 0, 0.0001, 0.0, False],
            "BiRefNetApplyAlpha": ["over color", "off", "12,34,56", "fill", True, 8],
        }.items(), start=1)
    ],
}  # fmt: skip


@pytest.fixture(scope="module", params=["canvas", "elements"])
def page(comfyui, tmp_path_factory, request):
    """The page with the renderer on the canvas, then with that of Nodes 2.0."""
    new = request.param == "elements"
    comfyui.request("/settings/Comfy.VueNodes.Enabled", json.dumps(new).encode())
    with page_or_skip(comfyui.url, tmp_path_factory.mktemp("chromium")) as browser:
        browser.set_window_size(2400, 1300)
        browser.renderer = request.param
        yield browser
    comfyui.request("/settings/Comfy.VueNodes.Enabled", b"false")


@pytest.fixture(scope="module")
def nodes(comfyui):
    known = comfyui.get("/object_info").items()
    return sorted(name for name, node in known if "birefnet" in node["python_module"] and not node["deprecated"])


def place(page, *names):
    page.execute_script(PLACE, names)
    time.sleep(2)


def sizes(page):
    """Width and height: values, and whether they are hidden."""
    shown = page.execute_script(WIDGETS, "BiRefNetSegment")
    return [shown["width"], shown["height"]]


def test_no_text_is_cut_even_of_the_longest_value(page, nodes):
    ours = [name for name in nodes if name.startswith("BiRefNet")]
    assert len(ours) >= 11
    for start in range(0, len(ours), 5):
        place(page, *ours[start : start + 5])
        assert not page.execute_script(CUT_ELEMENTS if page.renderer == "elements" else CUT_ON_CANVAS)


def test_width_and_height_show_for_size_custom_only(page):
    place(page, "BiRefNetSegment")
    page.execute_script(CHOOSE, "BiRefNetSegment", "size", "1024")
    assert sizes(page) == [[1024, True], [1024, True]]
    time.sleep(1)
    assert page.renderer == "canvas" or "width" not in page.execute_script(SEEN)
    page.execute_script(CHOOSE, "BiRefNetSegment", "size", "custom")
    assert sizes(page) == [[1024, False], [1024, False]]
    time.sleep(1)
    assert page.renderer == "canvas" or {"width", "height"} <= set(page.execute_script(SEEN).split("\n"))


def test_width_and_height_show_while_size_is_linked(page):
    place(page, "BiRefNetSegment")
    page.execute_script(LINK, "BiRefNetSegment", "size")
    assert sizes(page) == [[1024, False], [1024, False]]
    assert page.execute_script(FITS, "BiRefNetSegment")
    page.execute_script(UNLINK, "BiRefNetSegment", "size")
    assert sizes(page) == [[1024, True], [1024, True]]


def test_hidden_sizes_are_sent_all_the_same(page):
    place(page, "BiRefNetSegment")
    (sent,) = page.execute_async_script(PROMPT).values()
    assert (sent["inputs"]["width"], sent["inputs"]["height"]) == (1024, 1024)


def test_the_threshold_is_off_and_colors_have_a_picker(page):
    place(page, "BiRefNetRefineMask", "BiRefNetApplyAlpha", "BiRefNetSegmentVideo")
    assert page.execute_script(WIDGETS, "BiRefNetRefineMask")["threshold"] == ["off", False]
    assert page.execute_script(COLOR_TYPES) == ["color", "color"]


def test_values_that_version_0_1_saved_arrive_unchanged(page):
    assert page.execute_async_script(OPEN, SAVED_BY_0_1) is None
    sent = {part["class_type"]: part["inputs"] for part in page.execute_async_script(PROMPT).values()}
    assert sent["BiRefNetSegment"].items() >= {"size": "custom", "width": 640, "height": 480, "margin": 0.25}.items()
    assert float(sent["BiRefNetRefineMask"]["threshold"]) == -0.01
    assert sent["BiRefNetApplyAlpha"].items() >= {"color": "12,34,56", "crop": True, "padding": 8}.items()
    assert sent["BiRefNetLoadModel"]["model"] == "demo"
    assert page.execute_script(WIDGETS, "BiRefNetSegment")["width"] == [640, False]


def test_lists_are_in_the_language_of_the_page(page, comfyui):
    comfyui.request("/settings/Comfy.Locale", b'"ru"')
    page.refresh()
    try:
        end = time.monotonic() + 180
        while not page.execute_script(READY):
            assert time.monotonic() < end, "the page did not come up"
            time.sleep(0.5)
        time.sleep(3)
        place(page, "BiRefNetApplyAlpha", "BiRefNetLoadModel")
        assert page.execute_script(LABEL, "BiRefNetApplyAlpha", "output", "over color") == "на цвете"
        assert page.execute_script(LABEL, "BiRefNetLoadModel", "model", "BiRefNet_HR") == "BiRefNet_HR (общая, 444 MB)"
        assert page.execute_script(WIDGETS, "BiRefNetApplyAlpha")["background_fit"][0] == "fill"  # what is saved
    finally:
        comfyui.request("/settings/Comfy.Locale", b'"en"')
