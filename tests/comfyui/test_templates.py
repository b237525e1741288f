"""Every example workflow, run by a ComfyUI whose folders are empty.

A table of them is printed at the end.
"""

import json
import time
from pathlib import Path

import pytest

from tests.comfyui.workflows import TEMPLATES
from tools.example_workflows import EXAMPLES, FOLDER

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
ENDS = ("SaveImage", "SaveVideo", "PreviewImage", "BiRefNetSegmentVideo")  # nodes whose files count as results
FILES = (".jpg", ".png", ".safetensors")
AUTOGROW = "COMFY_AUTOGROW_V3"
NOT_EVERYWHERE = {"upload", "bit_depth"}  # Load Image's button in the page; Create Video's in newer versions


@pytest.fixture(scope="module")
def fresh(start_comfyui):
    return start_comfyui(HF_HUB_OFFLINE="1")


@pytest.fixture
def table(request):
    """Rows of a table that is printed at the end: template, seconds, outputs, result."""
    return request.config.stash.setdefault(TEMPLATES, [])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_runs_at_once(example, fresh, table, to_api):
    workflow = to_api(json.loads((ROOT / "example_workflows" / example.file).read_text(encoding="utf-8")))
    missing = {part["class_type"] for part in workflow.values()} - set(fresh.get("/object_info"))
    if missing or not example.runs_at_once:
        reason = f"this ComfyUI has no {', '.join(sorted(missing))}" if missing else "needs another model"
        table.append((example.name, "", "", reason))
        assert not any(name.startswith("BiRefNet") for name in missing)
        pytest.skip(reason)
    fresh.request("/free", b'{"free_memory": true, "unload_models": true}')  # what is cached would not be run
    time.sleep(1)  # until the queue has seen it
    row = [example.name, "", "", "failed"]
    table.append(row)
    start = time.monotonic()
    outputs = fresh.run(workflow)
    row[1] = f"{time.monotonic() - start:.1f}"
    ends = [key for key, part in workflow.items() if part["class_type"] in ENDS]
    files = [item for key in ends for item in outputs[key]["images"]]
    assert ends and files
    folders = {"output": fresh.base / "output", "temp": fresh.base / "temp"}
    paths = [folders[item["type"]] / item["subfolder"] / item["filename"] for item in files]
    assert all(path.stat().st_size for path in paths)
    row[2:] = ", ".join(sorted(path.suffix[1:] for path in paths)), "ran"


def accepts(wanted, given):
    """Whether ComfyUI links an output to an input; types that follow others are of its newer schemas."""
    return "*" in (wanted, given) or wanted.startswith("COMFY_") or given in wanted.split(",")


def check_value(wanted, options, value):
    """A value that is no link, against what ComfyUI says of the input."""
    if wanted in ("INT", "FLOAT"):
        assert type(value) in (int, float) and options["min"] <= value <= options["max"]
    elif wanted == "BOOLEAN":
        assert isinstance(value, bool)
    elif wanted == "STRING":
        assert isinstance(value, str)
    elif isinstance(wanted, list) or wanted == "COMBO":
        names = wanted if isinstance(wanted, list) else options["options"]
        assert value in names or value.endswith(FILES)  # models and images are the user's


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_comfyui_has_every_input_and_link_of_an_example(example, fresh, to_api):
    """Also where a model is missing, so that it cannot be run."""
    whole = json.loads((ROOT / "example_workflows" / example.file).read_text(encoding="utf-8"))
    infos, workflow = fresh.get("/object_info"), to_api(whole)
    for part in workflow.values():
        known = infos[part["class_type"]]["input"]
        inputs = {name: (*entry, {})[:2] for group in known.values() for name, entry in group.items()}
        required = {name for name, (kind, _) in inputs.items() if name in known["required"] and kind != AUTOGROW}
        assert required <= set(part["inputs"])
        for name, value in part["inputs"].items():
            if name in NOT_EVERYWHERE - set(inputs):
                continue
            kind, options = inputs[name.split(".")[0]]
            if isinstance(value, list):
                source = infos[workflow[value[0]]["class_type"]]
                assert accepts(kind, source["output"][value[1]]), name
            else:
                check_value(kind, options, value)
    first = whole["nodes"][0]
    assert first["type"] == "MarkdownNote"
    assert first["widgets_values"][0].startswith("**Needs ") != example.runs_at_once


def test_the_folder_of_example_images_is_made_once(fresh):
    folder = fresh.base / "input" / FOLDER
    assert sorted(path.name[2:] for path in folder.iterdir()) == sorted(p.name for p in ROOT.glob("examples/*.jpg"))


def test_the_page_lists_every_example_with_its_thumbnail(fresh):
    (names,) = fresh.get("/workflow_templates").values()
    assert sorted(names) == sorted(example.name for example in EXAMPLES)
    for name in names:
        address = f"/api/workflow_templates/birefnet/{name}.jpg".replace(" ", "%20")
        assert fresh.request(address)[:2] == b"\xff\xd8"  # JPEG
