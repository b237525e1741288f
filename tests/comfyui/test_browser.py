"""ComfyUI's page in a headless Chromium. Needs chromium, chromedriver and the Python package selenium.

The screenshot goes to the file COMFYUI_SCREENSHOT names, else to a temporary folder.
"""

import json
import os
from pathlib import Path

import pytest

from birefnet_core.images import read_image, write_image
from tests.comfyui.browser import MISSING, OPEN, PROMPT, open_page, picture_of
from tests.comfyui.workflows import PHOTO

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
LABEL = """
const widget = app.graph.nodes.find(n => n.type == 'BiRefNetLoadModel').widgets.find(w => w.name == 'model');
return widget.options.getOptionLabel('BiRefNet_HR')"""


@pytest.fixture(scope="module")
def page(comfyui, tmp_path_factory):
    pytest.importorskip("selenium")
    write_image(comfyui.base / "input" / "example.png", read_image(PHOTO))
    try:
        browser = open_page(comfyui.url, tmp_path_factory.mktemp("chromium"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    yield browser
    browser.quit()


@pytest.mark.parametrize("path", sorted(ROOT.glob("example_workflows/*.json")), ids=lambda path: path.stem)
def test_workflow_opens_without_missing_nodes(page, path, to_api):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert page.execute_async_script(OPEN, workflow) is None
    missing = page.execute_script(MISSING)
    assert not missing
    prompt = page.execute_async_script(PROMPT)
    for key, part in to_api(workflow).items():
        if part["class_type"].startswith("BiRefNet"):
            assert prompt[key]["inputs"].items() >= part["inputs"].items()  # inputs may have been added since


@pytest.mark.parametrize("path", sorted(ROOT.glob("subgraphs/*.json")), ids=lambda path: path.stem)
def test_subgraph_opens_without_missing_nodes(page, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert page.execute_async_script(OPEN, workflow) is None
    prompt = page.execute_async_script(PROMPT)
    inner = [part["type"] for part in workflow["definitions"]["subgraphs"][0]["nodes"]]
    assert sorted(part["class_type"] for part in prompt.values()) == sorted(inner)
    assert page.execute_script("return app.graph.nodes[0].widgets.map(w => w.name)") == ["model"]


def test_the_page_shows_our_nodes(page, tmp_path):
    workflow = json.loads((ROOT / "example_workflows" / "cutout_to_png.json").read_text(encoding="utf-8"))
    assert page.execute_async_script(OPEN, workflow) is None
    assert page.execute_script(LABEL) == "BiRefNet_HR (general, 444 MB)"
    picture = picture_of(page)
    errors = [line for line in page.get_log("browser") if "birefnet" in line["message"].lower()]
    assert not [line for line in errors if line["level"] == "SEVERE"]
    assert len(picture.resize((64, 64)).getcolors(64 * 64)) > 50
    picture.save(os.environ.get("COMFYUI_SCREENSHOT") or tmp_path / "workflow.jpg", quality=85)
