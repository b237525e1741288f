"""What other nodes send: masks and images of every form, None, wrong types, numbers over links; for every node."""

import re

import pytest
import torch

NAN = float("nan")


@pytest.fixture(scope="module")
def nodes(comfy):
    return {node.__name__.removeprefix("BiRefNet"): node for node in comfy.nodes.NODES}


@pytest.fixture(scope="module")
def good(comfy, nodes, small_file):
    """Inputs with which each node works, its options by their defaults."""
    loaded = nodes["LoadModel"].execute(small_file, **comfy.compat.default_inputs(nodes["LoadModel"], "model")).result
    image, mask = picture(), disc()
    _, _, stitch = (
        nodes["CropAroundSubject"]
        .execute(image=image, mask=mask, **comfy.compat.default_inputs(nodes["CropAroundSubject"]))
        .result
    )
    given = {
        "Segment": {"model": loaded[0], "image": image},
        "RefineMask": {"mask": mask},
        "ApplyAlpha": {"image": image, "mask": mask},
        "CompareMasks": {"mask": mask, "ground_truth": mask},
        "RemoveBackground": {"image": image, "model": "demo"},
        "Trimap": {"mask": mask},
        "Despill": {"image": image},
        "CropAroundSubject": {"image": image, "mask": mask},
        "StitchBack": {"stitch": stitch, "image": picture(16)},
        "PointAtSubject": {"image": image},
        "BoxSubject": {"image": image},
    }
    return {name: {**comfy.compat.default_inputs(nodes[name]), **inputs} for name, inputs in given.items()}


def picture(height=24, width=32, channels=3, frames=1):
    return torch.rand(frames, height, width, channels, generator=torch.Generator().manual_seed(0))


def disc(height=24, width=32):
    mask = torch.zeros(1, height, width)
    mask[:, 6:18, 8:22] = 1
    return mask


def outputs(node, **inputs):
    return [value for value in node.execute(**inputs).result if isinstance(value, torch.Tensor)]


def equal(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


SOCKETS = {
    ("Segment", "image"), ("Segment", "region"), ("Segment", "points"), ("RefineMask", "mask"), ("RefineMask", "image"),
    ("ApplyAlpha", "image"), ("ApplyAlpha", "mask"), ("ApplyAlpha", "background"), ("CompareMasks", "mask"),
    ("CompareMasks", "ground_truth"), ("RemoveBackground", "image"), ("Trimap", "mask"), ("Despill", "image"),
    ("Despill", "mask"), ("CropAroundSubject", "image"), ("CropAroundSubject", "mask"), ("StitchBack", "image"),
    ("StitchBack", "mask"), ("PointAtSubject", "image"), ("BoxSubject", "image"),
}  # fmt: skip
MASKS = sorted(pair for pair in SOCKETS if pair[1] in ("mask", "region", "points", "ground_truth"))
IMAGES = sorted(SOCKETS - set(MASKS))


def test_every_image_and_mask_socket_is_tested(comfy, schemas):
    types = {"IMAGE", "MASK"}
    found = {(n.removeprefix("BiRefNet"), i.id) for n, s in schemas.items() for i in s.inputs if i.type in types}
    found.remove(("SegmentVideo", "background"))  # test_segment_video.py
    assert found == SOCKETS


@pytest.mark.parametrize(("name", "socket"), MASKS)
@pytest.mark.parametrize("form", ["H W", "B 1 H W", "B H W 1", "bool", "float16", "bfloat16", "float64", "float8"])
def test_masks_of_every_form_mean_the_same(nodes, good, name, socket, form):
    mask = disc()
    forms = {
        "H W": mask[0], "B 1 H W": mask[:, None], "B H W 1": mask[..., None], "bool": mask > 0.5,
        "float16": mask.half(), "bfloat16": mask.bfloat16(), "float64": mask.double(),
        "float8": mask.to(torch.float8_e4m3fn),
    }  # fmt: skip
    result, expected = (outputs(nodes[name], **{**good[name], socket: value}) for value in (forms[form], mask))
    assert equal(result, expected)


@pytest.mark.parametrize(("name", "socket"), IMAGES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_images_of_every_precision_work(nodes, good, name, socket, dtype):
    if name == "RemoveBackground":  # expands to nodes that are tested themselves
        nodes[name].execute(**{**good[name], socket: picture().to(dtype)})
        return
    value = picture().to(dtype)
    result = outputs(nodes[name], **{**good[name], socket: value})
    expected = outputs(nodes[name], **{**good[name], socket: value.float()})
    for a, b in zip(result, expected, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize(("name", "socket"), IMAGES)
@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images_work(nodes, good, name, socket, channels):
    assert nodes[name].execute(**{**good[name], socket: picture(channels=channels)}).result


@pytest.mark.parametrize(("name", "socket"), sorted(SOCKETS))
def test_none_is_nothing_where_a_socket_is_optional_and_told_where_it_is_not(nodes, good, schemas, name, socket):
    optional = next(i.optional for i in schemas[f"BiRefNet{name}"].inputs if i.id == socket)
    inputs = {**good[name], socket: None}
    if optional:
        without = {key: value for key, value in inputs.items() if key != socket}
        assert equal(outputs(nodes[name], **inputs), outputs(nodes[name], **without))
    else:
        with pytest.raises(Exception, match=f"^{socket} is empty"):
            nodes[name].execute(**inputs)


NESTED = torch.nested.nested_tensor([torch.rand(9, 9, 3), torch.rand(5, 9, 3)])
BAD_IMAGES = {
    "no frames": picture(frames=0),
    "no pixels": picture(height=0),
    "2 channels": picture(channels=2),
    "5 channels": picture(channels=5),
    "a mask": disc(),
    "NaN": torch.full((1, 24, 32, 3), NAN),
    "bytes": (picture() * 255).to(torch.uint8),
    "a latent": {"samples": torch.rand(1, 4, 8, 8)},
    "text": "example.png",
    "a list": [picture()],
    "a video": torch.rand(1, 2, 8, 8, 3),
    "sparse": picture().to_sparse(),
    "meta": picture().to("meta"),
    "nested": NESTED,
    "complex": picture().to(torch.complex64),
    "two channels, no frames": torch.zeros(0, 24, 32, 2),
}
BAD_MASKS = {
    "no frames": torch.zeros(0, 24, 32),
    "no pixels": torch.zeros(1, 0, 32),
    "an image": picture(),
    "NaN": torch.full((1, 24, 32), NAN),
    "bytes": torch.full((1, 24, 32), 255, dtype=torch.uint8),
    "logits": torch.full((1, 24, 32), 9.0),
    "text": "mask.png",
    "a number": 0.5,
    "one value": torch.tensor(1.0),
    "a list": [disc()],
    "sparse": disc().to_sparse(),
    "meta": disc().to("meta"),
    "nested": NESTED,
    "complex": disc().to(torch.complex64),
}


def is_a_sentence(error):
    """Words for people: no internals of torch or Python."""
    text = str(error.value)
    assert len(text) > 30 and any(word in text for word in ("expected", "check", "found", "mark the subject"))
    assert {"ImageError", "ConfigError"} & {kind.__name__ for kind in type(error.value).__mro__}
    assert not any(word in text for word in ("NoneType", "object has no attribute", "Traceback", "size mismatch"))


@pytest.mark.parametrize(("name", "socket"), IMAGES)
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_images_that_are_none_are_told(nodes, good, name, socket, kind):
    looks_at_pixels = name not in ("RemoveBackground", "PointAtSubject", "BoxSubject")
    if not looks_at_pixels and kind in ("NaN", "bytes", "no frames", "no pixels", "two channels, no frames"):
        return
    extra = {"guided_radius": 2} if (name, socket) == ("RefineMask", "image") else {}
    extra = {"output": "over background"} if socket == "background" else extra
    with pytest.raises(Exception) as error:
        nodes[name].execute(**{**good[name], **extra, socket: BAD_IMAGES[kind]})
    is_a_sentence(error)


@pytest.mark.parametrize(("name", "socket"), MASKS)
@pytest.mark.parametrize("kind", BAD_MASKS)
def test_masks_that_are_none_are_told(nodes, good, name, socket, kind):
    extra = {"edge_width": 3} if name == "Despill" else {}
    with pytest.raises(Exception) as error:
        nodes[name].execute(**{**good[name], **extra, socket: BAD_MASKS[kind]})
    is_a_sentence(error)


@pytest.mark.parametrize("value", [None, "wide", NAN, [3], {}, torch.rand(3), 10**400])
def test_numbers_and_options_over_links_are_told(nodes, good, schemas, value):
    tried = 0
    for name, inputs in good.items():
        for wanted in schemas[f"BiRefNet{name}"].inputs:
            own = wanted.id == "model" or wanted.type not in ("INT", "FLOAT", "BOOLEAN", "COMBO")
            if own or (wanted.id, value) in (("color", "wide"),):
                continue
            tried += 1
            with pytest.raises(Exception) as error:
                nodes[name].execute(**{**inputs, wanted.id: value})
            is_a_sentence(error)
            assert wanted.id in str(error.value), wanted.id
    assert tried > 30


@pytest.mark.parametrize("name", ["model", "dtype", "device", "patch_order", "adapter"])
@pytest.mark.parametrize("value", [None, "cuda:9", 3, [1]])
def test_options_of_the_loader_over_links_are_told(comfy, nodes, name, value):
    options = {"model": "demo", **comfy.compat.default_inputs(nodes["LoadModel"], "model"), name: value}
    with pytest.raises(Exception, match=f"{name}.*{re.escape(repr(value))}|{name} is empty") as error:
        nodes["LoadModel"].execute(**options)
    assert not any(word in str(error.value) for word in ("NoneType", "object has no attribute", "Traceback"))


@pytest.mark.parametrize(("name", "socket"), [("Segment", "model"), ("StitchBack", "stitch"), ("BoxSubject", "region")])
@pytest.mark.parametrize("value", [None, "demo", 3, picture()])
def test_models_and_stitches_of_other_nodes_are_told(nodes, good, name, socket, value):
    with pytest.raises(Exception, match=f"^{socket} is .*expected what") as error:
        nodes[name].execute(**{**good[name], socket: value})
    is_a_sentence(error)


@pytest.mark.parametrize(
    "box",
    ["left", 3, [[1, 2]], {"x": 1}, [{"x": 1, "y": 1, "width": NAN, "height": 3}], [[], []], [[]], torch.rand(2, 4)],
)
def test_boxes_of_another_form_are_told(nodes, good, box):
    with pytest.raises(Exception) as error:
        nodes["Segment"].execute(**{**good["Segment"], "box": box})
    is_a_sentence(error)


def test_several_boxes_of_one_image_are_seen_as_a_whole(nodes, good):
    boxes = [{"x": 2, "y": 3, "width": 5, "height": 5}, {"x": 20, "y": 10, "width": 4, "height": 6}]
    around = {"x": 2, "y": 3, "width": 22, "height": 13}
    masks = [outputs(nodes["Segment"], **{**good["Segment"], "box": box}) for box in (boxes, [boxes], around)]
    assert equal(masks[0], masks[2]) and equal(masks[1], masks[2])


@pytest.mark.parametrize("empty", [None, []])
def test_a_frame_without_a_box_has_an_empty_mask(nodes, good, empty, caplog):
    box = {"x": 2, "y": 3, "width": 9, "height": 9}
    inputs = {**good["Segment"], "image": picture(frames=3)}
    mask = outputs(nodes["Segment"], **inputs, box=[[box], empty, [box]])[0]
    assert mask[0].any() and not mask[1].any() and mask[2].any()
    assert len([line for line in caplog.messages if "empty" in line]) == 1


@pytest.mark.parametrize("box", [[], [[]], [None], (), [[], [], []]])
def test_a_detector_that_found_nothing_is_told(nodes, good, box):
    frames = max(1, len(box))
    with pytest.raises(Exception, match=r"region(s are| is) empty: mark the subject in it"):
        nodes["Segment"].execute(**{**good["Segment"], "image": picture(frames=frames), "box": box})


def test_numbers_of_other_types_are_taken(nodes, good):
    for grow in (3, 3.0, torch.tensor(3), True):
        nodes["RefineMask"].execute(**{**good["RefineMask"], "grow": grow})
    with pytest.raises(Exception, match=r"grow is 3\.5, expected a whole number from -512 to 512"):
        nodes["RefineMask"].execute(**{**good["RefineMask"], "grow": 3.5})
    with pytest.raises(Exception, match="grow is 900, expected a whole number from -512 to 512"):
        nodes["RefineMask"].execute(**{**good["RefineMask"], "grow": 900})


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (torch.ones(2, 24, 32), "2 marks and 1 masks"),
        (torch.full((1, 24, 32), NAN), "marks has NaN"),
        (torch.ones(0, 24, 32), "marks has 0 frames"),
        (torch.full((1, 24, 32), 255.0), "marks has values from"),
    ],
)
def test_points_that_do_not_fit_are_told_before_the_network_runs(comfy, nodes, good, points, says):
    comfy.progress.clear()
    with pytest.raises(comfy.core.ImageError, match=says):
        nodes["Segment"].execute(**{**good["Segment"], "points": points})
    assert not comfy.progress
