"""ComfyUI's page in a headless Chromium. Needs chromium, chromedriver and the Python package selenium.

Another page than the one ComfyUI brings: COMFYUI_FLAGS="--front-end-root .../comfyui_frontend_package/static".
Screenshots go to the folder that COMFYUI_SCREENSHOTS names, else to a temporary one.
"""

import itertools
import json
import os
import time
from pathlib import Path

import pytest

from tests.comfyui.browser import (
    MISSING,
    OPEN,
    PROMPT,
    page_or_skip,
    picture_of,
    run_open_workflow,
    use_renderer,
    wait_until_ready,
    whole_page,
)  # fmt: skip
from tools.example_workflows import EXAMPLES

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
BY_THE_CANVAS = ("mask", "width", "height", "upload")  # the page sets them where one paints
RENDERERS = {"canvas": False, "nodes 2": True}
RUN_FROM_THE_PAGE = ("Remove Background", "Replace Background", "Box around", "Point at", "Video to Transparent")
LABEL = """
const widget = app.graph.nodes.find(n => n.type == 'BiRefNetLoadModel').widgets.find(w => w.name == 'model');
return widget.options.getOptionLabel('BiRefNet_HR')"""
RECTANGLES = """
const scale = app.canvas.ds.scale, title = LiteGraph.NODE_TITLE_HEIGHT;
const drawn = [...document.querySelectorAll('[data-node-id]')].map(e => e.getBoundingClientRect());
if (LiteGraph.vueNodesMode) return drawn.map(r => [r.x / scale, r.y / scale, r.width / scale, r.height / scale]);
return app.graph.nodes.map(n => [n.pos[0], n.pos[1] - title, n.size[0], n.size[1] + title]);"""
OPEN_TEMPLATES = "app.extensionManager.command.execute('Comfy.BrowseTemplates')"
ALL_TEMPLATES = """
[...document.querySelectorAll('[role=dialog] button, [role=dialog] [role=button], [role=dialog] div')]
  .find(e => e.textContent.trim() === 'All Templates')?.click();"""
CARDS = """
const start = 'template-workflow-';
return [...document.querySelectorAll(`[data-testid^="${start}"]`)].map(e => e.dataset.testid.slice(start.length));"""
SKIP_TOUR = "[...document.querySelectorAll('button')].find(e => e.textContent.trim() === 'Skip')?.click()"
CLIP = """
const node = app.graph.nodes.find(n => n.type == 'BiRefNetSegmentVideo');
const drawn = LiteGraph.vueNodesMode ? document.querySelector(`[data-node-id="${node.id}"]`) : node.videoContainer;
return {
  playing: [...drawn?.querySelectorAll('video') ?? []].map(v => v.videoWidth > 0 && v.currentSrc),
  frames: [...drawn?.querySelectorAll('img') ?? []].map(i => i.src).filter(s => s.startsWith('blob:')),
  text: drawn?.innerText ?? '',
};"""
WATCH = """
const node = app.graph.nodes.find(n => n.type == 'BiRefNetSegmentVideo');
node.widgets.find(w => w.name == 'smoothing').value = 1;
const drawn = () => document.querySelector(`[data-node-id="${node.id}"]`)?.innerText ?? '';
window.told = new Set(); setInterval(() => window.told.add(drawn().includes('failed to load')), 50);"""
SEARCHES = {
    "birefnet": {example.name for example in EXAMPLES},
    "remove background": {"Remove Background in One Node (BiRefNet)"},
    "transparent": {"Cut Out to Transparent PNG (BiRefNet)", "Video to Transparent WebM (BiRefNet)"},
    "folder": {"App - Cut Out a Folder (BiRefNet)"},
    "prores": {"Video to ProRes 4444 (BiRefNet)"},
}


@pytest.fixture(scope="module")
def page(comfyui, tmp_path_factory):
    with page_or_skip(comfyui.url, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module", params=RENDERERS)
def renderer(request, page):
    use_renderer(page, RENDERERS[request.param])
    return request.param


@pytest.fixture
def keep(tmp_path):
    """Where a screenshot goes."""
    folder = Path(os.environ.get("COMFYUI_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return lambda picture, *words: picture.save(folder / f"{'_'.join(words).replace(' ', '_')}.png")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def check_prompt(page, expected):
    """What the page would queue has the values of the file; inputs may have been added since."""
    prompt = page.execute_async_script(PROMPT)
    for key, part in expected.items():
        if part["class_type"].startswith(("BiRefNet", "LoadImage")):
            given = {name: value for name, value in part["inputs"].items() if name not in BY_THE_CANVAS}
            assert {name: prompt[key]["inputs"].get(name) for name in given} == given


def check_apart(rectangles, count):
    assert len(rectangles) == count and all(w > 100 and h > 30 for _, _, w, h in rectangles)
    for (x, y, w, h), (x2, y2, w2, h2) in itertools.combinations(rectangles, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_opens_and_no_node_covers_another(page, renderer, example, to_api, keep, comfyui):
    workflow = read(ROOT / "example_workflows" / example.file)
    workflow["extra"].pop("linearMode", None)  # as a graph
    assert page.execute_async_script(OPEN, workflow) is None
    assert not page.execute_script(MISSING)
    check_prompt(page, to_api(workflow))
    if example.name.startswith(RUN_FROM_THE_PAGE):
        comfyui.request("/free", b'{"free_memory": true}')
        assert run_open_workflow(comfyui, page)["outputs"]
    picture = picture_of(page)
    check_apart(page.execute_script(RECTANGLES), len(workflow["nodes"]))
    keep(picture, example.name, renderer)


def test_a_finished_clip_takes_the_place_of_the_newest_frame(page, renderer, keep, comfyui):
    comfyui.request("/free", b'{"free_memory": true}')
    workflow = read(ROOT / "example_workflows" / "Video to Transparent WebM (BiRefNet).json")
    assert page.execute_async_script(OPEN, workflow) is None
    run_open_workflow(comfyui, page)
    page.execute_script(WATCH)
    run_open_workflow(comfyui, page)
    assert page.execute_script("return [...window.told]") == [False]
    picture_of(page)  # brings the node into view, where alone browsers load its clip
    time.sleep(2)
    keep(picture_of(page), "clip", renderer)
    shown = page.execute_script(CLIP)
    assert len(shown["playing"]) == 1 and ".webm" in shown["playing"][0], shown
    assert not shown["frames"] and "failed to load" not in shown["text"], shown


def test_a_clip_that_browsers_do_not_play_leaves_the_newest_frame(page, renderer, keep, comfyui):
    comfyui.request("/free", b'{"free_memory": true}')
    workflow = read(ROOT / "example_workflows" / "Video to ProRes 4444 (BiRefNet).json")
    assert page.execute_async_script(OPEN, workflow) is None
    page.execute_script(WATCH)
    run_open_workflow(comfyui, page)
    picture_of(page)
    time.sleep(2)
    keep(picture_of(page), "prores", renderer)
    shown = page.execute_script(CLIP)
    assert page.execute_script("return [...window.told]") == [False] and "failed to load" not in shown["text"], shown
    assert not shown["playing"] and len(shown["frames"]) == (renderer == "nodes 2"), shown


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/fixtures/workflows_0_1/*.json")), ids=lambda path: path.stem)
def test_a_workflow_saved_by_0_1_opens_without_missing_nodes(page, path, to_api):
    workflow = read(path)
    assert page.execute_async_script(OPEN, workflow) is None
    assert not page.execute_script(MISSING)
    check_prompt(page, to_api(workflow))


@pytest.mark.parametrize("path", sorted(ROOT.glob("subgraphs/*.json")), ids=lambda path: path.stem)
def test_subgraph_opens_without_missing_nodes(page, path):
    workflow = read(path)
    assert page.execute_async_script(OPEN, workflow) is None
    prompt = page.execute_async_script(PROMPT)
    inner = [part["type"] for part in workflow["definitions"]["subgraphs"][0]["nodes"]]
    assert sorted(part["class_type"] for part in prompt.values()) == sorted(inner)
    assert page.execute_script("return app.graph.nodes[0].widgets.map(w => w.name)") == ["model"]


def test_the_page_shows_our_nodes(page, keep):
    workflow = read(ROOT / "example_workflows" / "Cut Out to Transparent PNG (BiRefNet).json")
    assert page.execute_async_script(OPEN, workflow) is None
    assert page.execute_script(LABEL) == "BiRefNet_HR (general, 444 MB)"
    picture = picture_of(page)
    errors = [line for line in page.get_log("browser") if "birefnet" in line["message"].lower()]
    assert not [line for line in errors if line["level"] == "SEVERE"]
    assert len(picture.resize((64, 64)).getcolors(64 * 64)) > 50
    keep(picture, "workflow")


def search_templates(page, word):
    """The names on the cards of the Templates dialog."""
    from selenium.webdriver.common.keys import Keys

    field = page.find_element("css selector", "[role=dialog] input")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(word)
    time.sleep(1.5)
    return page.execute_script(CARDS)


def test_a_search_in_all_templates_finds_ours(page, keep):
    page.execute_script(OPEN_TEMPLATES)
    time.sleep(2)
    page.execute_script(ALL_TEMPLATES)
    time.sleep(2)
    try:
        for word, expected in SEARCHES.items():
            found = search_templates(page, word)
            keep(whole_page(page), "templates", word)
            assert expected <= set(found), word
    finally:
        page.refresh()
        wait_until_ready(page)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.app], ids=lambda example: example.name)
def test_an_app_opens_as_a_form_and_runs(page, example, keep, comfyui):
    comfyui.request("/free", b'{"free_memory": true}')
    assert page.execute_async_script(OPEN, read(ROOT / "example_workflows" / example.file)) is None
    time.sleep(2)
    page.execute_script(SKIP_TOUR)  # newer pages lay one over the first app
    try:
        assert page.execute_script(
            "return app.canvas.canvas.offsetParent === null || !app.canvas.canvas.checkVisibility()"
        )
        keep(whole_page(page), example.name, "before")
        assert run_open_workflow(comfyui, page)["outputs"]
        keep(whole_page(page), example.name, "after")
        text = page.execute_script("return document.body.innerText")
        assert all(widget in text for _, widget in example.app)
    finally:
        page.refresh()
        wait_until_ready(page)
