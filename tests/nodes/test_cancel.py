"""Every node that works on frames shows its progress, and ends between two of them when the user cancels."""

from importlib import import_module

import pytest
import torch

FRAMES = 3
IMAGES = torch.rand(FRAMES, 24, 32, 3, generator=torch.Generator().manual_seed(0))
MASKS = torch.zeros(FRAMES, 24, 32)
MASKS[:, 6:18, 8:22] = 1
# Node, its inputs, and what its progress counts to.
CASES = {
    "RefineMask": ({"mask": MASKS, "grow": 1}, FRAMES),
    "RefineMask over time": ({"mask": MASKS, "image": IMAGES, "temporal_radius": 1}, 2 * FRAMES),
    "ApplyAlpha": ({"image": IMAGES, "mask": MASKS}, FRAMES),
    "CompareMasks": ({"mask": MASKS, "ground_truth": MASKS}, FRAMES),
    "Trimap": ({"mask": MASKS}, FRAMES),
    "Despill": ({"image": IMAGES}, FRAMES),
    "CropAroundSubject": ({"image": IMAGES, "mask": MASKS}, FRAMES),
    "StitchBack": ({"image": IMAGES}, FRAMES),
    "Segment": ({"image": IMAGES}, FRAMES),
    "Segment with points": ({"image": IMAGES, "points": MASKS}, FRAMES),
}


@pytest.fixture(scope="module")
def execute(comfy, small_file):
    nodes = {node.__name__.removeprefix("BiRefNet"): node for node in comfy.nodes.NODES}
    defaults = {name: comfy.compat.default_inputs(node) for name, node in nodes.items()}
    model = nodes["LoadModel"].execute(small_file, **comfy.compat.default_inputs(nodes["LoadModel"], "model")).result[0]
    crop = {**defaults["CropAroundSubject"], "image": IMAGES, "mask": MASKS}
    own = {
        "Segment": {"model": model, "size": "custom", "width": 64, "height": 64},
        "StitchBack": {"stitch": nodes["CropAroundSubject"].execute(**crop).result[2]},
    }

    def run(case):
        name, (inputs, _) = case.split()[0], CASES[case]
        return nodes[name].execute(**{**defaults[name], **own.get(name, {}), **inputs})

    return run


def test_every_node_with_masks_is_tested(schemas):
    found = {name.removeprefix("BiRefNet") for name, schema in schemas.items()
             if any(i.type in ("IMAGE", "MASK") for i in schema.inputs)}  # fmt: skip
    # One is expanded into others, two look at one small thing, and the video has its own tests.
    found -= {"RemoveBackground", "PointAtSubject", "BoxSubject", "SegmentVideo"}
    assert found == {case.split()[0] for case in CASES}


@pytest.fixture(autouse=True)
def one_frame_at_a_time(comfy, monkeypatch):
    monkeypatch.setattr(import_module("pack_under_test.birefnet_core.masks.windows"), "FRAME_PIECE", 1)


@pytest.mark.parametrize("case", CASES)
def test_progress_counts_to_the_end(execute, comfy, case):
    comfy.progress.clear()
    execute(case)
    total = CASES[case][1]
    steps = comfy.progress[-total - 1 :] if case == "Segment with points" else comfy.progress
    assert list(dict.fromkeys(steps)) == [(done, total) for done in range(total + 1)]


@pytest.mark.parametrize("case", CASES)
def test_cancelling_ends_the_work(execute, comfy, case, monkeypatch):
    management = import_module("comfy.model_management")
    before = management.throw_exception_if_processing_interrupted

    def cancelled_in_the_second_frame():
        if comfy.progress[-1:] and comfy.progress[-1][0] == 1:
            raise comfy.Interrupted
        before()

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancelled_in_the_second_frame)
    comfy.progress.clear()
    with pytest.raises(comfy.Interrupted):
        execute(case)
    assert comfy.progress[-1] == (1, CASES[case][1])
