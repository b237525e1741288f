"""Workflows of other packs' nodes, saved as their pages did, in a ComfyUI where those packs are not installed."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

import birefnet_core as bc
from birefnet_core.images import read_image, to_bytes, write_image
from birefnet_core.masks import CutoutOptions, RefineOptions, cut_out, refine_mask
from tests.comfyui.browser import MISSING, OPEN, PROMPT, page_or_skip
from tests.comfyui.workflows import PHOTO

pytestmark = pytest.mark.comfyui

FILES = sorted((Path(__file__).parents[1] / "fixtures" / "other_packs").glob("*.json"))
SIDE = 192  # what the files those packs left behind were trained at; the demo checkpoint was not
CORE_WIDGETS = {"LoadImage": ["image"], "SaveImage": ["filename_prefix"]}
RED = "return app.graph.nodes.filter(n => n.has_errors || n.errors).map(n => n.type)"
CLICK = """
const button = [...document.querySelectorAll('button')].find(b => b.textContent.trim() == arguments[0]);
button?.click(); return !!button"""


@pytest.fixture(scope="module")
def server(start_comfyui, demo_model, other_model):
    """With the files those packs left behind, and none of ours."""
    server = start_comfyui(HF_HUB_OFFLINE="1", HF_HUB_CACHE="/nowhere")
    ll, rmbg = server.base / "models" / "BiRefNet", server.base / "models" / "RMBG" / "BiRefNet"
    bc.save_checkpoint(demo_model, ll / "General.safetensors", training_size=(SIDE, SIDE))
    bc.save_checkpoint(demo_model, rmbg / "BiRefNet-general.safetensors", training_size=(SIDE, SIDE))
    bc.save_checkpoint(other_model, rmbg / "BiRefNet-HR.safetensors")
    write_image(server.base / "input" / "example.png", read_image(PHOTO))
    return server


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    with page_or_skip(server.url, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def expected():
    """What each saved image shows, by its prefix, in the precisions the nodes load their models in.

    "auto" is bfloat16 on some CPUs; far above the training size that differs by 30 of 255.
    """
    return [images(bc.Segmenter(bc.load_model("demo", dtype=dtype))) for dtype in ("fp32", "auto")]


def images(segment):
    photo = read_image(PHOTO)[None]

    def stretched(mask):
        return (mask - mask.min()) / (mask.max() - mask.min())

    def cutout(mask, **options):
        return cut_out(photo, mask, CutoutOptions(**options))[0]

    wide, square, large = segment(photo, (320, 256)), segment(photo, 256), segment(photo, 1024)
    plain = segment(photo, SIDE)
    rmbg = refine_mask(plain, RefineOptions(feather=2, grow=1))
    return {
        "ll_mask": wide.where(wide > 0.5, 0),
        "ll_color": cutout(square, output="color", colors="blur_fusion", color="#ff8800"),
        "ll_cutout": cutout(large, colors="blur_fusion"),
        "ll_foreground": cutout(wide.where(wide > 0.5, 0), colors="blur_fusion"),
        "viperyx": plain,
        "zho": cutout(stretched(large), output="premultiplied", colors=None),
        "zho_mask": stretched(large),
        "hugo": cutout(stretched(large), output="color", colors=None, color="#008000"),
        "hugo_early": cutout(stretched(large), output="premultiplied", colors=None),
        "hugo_mask": stretched(large),
        "rmbg": cutout(rmbg, output="color", colors=None, color="#336699"),
        "rmbg_mask": rmbg,
        "rmbg_mask_image": rmbg,
    }


def check(server, prompt, expected, run):
    """Runs a workflow, its files named after the run so that ComfyUI's cache has none of them, and compares them."""
    prompt = json.loads(json.dumps(prompt).replace('"filename_prefix": "', f'"filename_prefix": "{run}/'))
    outputs = server.run(prompt)
    saves = [key for key, part in prompt.items() if part["class_type"] == "SaveImage"]
    assert saves
    for key in saves:
        prefix = Path(prompt[key]["inputs"]["filename_prefix"]).name
        (picture,) = server.pictures(outputs, key)
        differences = []
        for images in expected:
            wanted = to_bytes(images[prefix][0])
            wanted = wanted if wanted.ndim == 3 else np.repeat(wanted[..., None], 3, axis=-1)
            assert picture.shape == wanted.shape, prefix
            differences.append(np.abs(picture.astype(int) - wanted.astype(int)).max())
        assert min(differences) <= 3, f"{prefix}: {differences}"


def as_api(workflow, widgets):
    """As the page of an old installation exports it for the API, but for what was no input of the first versions."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        names = {**widgets, **CORE_WIDGETS}.get(node["type"], [])
        inputs = dict(zip(names, node.get("widgets_values", []), strict=False))
        inputs.update({slot["name"]: sources[slot["link"]] for slot in node["inputs"]})
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_old_workflow_runs_over_the_api(server, path, expected):
    table = server.get("/node_replacements")
    widgets = {old: rows[0]["old_widget_ids"] or [] for old, rows in table.items()}
    if path.stem == "moonhugo":  # the early version's widgets have other names
        widgets["BiRefNet_Hugo"] = ["load_local_model", "background_color_name", "device"]
    workflow = json.loads(path.read_text(encoding="utf-8"))
    if path.stem == "moonhugo":
        workflow["nodes"][1]["widgets_values"] = [False, "green", "auto"]
    check(server, as_api(workflow, widgets), expected, "api")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_page_offers_to_replace_the_nodes_of_an_old_workflow(server, page, path, expected):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert page.execute_async_script(OPEN, workflow) is None
    assert page.execute_script(MISSING)
    end = time.monotonic() + 30
    while not page.execute_script(CLICK, "Replace All") and time.monotonic() < end:
        for button in ("Show swap nodes", "View details"):  # of the page 1.45, of 1.58
            page.execute_script(CLICK, button)
        time.sleep(0.5)
    time.sleep(1)
    assert not page.execute_script(MISSING)
    assert not page.execute_script(RED)
    check(server, page.execute_async_script(PROMPT), expected, "page")


def test_the_files_of_other_packs_are_offered_by_the_names_of_the_catalogue(server):
    info = server.get("/object_info/BiRefNetLoadModel")["BiRefNetLoadModel"]["input"]["required"]["model"]
    options = info[1]["options"] if info[0] == "COMBO" else info[0]
    assert options[:3] == ["BiRefNet", "BiRefNet_HR", "demo"]
    assert info[1]["birefnet_labels"]["BiRefNet_HR"].startswith("✓")


def test_a_model_that_no_pack_left_is_told_with_its_folder(server):
    workflow = json.loads((FILES[-1]).read_text(encoding="utf-8"))
    prompt = as_api(workflow, {"BiRefNet_ModelLoader_Zho": ["birefnet_model"]})
    prompt["2"]["inputs"]["birefnet_model"] = "nobody_knows.pth"
    with pytest.raises(AssertionError, match="Put the file there"):
        server.submit(prompt)
