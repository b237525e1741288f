"""Brings the example workflows up to date: the checkpoint they load, inputs that nodes have gained, screenshots.

    COMFYUI_DIR=... [COMFYUI_PYTHON=...] python tools/refresh_examples.py [--only NAME ...] [--json]

The screenshots show a real run in ComfyUI, on the photograph in examples/, of every workflow whose models are there.
With --json only the workflow files are written, which needs no ComfyUI.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from a checkout, without installing

import birefnet_core as bc  # noqa: E402
from birefnet_core.checkpoints import present_locally  # noqa: E402
from tests.comfyui.browser import OPEN, open_page, picture_of  # noqa: E402
from tests.comfyui.conftest import ComfyUI  # noqa: E402
from tests.comfyui.workflows import write_inputs  # noqa: E402

EXAMPLE_MODEL = "demo"  # what the examples load: it comes with the pack
ABOUT_OTHERS = {"inpaint_around_subject", "matting_colour_estimation"}  # these keep the checkpoint they have
OWN_FILE = "my_finetune.safetensors"  # stands for a file of the user's
PLACEHOLDERS = (f"birefnet/{OWN_FILE}", "checkpoints/your_inpainting_model.safetensors")
LOADERS = ("BiRefNetLoadModel", "BiRefNetRemoveBackground")
ADDED = {"BiRefNetLoadModel": [("compile", "BOOLEAN", False)]}  # optional inputs with a widget, and their defaults
WIDTH, QUALITY = 800, 85  # of the screenshots
RUN_SECONDS = 300


def nodes_of(workflow: dict) -> list[dict]:
    """The nodes of a workflow and of its subgraphs."""
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    return [node for graph in (workflow, *subgraphs) for node in graph["nodes"]]


def update(workflow: dict, title: str) -> dict:
    """The workflow of that title with the checkpoint of the examples and with every input its nodes have."""
    for node in nodes_of(workflow):
        for name, kind, value in ADDED.get(node["type"], []):
            if name not in [slot["name"] for slot in node["inputs"]]:
                slot = {"localized_name": name, "name": name, "shape": 7, "type": kind, "widget": {"name": name}}
                node["inputs"].append({**slot, "link": None})
                node["widgets_values"].append(value)
        if node["type"] in LOADERS and title not in ABOUT_OTHERS and node["widgets_values"][0] != OWN_FILE:
            node["widgets_values"][0] = EXAMPLE_MODEL
    return workflow


def can_run(workflow: dict) -> bool:
    """Whether every model is on this disk."""
    present = {entry.name for entry in bc.list_checkpoints() if present_locally(entry)}
    models = [node["widgets_values"][0] for node in nodes_of(workflow) if node["type"] in LOADERS]
    return set(models) <= present and not any(node["type"] == "KSampler" for node in nodes_of(workflow))


def run(server: ComfyUI, page) -> None:
    """Queues the workflow that is open, as a click does, and waits for its end.

    Raises:
        RuntimeError: It failed, or did not end in time.
    """
    before = set(server.get("/history"))
    page.execute_script("app.queuePrompt(0)")
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        for prompt, entry in server.get("/history").items():
            if prompt not in before:
                if entry["status"]["status_str"] != "success":
                    raise RuntimeError(str(entry["status"]["messages"]))
                time.sleep(2)  # the page fetches the images
                return
        time.sleep(0.5)
    raise RuntimeError(f"the workflow did not end in {RUN_SECONDS} s:\n{server.log()[-3000:]}")


def take_screenshots(paths: list[Path]) -> None:
    """Opens each workflow in ComfyUI's page, runs it where that is possible, and writes its screenshot beside it."""
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyUI(os.environ["COMFYUI_DIR"], Path(folder, "comfyui"), {"HF_HUB_OFFLINE": "1"})
        try:
            write_inputs(server)
            for name in PLACEHOLDERS:  # the page marks nodes red whose files are not there
                (server.base / "models" / name).parent.mkdir(exist_ok=True)
                (server.base / "models" / name).touch()
            page = open_page(server.url, Path(folder, "chromium"))
            try:
                for path in paths:
                    workflow = json.loads(path.read_text(encoding="utf-8"))
                    if path.stem == "region_guided":
                        workflow = json.loads(json.dumps(workflow).replace("example.png", "painted.png"))
                    problem = page.execute_async_script(OPEN, workflow)
                    if problem:
                        raise RuntimeError(f"{path.name}: {problem}")
                    ran = can_run(workflow)
                    if ran:
                        run(server, page)
                    picture = picture_of(page)
                    height = round(picture.height * WIDTH / picture.width)
                    picture.resize((WIDTH, height)).save(path.with_suffix(".jpg"), quality=QUALITY)
                    print(f"{path.stem}: {'run and ' if ran else ''}captured")
            finally:
                page.quit()
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="workflows to take screenshots of; default: all")
    parser.add_argument("--json", action="store_true", help="write the workflow files only")
    args = parser.parse_args()
    workflows = sorted(ROOT.glob("example_workflows/*.json"))
    for path in (*workflows, *ROOT.glob("subgraphs/*.json")):
        workflow = update(json.loads(path.read_text(encoding="utf-8")), path.stem)
        path.write_text(json.dumps(workflow, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not args.json:
        take_screenshots([path for path in workflows if not args.only or path.stem in args.only])


if __name__ == "__main__":
    main()
