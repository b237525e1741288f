"""Every node, the example workflows, cancelling and bad input in a real ComfyUI."""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import birefnet_core as bc
from birefnet_core.images import read_image, to_bytes
from birefnet_core.masks import RefineOptions, refine_mask
from birefnet_core.metrics import score_masks
from tests.comfyui.workflows import APPLY, LOAD, PHOTO, SEGMENT, error_of, node, saved, segment, write_inputs

pytestmark = pytest.mark.comfyui

ROOT = Path(__file__).resolve().parents[2]
NODES = {
    "BiRefNetLoadModel", "BiRefNetSegment", "BiRefNetRefineMask", "BiRefNetApplyAlpha", "BiRefNetRemoveBackground",
    "BiRefNetCompareMasks",
}  # fmt: skip
NOT_HERE = ["my_finetune.safetensors", "BiRefNet_HR-matting"]  # some examples load more than the demo checkpoint
PLAIN_CUTOUTS = {"batch_folder", "cutout_to_png", "remove_background_one_node"}  # the alpha is the mask
SAVED_BEFORE = ROOT / "tests" / "fixtures" / "workflows_0_1"  # the examples of version 0.1
WORKFLOWS = [path.stem for path in sorted(SAVED_BEFORE.glob("*.json"))]


@pytest.fixture(scope="module", autouse=True)
def inputs(comfyui):
    write_inputs(comfyui)


def test_every_node_is_there(comfyui):
    assert set(comfyui.get("/object_info")) >= NODES


def test_a_cutout_has_the_mask_as_alpha_and_estimated_colours(comfyui, demo_model):
    workflow = {
        **segment(),
        "4": node("BiRefNetApplyAlpha", image=["3", 1], mask=["3", 0], **APPLY),
        **saved(["4", 0]),
    }
    (picture,) = comfyui.pictures(comfyui.run(workflow), "9")
    photo = read_image(PHOTO)[None]
    mask = bc.Segmenter(demo_model)(photo)
    assert picture.shape == (*photo.shape[1:3], 4)
    assert np.abs(picture[..., 3].astype(int) - to_bytes(mask[0])).max() <= 1
    colours = to_bytes(bc.estimate_foreground(photo, mask)[0])
    assert np.abs(picture[..., :3].astype(int) - colours).mean() < 1


def test_a_refined_mask_and_its_scores_are_those_of_the_core(comfyui, demo_model):
    given = comfyui.get("/object_info/BiRefNetRefineMask")["BiRefNetRefineMask"]["input"]["required"]
    off = {name: options[1]["default"] for name, options in given.items() if "default" in options[1]}
    wanted = {"threshold": 0.5, "grow": -3, "feather": 2.0}
    workflow = {
        **segment(),
        "4": node("BiRefNetRefineMask", mask=["3", 0], **{**off, **wanted}),
        "5": node("BiRefNetCompareMasks", mask=["4", 0], ground_truth=["3", 0]),
        **saved(["4", 0], "mask"),
    }
    outputs = comfyui.run(workflow)
    mask = bc.Segmenter(demo_model)(read_image(PHOTO)[None])
    refined = refine_mask(mask, RefineOptions(**wanted))
    assert 0 < refined.mean() < 1
    (picture,) = comfyui.pictures(outputs, "9")
    assert np.abs(picture[..., 0].astype(int) - to_bytes(refined[0])).max() <= 1
    shown = dict(line.split() for line in outputs["5"]["text"][0].splitlines())
    scores = score_masks(refined, mask, list(shown))
    assert set(shown) == {"Sm", "maxF", "wF", "meanE", "MAE", "BIoU", "SAD", "haze", "hazeArea", "Grad"}
    assert {name: float(value) for name, value in shown.items()} == pytest.approx(scores, abs=2e-3)
    errors = comfyui.pictures({"5": {"images": outputs["5"]["images"]}}, "5")
    assert errors[0].shape == (*mask.shape[1:], 3)


def test_join_image_with_alpha_takes_our_mask_inverted(comfyui):
    workflow = {
        **segment(),
        "4": node("InvertMask", mask=["3", 0]),
        "5": node("JoinImageWithAlpha", image=["3", 1], alpha=["4", 0]),
        "6": node("BiRefNetApplyAlpha", image=["3", 1], mask=["3", 0], **{**APPLY, "colors": "off"}),
        "7": node("SaveImage", images=["6", 0], filename_prefix="ours"),
        **saved(["5", 0]),
    }
    outputs = comfyui.run(workflow)
    theirs, ours = comfyui.pictures(outputs, "9")[0], comfyui.pictures(outputs, "7")[0]
    assert np.abs(theirs.astype(int) - ours).max() <= 1


def test_the_core_s_remove_background_accepts_our_model(comfyui):
    if "RemoveBackground" not in comfyui.get("/object_info"):
        pytest.skip("this ComfyUI has no such node")
    workflow = segment()
    workflow["4"] = node("RemoveBackground", bg_removal_model=["2", 1], image=["1", 0])
    theirs = comfyui.pictures(comfyui.run({**workflow, **saved(["4", 0], "mask")}), "9")
    ours = comfyui.pictures(comfyui.run({**segment(), **saved(["3", 0], "mask")}), "9")
    assert np.abs(theirs[0].astype(int) - ours[0]).max() <= 1  # theirs is rounded under --fp16-intermediates


def test_the_one_node_keeps_its_model_between_runs(comfyui):
    def run(image):
        workflow = {
            "1": node("LoadImage", image=image),
            "2": node("BiRefNetRemoveBackground", image=["1", 0], model="demo"),
            **saved(["2", 0]),
        }
        return comfyui.pictures(comfyui.run(workflow), "9")[0]

    assert run("example.png").shape[2] == 4
    before = comfyui.log().count("BiRefNet 'demo' on")
    assert run("background.png").shape[2] == 4
    assert comfyui.log().count("BiRefNet 'demo' on") == before


def test_unchanged_inputs_do_not_run_again(comfyui):
    workflow = {**segment(size="custom", width=96, height=96), **saved(["3", 0], "mask")}
    comfyui.run(workflow)
    entry = comfyui.wait(comfyui.submit(workflow))
    cached = dict(entry["status"]["messages"])["execution_cached"]["nodes"]
    assert {"1", "2", "3"} <= set(cached)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_saved_by_0_1_runs(name, comfyui, to_api, demo_model):
    workflow = to_api(json.loads((SAVED_BEFORE / f"{name}.json").read_text(encoding="utf-8")))
    if any(n["class_type"] == "KSampler" for n in workflow.values()):
        pytest.skip("needs a diffusion model")
    unknown = {n["class_type"] for n in workflow.values()} - set(comfyui.get("/object_info"))
    if unknown and not unknown & NODES:
        pytest.skip(f"this ComfyUI has no {', '.join(unknown)}")
    for part in workflow.values():
        if part["inputs"].get("model") in NOT_HERE:
            part["inputs"]["model"] = "small.safetensors"
        if part["class_type"] == "LoadImage" and name == "region_guided":
            part["inputs"]["image"] = "painted.png"
    outputs = comfyui.run(workflow)
    photo = read_image(PHOTO)[None]
    mask = (bc.Segmenter(demo_model)(photo)[0].numpy() * 255).astype(np.uint8)  # cut off, as core's Save Image does
    ends = {key: part for key, part in workflow.items() if part["class_type"].startswith(("Save", "BiRefNetSegmentV"))}
    assert ends
    for key, part in ends.items():
        if "Video" in part["class_type"]:
            assert outputs[key]
            continue
        for picture in comfyui.pictures(outputs, key):
            source = workflow[part["inputs"]["images"][0]]["inputs"]
            assert picture.shape[2] == (3 if "over" in source.get("output", "RGBA") else 4)
            if not source.get("crop"):
                assert picture.shape[:2] == photo.shape[1:3]
            if name in PLAIN_CUTOUTS:
                # ComfyUI's torch and decoder may be others, and demo's edges are steep.
                difference = np.abs(picture[..., 3].astype(int) - mask)
                assert difference.max() <= 8 and difference.mean() < 0.1
    if name == "batch_folder":
        assert sum(len(comfyui.pictures(outputs, key)) for key in ends) == 2


def test_a_painted_region_and_a_box_limit_the_mask_as_in_the_core(comfyui, demo_model):
    if "PrimitiveBoundingBox" not in comfyui.get("/object_info"):
        pytest.skip("this ComfyUI has no such node")
    workflow = {
        **segment(image="painted.png", region=["1", 1]),  # rows 60 to 220, columns 90 to 330 are painted
        "4": node("PrimitiveBoundingBox", x=90, y=60, width=240, height=160),
        "5": node("BiRefNetSegment", model=["2", 0], image=["1", 0], **SEGMENT, box=["4", 0]),
        **saved(["3", 0], "mask", name="8"),
        **saved(["5", 0], "mask", name="9"),
    }
    outputs = comfyui.run(workflow)
    photo = read_image(PHOTO)[None]
    expected = to_bytes(bc.Segmenter(demo_model)(photo, region=(90, 60, 240, 160))[0])
    assert not expected[250:].any() and not expected[:, :60].any()
    for name in ("8", "9"):
        (picture,) = comfyui.pictures(outputs, name)
        assert np.abs(picture[..., 0].astype(int) - expected).max() <= 1


def test_a_run_cancelled_within_an_image_ends_soon_and_the_next_works(comfyui):
    workflow = {**segment("slow.safetensors", size="2048"), **saved(["3", 0], "mask")}
    prompt = comfyui.submit(workflow)
    end = time.monotonic() + 60
    while comfyui.log().count("BiRefNet 'slow.safetensors' on") == 0 and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    comfyui.request("/interrupt", b"{}")
    start = time.monotonic()
    entry = comfyui.wait(prompt)
    seconds = time.monotonic() - start
    messages = dict(entry["status"]["messages"])
    assert "execution_interrupted" in messages, messages
    print(f"cancelled {seconds:.1f} s after the request")
    assert seconds < 10
    assert comfyui.run({**segment(), **saved(["3", 0], "mask")})


@pytest.mark.parametrize(
    ("workflow", "node_type", "says"),
    [
        (
            {
                "1": node("EmptyImage", width=32, height=32, batch_size=2, color=0),
                "2": node("EmptyImage", width=32, height=32, batch_size=3, color=0),
                "3": node("ImageToMask", image=["2", 0], channel="red"),
                "4": node("BiRefNetApplyAlpha", image=["1", 0], mask=["3", 0], **APPLY),
                **saved(["4", 0]),
            },
            "BiRefNetApplyAlpha",
            "2 frames",
        ),
        (
            {
                "1": node("NoFrames"),
                "2": node("EmptyImage", width=32, height=32, batch_size=1, color=0),
                "3": node("ImageToMask", image=["2", 0], channel="red"),
                "4": node("BiRefNetApplyAlpha", image=["1", 0], mask=["3", 0], **APPLY),
                **saved(["4", 0]),
            },
            "BiRefNetApplyAlpha",
            "0 frames",
        ),
        (
            {
                **segment(),
                "1": node("NoFrames"),
                **saved(["3", 0], "mask"),
            },
            "BiRefNetSegment",
            "at least one image",
        ),
        ({**segment("BiRefNet_lite"), **saved(["3", 0], "mask")}, "BiRefNetLoadModel", "HF_HUB_OFFLINE"),
        ({**segment("broken.safetensors"), **saved(["3", 0], "mask")}, "BiRefNetLoadModel", "broken.safetensors"),
        (
            {
                "1": node("LoadImage", image="example.png"),
                "2": node("BiRefNetRemoveBackground", image=["1", 0], model="BiRefNet_lite"),
                **saved(["2", 0]),
            },
            "BiRefNetRemoveBackground",  # and not one of the nodes it stands for, which are not on the page
            "HF_HUB_OFFLINE",
        ),
    ],
    ids=["numbers", "no frames", "no frames to segment", "offline", "broken", "offline in one node"],
)
def test_an_error_says_what_to_do_and_the_next_run_works(comfyui, workflow, node_type, says):
    error = error_of(comfyui, workflow)
    assert error["node_type"] == node_type and says in error["exception_message"]
    assert workflow[error["node_id"]]["class_type"] == node_type  # whose box turns red
    comfyui.run({**segment(size="512"), **saved(["3", 0], "mask")})


def test_a_file_that_is_deleted_after_use_is_refused_with_advice(comfyui):
    folder = comfyui.base / "models" / "birefnet"
    workflow = {**segment("soon_gone.safetensors"), **saved(["3", 0], "mask")}
    shutil.copy(folder / "small.safetensors", folder / "soon_gone.safetensors")
    assert comfyui.run(workflow)
    (folder / "soon_gone.safetensors").unlink()
    with pytest.raises(AssertionError, match="Put the file there"):
        comfyui.submit(workflow)
    assert comfyui.run({**segment(size="512"), **saved(["3", 0], "mask")})


def test_a_model_name_may_come_from_another_node(comfyui):
    def run(name):
        workflow = {**segment(size="custom", width=96, height=96), **saved(["3", 0], "mask")}
        workflow["4"] = node("Name", name=name)
        workflow["2"]["inputs"]["model"] = ["4", 0]
        return comfyui.wait(comfyui.submit(workflow))

    assert run("demo")["status"]["status_str"] == "success"
    error = dict(run("gone.safetensors")["status"]["messages"])["execution_error"]
    assert error["node_type"] == "BiRefNetLoadModel" and "Put the file there" in error["exception_message"]


@pytest.mark.parametrize("free_memory", [False, True])
def test_unloaded_models_work_again(free_memory, comfyui, demo_model):
    """The button "Unload models" keeps the nodes' results, "Free model and node cache" does not."""
    photo = read_image(PHOTO)[None]
    for width in (96 + 64 * free_memory, 128 + 64 * free_memory):
        workflow = {**segment(size="custom", width=width, height=96), **saved(["3", 0], "mask")}
        (picture,) = comfyui.pictures(comfyui.run(workflow), "9")
        expected = to_bytes(bc.Segmenter(demo_model)(photo, (width, 96))[0])
        assert np.abs(picture[..., 0].astype(int) - expected).max() <= 1
        comfyui.request("/free", json.dumps({"unload_models": True, "free_memory": free_memory}).encode())


def test_several_models_in_one_graph_do_not_mix(comfyui, demo_model, other_model):
    workflow = {
        **segment(),
        "4": node("BiRefNetLoadModel", model="other.safetensors", **LOAD),
        "5": node("BiRefNetSegment", model=["4", 0], image=["3", 1], **SEGMENT),
        "6": node("BiRefNetSegment", model=["2", 0], image=["5", 1], **{**SEGMENT, "size": "512"}),
        **saved(["3", 0], "mask", name="7"),
        **saved(["5", 0], "mask", name="8"),
        **saved(["6", 0], "mask", name="9"),
    }
    outputs = comfyui.run(workflow)
    photo = read_image(PHOTO)[None]
    for name, model, size in (("7", demo_model, None), ("8", other_model, 256), ("9", demo_model, 512)):
        (picture,) = comfyui.pictures(outputs, name)
        expected = to_bytes(bc.Segmenter(model)(photo, size)[0])
        assert np.abs(picture[..., 0].astype(int) - expected).max() <= 1
    first, second = (comfyui.pictures(outputs, name)[0].astype(int) for name in ("7", "8"))
    assert np.abs(first - second).max() > 10


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_mask(comfyui):
    """Where compiling fails there is a warning in the log and the same mask, so both are looked at."""
    workflow = {**segment(size="custom", width=64, height=64), **saved(["3", 0], "mask")}
    plain = comfyui.pictures(comfyui.run(workflow), "9")[0]
    workflow["2"]["inputs"]["compile"] = True
    entry = comfyui.wait(comfyui.submit(workflow), seconds=1200)
    compiled = comfyui.pictures(entry["outputs"], "9")[0]
    assert np.abs(plain.astype(int) - compiled).max() <= 1
    assert "torch.compile failed" not in comfyui.log()


def test_one_pixel_and_transparent_images_work(comfyui):
    (dot,) = comfyui.pictures(comfyui.run({**segment(image="dot.png"), **saved(["3", 0], "mask")}), "9")
    assert dot.shape[:2] == (1, 1)
    workflow = {
        **segment(),
        "4": node("BiRefNetApplyAlpha", image=["3", 1], mask=["3", 0], **APPLY),
        "5": node("BiRefNetSegment", model=["2", 0], image=["4", 0], **SEGMENT),
        **saved(["5", 0], "mask"),
    }
    assert comfyui.run(workflow)


def test_the_http_client_writes_a_cutout(comfyui, demo_model, tmp_path):
    command = [
        sys.executable, str(ROOT / "examples" / "http_client.py"), str(PHOTO), str(tmp_path / "cutout.png"),
        "--server", comfyui.url,
    ]  # fmt: skip
    for _ in range(2):  # nothing but saving is left to do the second time
        subprocess.run(command, check=True, timeout=120)
    picture = np.array(Image.open(tmp_path / "cutout.png"))
    photo = read_image(PHOTO)[None]
    assert picture.shape == (*photo.shape[1:3], 4)
    # The client sends the JPEG, which ComfyUI's decoder may round differently.
    assert np.abs(picture[..., 3].astype(int) - to_bytes(bc.Segmenter(demo_model)(photo)[0])).mean() < 1
    command += ["--model", "BiRefNet_lite"]
    failed = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True)
    assert failed.returncode == 1 and "HF_HUB_OFFLINE" in failed.stderr


def test_help_pages_translations_templates_and_subgraphs_are_served(comfyui):
    page = comfyui.request("/extensions/birefnet/docs/BiRefNetSegment.md").decode()
    assert page.startswith("# BiRefNet Segment")
    texts = comfyui.get("/i18n")
    assert texts["de"]["nodeDefs"]["BiRefNetLoadModel"]["display_name"] == "BiRefNet-Modell laden"
    examples = {path.stem for path in ROOT.glob("example_workflows/*.json")}
    assert examples and examples <= set(comfyui.get("/workflow_templates")["birefnet"])
    try:
        names = {entry["name"] for entry in comfyui.get("/global_subgraphs").values()}
    except urllib.error.HTTPError:
        pytest.skip("this ComfyUI shows no subgraphs of packs")
    assert {path.stem for path in ROOT.glob("subgraphs/*.json")} <= names
