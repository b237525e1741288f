"""ComfyUI's flags for memory and precision: it starts, runs, and gives the mask it gives without them."""

import numpy as np
import pytest

import birefnet_core as bc
from birefnet_core.images import read_image, to_bytes, write_image
from tests.comfyui.workflows import APPLY, PHOTO, node, saved, segment

pytestmark = pytest.mark.comfyui

FLAGS = [
    ("--lowvram", "--force-fp16", "--fp16-unet", "--fp16-vae", "--fp16-text-enc"),
    ("--novram", "--bf16-unet", "--bf16-vae", "--bf16-text-enc", "--force-channels-last", "--disable-smart-memory"),
]


@pytest.mark.slow
@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: flags[0])
def test_flags_of_memory_and_precision_change_no_mask(flags, start_comfyui, demo_model):
    server = start_comfyui(*flags, HF_HUB_OFFLINE="1")
    write_image(server.base / "input" / "example.png", read_image(PHOTO))
    workflow = {
        **segment(),
        "4": node("BiRefNetApplyAlpha", image=["3", 1], mask=["3", 0], **APPLY),
        **saved(["4", 0]),
    }
    (picture,) = server.pictures(server.run(workflow), "9")
    expected = to_bytes(bc.Segmenter(demo_model)(read_image(PHOTO)[None])[0])
    assert np.abs(picture[..., 3].astype(int) - expected).max() <= 1
    server.stop()
