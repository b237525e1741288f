"""What version 0.1 sent to the server is understood as before; cut-outs end a workflow and show themselves."""

import numpy as np
import pytest

from tests.comfyui.workflows import APPLY, PHOTO, node, saved, segment

pytestmark = pytest.mark.comfyui

REFINE = {
    "temporal_radius": 0, "black_point": 0.0, "white_point": 1.0, "keep_largest": False, "min_island_area": 0,
    "max_hole_area": 0, "grow": 0, "smooth_edge": 0.0, "guided_radius": 0, "guided_epsilon": 0.0001, "feather": 0.0,
    "invert": False,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def photo(comfyui):
    (comfyui.base / "input" / "example.png").write_bytes(PHOTO.read_bytes())


def refined(comfyui, threshold, **more):
    workflow = {
        **segment(),
        **more,
        "4": node("BiRefNetRefineMask", mask=["3", 0], threshold=threshold, **REFINE),
        **saved(["4", 0], "mask"),
    }
    return comfyui.pictures(comfyui.run(workflow), "9")[0]


def test_numbers_texts_and_links_are_taken_as_the_threshold(comfyui):
    soft, off = (refined(comfyui, value) for value in (-0.01, "off"))
    assert np.array_equal(soft, off) and len(np.unique(soft)) > 10
    hard = refined(comfyui, 0.25)
    assert set(np.unique(hard)) <= {0, 255}
    assert np.array_equal(refined(comfyui, "0.25"), hard)
    if "PrimitiveFloat" in comfyui.get("/object_info"):
        assert np.array_equal(refined(comfyui, ["5", 0], **{"5": node("PrimitiveFloat", value=0.25)}), hard)


def test_colors_are_taken_as_hex_as_numbers_and_over_a_link(comfyui):
    def corner(color, **more):
        options = {**APPLY, "output": "over color", "color": color}
        cut = node("BiRefNetApplyAlpha", image=["1", 0], mask=["6", 0], **options)
        empty = node("SolidMask", value=0.0, width=64, height=64)
        workflow = {"1": node("LoadImage", image="example.png"), "6": empty, **more, "4": cut, **saved(["4", 0])}
        return tuple(comfyui.pictures(comfyui.run(workflow), "9")[0][0, 0])

    assert corner("#102030") == corner("16,32,48") == corner("#102030ff") == (16, 32, 48)
    if "PrimitiveString" in comfyui.get("/object_info"):
        assert corner(["5", 0], **{"5": node("PrimitiveString", value="16,32,48")}) == (16, 32, 48)


def test_cut_outs_end_a_workflow_and_show_themselves(comfyui):
    whole = {
        "1": node("LoadImage", image="example.png"),
        "2": node("BiRefNetRemoveBackground", image=["1", 0], model="demo"),
    }
    outputs = comfyui.run(whole)
    shown = [picture for key in outputs for picture in comfyui.pictures(outputs, key)]
    assert [picture.shape[-1] for picture in shown] == [4]
    step = {**segment(), "4": node("BiRefNetApplyAlpha", image=["1", 0], mask=["3", 0], **APPLY)}
    assert comfyui.pictures(comfyui.run(step), "4")[0].shape[-1] == 4
