"""A video through the nodes: beside inputs and outputs they hold what one frame takes, however many there are."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HEIGHT, WIDTH = 90, 160
FRAMES = 12
FRAME = HEIGHT * WIDTH * 3 * 4  # bytes


class LivingTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is on, as long as they live."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        old = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and id(storage) not in old | set(self.known):
                self.known[id(storage)] = weakref.ref(storage, self.forget(id(storage), storage.nbytes()))
                self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        return result

    def forget(self, key, size):
        def end(_):
            del self.known[key]
            self.now -= size

        return end


def held(node, outputs, **inputs):
    """The most bytes that lived while a node ran, without its outputs."""
    with LivingTensors() as living:
        results = node.execute(**inputs).result[:outputs]
    return living.peak - sum(tensor.nbytes for tensor in results)


@pytest.fixture(scope="module")
def nodes(comfy):
    return {node.__name__: node for node in comfy.nodes.NODES}


@pytest.fixture(scope="module")
def defaults(comfy, nodes):
    return lambda name, *given: comfy.compat.default_inputs(nodes[name], *given)


def test_segment_holds_one_frame(nodes, defaults, small_file):
    model = nodes["BiRefNetLoadModel"].execute(small_file, **defaults("BiRefNetLoadModel", "model")).result[0]

    def run(frames):
        inputs = {**defaults("BiRefNetSegment"), "model": model, "image": torch.rand(frames, HEIGHT, WIDTH, 3)}
        return held(nodes["BiRefNetSegment"], 1, **inputs)  # the second output is the image that came in

    one, many = run(1), run(FRAMES)
    assert one > 0 and many < one + FRAME


@pytest.mark.parametrize("name", ["BiRefNetDespill", "BiRefNetCropAroundSubject", "BiRefNetStitchBack"])
def test_mask_tools_hold_one_frame(nodes, defaults, name):
    def run(frames):
        image, mask = torch.rand(frames, HEIGHT, WIDTH, 3), torch.zeros(frames, HEIGHT, WIDTH)
        mask[:, 10:50, 20:100] = 1
        inputs = {"image": image, "mask": mask}
        if name == "BiRefNetStitchBack":
            cut = nodes["BiRefNetCropAroundSubject"]
            crop, crop_mask, stitch = cut.execute(**inputs, **defaults(cut.__name__)).result
            inputs = {"image": crop, "mask": crop_mask, "stitch": stitch}
        return held(nodes[name], 2 if "Crop" in name else 1, **{**defaults(name), **inputs})

    one, many = run(1), run(FRAMES)
    assert one > 0 and many < one + 1.5 * FRAME


@pytest.mark.parametrize("output", ["RGBA", "over color", "over background", "over checkerboard"])
@pytest.mark.parametrize("crop", [False, True])
def test_apply_alpha_holds_one_frame(nodes, defaults, output, crop):
    def run(frames):
        inputs = {"image": torch.rand(frames, HEIGHT, WIDTH, 3), "mask": torch.zeros(frames, HEIGHT, WIDTH)}
        inputs["mask"][:, 10:50, 20:100] = 0.7
        background = torch.rand(frames, 90, 90, 3)
        chosen = {**inputs, "output": output, "crop": crop, "background": background}
        return held(nodes["BiRefNetApplyAlpha"], 2 if crop else 1, **{**defaults("BiRefNetApplyAlpha"), **chosen})

    one, many = run(1), run(FRAMES)
    assert one > 0 and many < one + 1.5 * FRAME + FRAMES * 90 * 90 * 3 * 4
