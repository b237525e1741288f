"""Images and masks that are empty, do not fit, are transparent or one pixel: every node, over stand-ins for ComfyUI."""

import pytest
import torch

GUIDED = {"guided_radius": 2, "temporal_radius": 1}


@pytest.fixture(scope="module")
def run(comfy, small_file):
    """Executes a node by the end of its id, with the values given and its defaults."""
    nodes = {node.__name__.removeprefix("BiRefNet"): node for node in comfy.nodes.NODES}
    options = comfy.compat.default_inputs(nodes["LoadModel"], "model")
    loaded = nodes["LoadModel"].execute(small_file, **options).result[0]

    def execute(name, **inputs):
        given = {"model": loaded, **inputs} if name == "Segment" else inputs
        return nodes[name].execute(**{**comfy.compat.default_inputs(nodes[name]), **given}).result

    return execute


def image(frames=1, height=20, width=30, channels=3):
    return torch.rand(frames, height, width, channels, generator=torch.Generator().manual_seed(0))


def mask(frames=1, height=20, width=30):
    return torch.rand(frames, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "inputs", "says"),
    [
        ("Segment", {"image": image(0)}, "at least one image"),
        ("Segment", {"image": image(2), "region": mask(0)}, "region mask has no pixels"),
        ("RefineMask", {"mask": mask(0)}, "0 frames"),
        ("RefineMask", {"mask": mask(), "image": image(0), **GUIDED}, "0 frames"),
        ("ApplyAlpha", {"image": image(0), "mask": mask()}, "0 frames"),
        ("ApplyAlpha", {"image": image(), "mask": mask(0)}, "0 frames"),
        (
            "ApplyAlpha",
            {"image": image(), "mask": mask(), "background": image(0), "output": "over background"},
            "backgrounds has 0 frames",
        ),
        ("CompareMasks", {"mask": mask(0), "ground_truth": mask()}, "0 frames"),
        ("CompareMasks", {"mask": mask(), "ground_truth": mask(0)}, "0 frames"),
    ],
)
def test_no_frames_are_told(run, name, inputs, says):
    with pytest.raises(Exception, match=says):
        run(name, **inputs)


@pytest.mark.parametrize(
    ("name", "inputs", "says"),
    [
        ("Segment", {"image": image(3), "region": mask(2)}, "2 regions for 3 images"),
        ("Segment", {"image": image(3), "box": [{"x": 0, "y": 0, "width": 9, "height": 9}] * 2}, "2 regions for 3"),
        ("RefineMask", {"mask": mask(3), "image": image(2), **GUIDED}, "2 frames and masks has 3"),
        ("ApplyAlpha", {"image": image(2), "mask": mask(3)}, "2 frames and masks has 3"),
        (
            "ApplyAlpha",
            {"image": image(3), "mask": mask(3), "background": image(2), "output": "over background"},
            "3 frames and backgrounds has 2",
        ),
        ("CompareMasks", {"mask": mask(2), "ground_truth": mask(3)}, "2 frames and truths has 3"),
    ],
)
def test_numbers_that_do_not_fit_are_told(run, name, inputs, says):
    with pytest.raises(Exception, match=says):
        run(name, **inputs)


@pytest.mark.parametrize(
    ("name", "inputs", "shape"),
    [
        ("Segment", {"image": image(), "region": 0.5 + mask(1, 7, 9) / 2}, (1, 20, 30)),
        ("RefineMask", {"mask": mask(), "image": image(1, 40, 50), **GUIDED}, (1, 20, 30)),
        ("ApplyAlpha", {"image": image(), "mask": mask(1, 50, 40)}, (1, 20, 30, 4)),
        ("CompareMasks", {"mask": mask(1, 50, 40), "ground_truth": mask()}, None),
    ],
)
def test_sizes_that_differ_are_fitted(run, name, inputs, shape):
    result = run(name, **inputs)
    assert result[1].shape == (1, 20, 30, 3) if shape is None else result[0].shape == shape


@pytest.mark.parametrize("given", [None, [1], "image", image()[0, 0], image(channels=5)])
@pytest.mark.parametrize(
    ("name", "more"), [("Segment", {}), ("ApplyAlpha", {"mask": mask()}), ("RefineMask", {"mask": mask(), **GUIDED})]
)
def test_other_things_than_images_are_told(run, name, more, given):
    if name == "RefineMask" and given is None:
        return  # its image is optional
    with pytest.raises(ValueError, match=r"expected (an image|images B x H x W)"):
        run(name, image=given, **more)


@pytest.mark.parametrize("shape", [(20, 30), (1, 1, 20, 30), (1, 20, 30, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_masks_of_other_nodes_are_taken_in_any_shape(run, shape, dtype):
    given = (mask() > 0.5).to(dtype)
    for name, key, more in (
        ("Segment", "region", {"image": image()}),
        ("RefineMask", "mask", {"feather": 1.0}),
        ("ApplyAlpha", "mask", {"image": image()}),
    ):
        expected = run(name, **{key: given.float()}, **more)
        assert torch.equal(run(name, **{key: given.reshape(shape)}, **more)[0], expected[0]), name


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("Segment", {}),
        ("RefineMask", {"mask": mask(), **GUIDED}),
        ("ApplyAlpha", {"mask": mask()}),
        ("ApplyAlpha", {"mask": mask(), "background": image(channels=4), "output": "over background"}),
    ],
)
def test_colours_that_alpha_hides_do_not_count(run, name, inputs):
    transparent = image(channels=4)
    transparent[:, 5:15, 5:15, 3], transparent[:, 15:, :, 3] = 0, 1
    other = transparent.clone()
    other[:, 5:15, 5:15, :3] = 0.3
    result, expected = (run(name, **inputs, image=images)[0] for images in (transparent, other))
    assert torch.equal(result[..., 3:] if result.ndim == 4 and result.shape[-1] == 4 else result,
                       expected[..., 3:] if result.ndim == 4 and result.shape[-1] == 4 else expected)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "inputs"), [("Segment", {}), ("RefineMask", {"mask": mask(), **GUIDED}), ("ApplyAlpha", {"mask": mask()})]
)
def test_an_image_with_full_alpha_is_one_without(run, name, inputs):
    opaque = torch.cat([image(), torch.ones(1, 20, 30, 1)], dim=-1)
    assert torch.equal(run(name, **inputs, image=opaque)[0], run(name, **inputs, image=image())[0])


def test_a_mask_is_limited_to_what_is_visible(run):
    transparent = image(channels=4)
    transparent[:, :10, :, 3] = 0
    assert not run("Segment", image=transparent)[0][:, :10].any()
    cutout, alpha = run("ApplyAlpha", image=transparent, mask=torch.ones(1, 20, 30))
    assert torch.equal(alpha, transparent[..., 3]) and torch.equal(cutout[..., 3], alpha)
    # The mask of such an image is limited already: doing so twice changes nothing.
    assert torch.equal(run("ApplyAlpha", image=transparent, mask=alpha)[1], alpha)


def test_a_transparent_background_shows_the_colour(run):
    clear = torch.cat([image(), torch.zeros(1, 20, 30, 1)], dim=-1)
    inputs = {"image": image(), "mask": torch.zeros(1, 20, 30), "output": "over background", "color": "#0000ff"}
    assert torch.equal(run("ApplyAlpha", **inputs, background=clear)[0][0, 3, 3], torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("Segment", {}),
        ("Segment", {"tiled": True, "flip": True, "region": torch.ones(1, 1, 1)}),
        ("Segment", {"size": "native", "box": {"x": 0, "y": 0, "width": 1, "height": 1}}),
        (
            "RefineMask",
            {
                "mask": mask(1, 1, 1), "black_point": 0.1, "white_point": 0.9, "keep_largest": True, "grow": 5,
                "min_island_area": 2, "max_hole_area": 2, "smooth_edge": 2.0, "feather": 3.0, "invert": True, **GUIDED,
            },
        ),
        ("ApplyAlpha", {"mask": mask(1, 1, 1), "crop": True}),
        ("ApplyAlpha", {"mask": mask(1, 1, 1), "colors": "blur fusion", "output": "RGBA premultiplied"}),
        ("ApplyAlpha", {"mask": mask(1, 1, 1), "background": image(1, 1, 1), "output": "over background"}),
    ],
)  # fmt: skip
def test_a_single_pixel_works(run, name, inputs):
    result = run(name, **inputs, image=image(1, 1, 1))[0]
    assert result.shape[:3] == (1, 1, 1) and result.isfinite().all()


def test_a_single_pixel_is_compared(run):
    text, picture, *scores = run("CompareMasks", mask=torch.ones(1, 1, 1), ground_truth=torch.ones(1, 1, 1))
    assert picture.shape == (1, 1, 1, 3) and "MAE 0.0000" in text and len(scores) == 10
