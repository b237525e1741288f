"""Small workflows in API format, shared by the tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core.images import read_image, to_bytes, write_image

TEMPLATES = pytest.StashKey[list]()  # rows of the table that test_templates.py has printed
PHOTO = Path(__file__).resolve().parents[1] / "fixtures" / "dancer.jpg"
LOAD = {"dtype": "fp32", "device": "auto", "patch_order": "auto"}
SEGMENT = {"size": "auto (training size)", "width": 1024, "height": 1024}
APPLY = {
    "output": "RGBA", "colors": "multilevel", "color": "#ffffff", "background_fit": "fill", "crop": False, "padding": 16
}  # fmt: skip


def node(kind, **values):
    return {"class_type": kind, "inputs": values}


def segment(model="demo", image="example.png", **options):
    """Image 1, model 2, mask and image 3."""
    return {
        "1": node("LoadImage", image=image),
        "2": node("BiRefNetLoadModel", model=model, **LOAD),
        "3": node("BiRefNetSegment", model=["2", 0], image=["1", 0], **{**SEGMENT, **options}),
    }


def saved(source, kind="image", name="9"):
    """Saves an image or a mask as node 9."""
    if kind == "image":
        return {name: node("SaveImage", images=source, filename_prefix="test")}
    between = f"{name}0"
    return {between: node("MaskToImage", mask=source), **saved([between, 0], name=name)}


def error_of(comfyui, workflow):
    """What the red box of the node that failed says, and which node that is."""
    entry = comfyui.wait(comfyui.submit(workflow))
    return dict(entry["status"]["messages"])["execution_error"]


def write_inputs(comfyui):
    """The files the example workflows ask for."""
    folder = comfyui.base / "input"
    photo = read_image(PHOTO)
    write_image(folder / "example.png", photo)
    dusk = torch.lerp(torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.9, 0.7, 0.5]), torch.linspace(0, 1, 120)[:, None])
    write_image(folder / "background.png", dusk[:, None].expand(-1, 200, -1))
    Image.new("RGB", (1, 1), (200, 30, 30)).save(folder / "dot.png")
    rgba = np.dstack([to_bytes(photo), np.full(photo.shape[:2], 255, np.uint8)])
    rgba[60:220, 90:330, 3] = 0  # what a painted mask looks like: transparent where it is 1
    Image.fromarray(rgba).save(folder / "painted.png")
    for n in (1, 2):
        write_image(folder / "photos" / f"{n}.png", photo)
    make = {
        "1": node("LoadImage", image="example.png"),
        "2": node("ImageScale", image=["1", 0], upscale_method="area", width=64, height=64, crop="disabled"),
        "3": node("RepeatImageBatch", image=["2", 0], amount=3),
        "4": node("CreateVideo", images=["3", 0], fps=5.0),
        "5": node("SaveVideo", video=["4", 0], filename_prefix="made", format="mp4", codec="h264"),
    }
    comfyui.run(make)
    next((comfyui.base / "output").glob("made*.mp4")).rename(folder / "video.mp4")
