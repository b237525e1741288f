"""Trimap, Despill, Crop Around Subject, Stitch Back and pointing at a subject, in a real ComfyUI."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core.images import read_image, to_bytes
from birefnet_core.masks import CropOptions, crop_for_inpainting, make_trimap, remove_spill, stitch_back
from tests.comfyui.workflows import PHOTO, SEGMENT, error_of, node, saved, segment, write_inputs

pytestmark = pytest.mark.comfyui

DESPILL = {
    "screen": "green", "color": "#00b140", "limit": "balanced", "strength": 1.0, "keep_brightness": 0.0, "edge_width": 0
}  # fmt: skip
CROP = {"padding": 0.25, "size": 0, "square": False, "follow": False, "multiple": 8}
NODES = {
    "BiRefNetTrimap", "BiRefNetDespill", "BiRefNetCropAroundSubject", "BiRefNetStitchBack", "BiRefNetPointAtSubject",
    "BiRefNetBoxSubject",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def inputs(comfyui):
    write_inputs(comfyui)
    spots = np.zeros((240, 320), np.uint8)
    spots[40:120, 30:110], spots[60:200, 180:300] = 255, 255
    Image.fromarray(spots).save(comfyui.base / "input" / "spots.png")


def picture(comfyui, workflow, name="9"):
    (found,) = comfyui.pictures(comfyui.run(workflow), name)
    return found


def test_every_node_is_there_with_its_canvas(comfyui):
    found = comfyui.get("/object_info")
    assert set(found) >= NODES
    mask = found["BiRefNetPointAtSubject"]["input"]["required"]["mask"]
    assert mask[0] == "STRING" and mask[1]["widgetType"] == "PAINTER"
    region = found["BiRefNetBoxSubject"]["input"]["required"]["region"]
    assert region[0] == "BOUNDING_BOX" and region[1]["component"] == "ImageCrop"
    # The canvases show the picture of the node's first input.
    for name in ("BiRefNetPointAtSubject", "BiRefNetBoxSubject"):
        assert found[name]["input_order"]["required"][0] == "image"


def test_a_trimap_equals_the_core(comfyui):
    workflow = {
        "1": node("LoadImageMask", image="spots.png", channel="red"),
        "2": node("BiRefNetTrimap", mask=["1", 0], inside=6, outside=11),
        **saved(["2", 0], "mask"),
    }
    spots = torch.from_numpy(np.array(Image.open(comfyui.base / "input" / "spots.png"))) / 255
    expected = to_bytes(make_trimap(spots[None], 6, 11)[0])
    assert np.abs(picture(comfyui, workflow)[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("screen", ["green", "blue", "color", "background"])
def test_despill_equals_the_core_and_keeps_alpha(comfyui, screen):
    workflow = {
        **segment(),
        "4": node("BiRefNetDespill", image=["1", 0], mask=["3", 0], **{**DESPILL, "screen": screen}),
        **saved(["4", 0]),
    }
    result = picture(comfyui, workflow)
    photo = read_image(PHOTO)[None]
    assert result.shape[:2] == photo.shape[1:3]
    if screen != "background":
        color = {"green": "#00ff00", "blue": "#0000ff", "color": "#00b140"}[screen]
        assert np.abs(result[..., :3].astype(int) - to_bytes(remove_spill(photo, color)[0])).max() <= 1


def test_a_crop_is_stitched_back_to_the_pixel(comfyui):
    workflow = {
        **segment(),
        "4": node("BiRefNetCropAroundSubject", image=["1", 0], mask=["3", 0], **{**CROP, "padding": 0.0}),
        "5": node("ImageInvert", image=["4", 0]),
        "6": node("BiRefNetStitchBack", stitch=["4", 2], image=["4", 0], blend=16),
        "7": node("BiRefNetStitchBack", stitch=["4", 2], image=["5", 0], blend=16, mask=["4", 1]),
        **saved(["6", 0], name="8"),
        **saved(["7", 0], name="9"),
        **saved(["3", 0], "mask", name="10"),
    }
    outputs = comfyui.run(workflow)
    same, inverted, mask = (comfyui.pictures(outputs, name)[0] for name in ("8", "9", "10"))
    photo = to_bytes(read_image(PHOTO))
    assert np.array_equal(same[..., :3], photo)
    rows, columns = np.nonzero(mask[..., 0] > 13)
    outside = np.ones(photo.shape[:2], bool)
    outside[max(rows.min() - 8, 0) : rows.max() + 9, max(columns.min() - 8, 0) : columns.max() + 9] = False
    assert np.array_equal(inverted[outside][:, :3], photo[outside])
    original, weights = torch.from_numpy(photo)[None] / 255, torch.from_numpy(mask[..., 0].copy())[None] / 255
    crop, crop_mask, record = crop_for_inpainting(original, weights, CropOptions(padding=0.0))
    expected = to_bytes(stitch_back(record, 1 - crop, crop_mask, blend=16)[0])
    assert np.abs(inverted[..., :3].astype(int) - expected).max() <= 2


def test_a_resized_crop_goes_through_nodes_of_others(comfyui):
    workflow = {
        **segment(),
        "4": node("BiRefNetCropAroundSubject", image=["1", 0], mask=["3", 0], **{**CROP, "size": 256, "square": True}),
        "5": node("ImageBlur", image=["4", 0], blur_radius=4, sigma=2.0),
        "6": node("BiRefNetStitchBack", stitch=["4", 2], image=["5", 0], blend=8),
        **saved(["6", 0]),
    }
    assert picture(comfyui, workflow).shape[:2] == read_image(PHOTO).shape[:2]


def two_subjects():
    """Mask 1 with two subjects as a model that knows them would give it; core's nodes make the picture."""
    return {"1": node("LoadImageMask", image="spots.png", channel="red"), "2": node("MaskToImage", mask=["1", 0])}


@pytest.mark.parametrize("place", ["input", "temp"])
def test_paint_and_points_mark_what_the_page_uploads(comfyui, place):
    strokes = np.zeros((240, 320, 4), np.uint8)
    strokes[70:90, 60:80] = 255
    folder = comfyui.base / place / "painter"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(strokes).save(folder / "painter-1.png")
    mark = {"mask": f"painter/painter-1.png [{place}]"}
    marking = {"3": node("BiRefNetPointAtSubject", image=["2", 0], **mark)}
    workflow = {**two_subjects(), **marking, **saved(["3", 0], "mask")}
    assert np.array_equal(picture(comfyui, workflow)[..., 0], strokes[..., 3])
    points = json.dumps([{"x": 100, "y": 50}])
    workflow["4"] = node("PrimitiveString", value=points)
    workflow["3"]["inputs"]["coordinates"] = ["4", 0]
    both = picture(comfyui, workflow)[..., 0]
    assert both[50, 100] == 255 and (both >= strokes[..., 3]).all()


def test_points_choose_a_subject_of_segment(comfyui):
    whole = picture(comfyui, {**segment(), **saved(["3", 0], "mask")})[..., 0]
    rows, columns = np.nonzero(whole > 250)
    middle = len(rows) // 2
    workflow = {
        **segment(points=["5", 0]),
        "4": node("PrimitiveString", value=json.dumps([{"x": int(columns[middle]), "y": int(rows[middle])}])),
        "5": node("BiRefNetPointAtSubject", image=["1", 0], mask="", coordinates=["4", 0]),
        **saved(["3", 0], "mask"),
    }
    chosen = picture(comfyui, workflow)[..., 0]
    assert chosen[rows[middle], columns[middle]] > 250
    assert ((chosen == whole) | (chosen == 0)).all()


def test_paint_that_is_gone_is_told(comfyui):
    workflow = {
        **two_subjects(),
        "3": node("BiRefNetPointAtSubject", image=["2", 0], mask="painter/gone.png [temp]"),
        **saved(["3", 0], "mask"),
    }
    assert "paint again" in error_of(comfyui, workflow)["exception_message"]


def test_a_drawn_box_reaches_segment(comfyui):
    box = {"x": 90, "y": 60, "width": 240, "height": 160}
    workflow = {
        **segment(box=["4", 0], falloff=0.0),
        "4": node("BiRefNetBoxSubject", image=["1", 0], region=box),
        **saved(["3", 0], "mask"),
    }
    mask = picture(comfyui, workflow)[..., 0]
    assert mask.any() and not mask[250:].any() and not mask[:, :60].any()


def test_transparent_pictures_are_segmented_as_they_are_seen(comfyui):
    """Load Image gives three channels; Join Image with Alpha gives four."""
    workflow = {
        **segment(image="example.png"),
        "5": node("LoadImageMask", image="painted.png", channel="alpha"),  # 1 where painted.png is transparent
        "6": node("JoinImageWithAlpha", image=["1", 0], alpha=["5", 0]),
        **saved(["3", 0], "mask"),
    }
    workflow["3"]["inputs"]["image"] = ["6", 0]
    mask = picture(comfyui, workflow)[..., 0]
    hidden = np.array(Image.open(comfyui.base / "input" / "painted.png"))[..., 3] == 0
    assert not mask[hidden].any() and mask[~hidden].any()


@pytest.mark.parametrize(
    ("kind", "socket", "others"),
    [
        ("BiRefNetTrimap", "mask", {"inside": 1, "outside": 1}),
        ("BiRefNetDespill", "image", DESPILL),
        ("BiRefNetCropAroundSubject", "image", {**CROP, "mask": ["2", 0]}),
        ("BiRefNetStitchBack", "stitch", {"image": ["1", 0], "blend": 0}),
        ("BiRefNetPointAtSubject", "image", {"mask": ""}),
        ("BiRefNetSegment", "model", {"image": ["1", 0], **SEGMENT}),
        ("BiRefNetRefineMask", "mask", {}),
        ("BiRefNetCompareMasks", "ground_truth", {"mask": ["2", 0]}),
    ],
)
def test_links_of_foreign_nodes_are_told(comfyui, kind, socket, others):
    given = comfyui.get(f"/object_info/{kind}")[kind]["input"]["required"]
    defaults = {name: options[1]["default"] for name, options in given.items() if "default" in options[1]}
    workflow = {
        "1": node("LoadImage", image="example.png"),
        "2": node("LoadImageMask", image="spots.png", channel="red"),
        "3": node("Name", name="no tensor"),
        "4": node(kind, **{**defaults, **others, socket: ["3", 0]}),
    }
    out = comfyui.get(f"/object_info/{kind}")[kind]["output"][0]
    if kind != "BiRefNetCompareMasks":
        show = {"IMAGE": ("PreviewImage", "images"), "MASK": ("MaskPreview", "mask")}[out]
        workflow["5"] = node(show[0], **{show[1]: ["4", 0]})
    error = error_of(comfyui, workflow)
    assert error["node_type"] == kind
    assert error["exception_message"].startswith(f"{socket} is 'no tensor', expected")
