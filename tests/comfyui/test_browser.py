"""ComfyUI's page in a headless Chromium. Needs chromium, chromedriver and the Python package selenium.

The screenshot goes to the file COMFYUI_SCREENSHOT names, else to a temporary folder.
"""

import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
READY = "return !!(window.app?.graph && window.LiteGraph?.registered_node_types?.['BiRefNetSegment'])"
OPEN = "const [graph, done] = arguments; app.loadGraphData(graph).then(() => done(null), e => done(String(e)))"
MISSING = "return app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
PROMPT = "const [done] = arguments; app.graphToPrompt().then(p => done(p.output), e => done(String(e)))"
LABEL = """
const widget = app.graph.nodes.find(n => n.type == 'BiRefNetLoadModel').widgets.find(w => w.name == 'model');
return widget.options.getOptionLabel('BiRefNet_HR')"""
FIT = """
const nodes = app.graph.nodes, canvas = app.canvas;
const left = Math.min(...nodes.map(n => n.pos[0])), top = Math.min(...nodes.map(n => n.pos[1])) - 40;
const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]));
const scale = (canvas.canvas.clientWidth - 160) / (right - left);
canvas.ds.scale = scale; canvas.ds.offset = [-left + 100 / scale, -top + 110 / scale];
document.querySelectorAll('.p-toast, .p-dialog-mask').forEach(e => e.remove());
canvas.draw(true, true);"""


@pytest.fixture(scope="module")
def page(comfyui, tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update",
        "disable-sync", "no-first-run", "window-size=1500,800", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    page.set_script_timeout(60)
    try:
        Image.open(ROOT / "examples" / "cat.jpg").save(comfyui.base / "input" / "example.png")
        page.get(comfyui.url)
        end = time.monotonic() + 120
        while not page.execute_script(READY):
            assert time.monotonic() < end, "the page did not come up"
            time.sleep(0.5)
        time.sleep(3)
        yield page
    finally:
        page.quit()


@pytest.mark.parametrize("path", sorted(ROOT.glob("example_workflows/*.json")), ids=lambda path: path.stem)
def test_workflow_opens_without_missing_nodes(page, path, to_api):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert page.execute_async_script(OPEN, workflow) is None
    missing = page.execute_script(MISSING)
    assert not missing
    prompt = page.execute_async_script(PROMPT)
    for key, part in to_api(workflow).items():
        if part["class_type"].startswith("BiRefNet"):
            assert prompt[key]["inputs"] == part["inputs"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("subgraphs/*.json")), ids=lambda path: path.stem)
def test_subgraph_opens_without_missing_nodes(page, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert page.execute_async_script(OPEN, workflow) is None
    prompt = page.execute_async_script(PROMPT)
    inner = [part["type"] for part in workflow["definitions"]["subgraphs"][0]["nodes"]]
    assert sorted(part["class_type"] for part in prompt.values()) == sorted(inner)


def test_the_page_shows_our_nodes(page, tmp_path):
    workflow = json.loads((ROOT / "example_workflows" / "cutout_to_png.json").read_text(encoding="utf-8"))
    assert page.execute_async_script(OPEN, workflow) is None
    assert page.execute_script(LABEL) == "BiRefNet_HR (general, 444 MB)"
    page.execute_script(FIT)
    time.sleep(2)
    errors = [line for line in page.get_log("browser") if "birefnet" in line["message"].lower()]
    assert not [line for line in errors if line["level"] == "SEVERE"]
    picture = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
    assert len(picture.resize((64, 64)).getcolors(64 * 64)) > 50
    picture.save(os.environ.get("COMFYUI_SCREENSHOT") or tmp_path / "workflow.jpg", quality=85)
