"""Trimap, Despill, Crop Around Subject, Stitch Back, and the nodes that point at a subject: the same as the core."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module")
def run(comfy):
    nodes = {node.__name__.removeprefix("BiRefNet"): node for node in comfy.nodes.NODES}
    defaults = comfy.compat.default_inputs
    return lambda name, **inputs: nodes[name].execute(**{**defaults(nodes[name]), **inputs}).result


@pytest.fixture(scope="module")
def masks(comfy):
    import importlib

    return importlib.import_module(f"{comfy.core.__name__}.masks")


def image(height=60, width=80, channels=3):
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(0))


def disc(height=60, width=80):
    mask = torch.zeros(1, height, width)
    mask[:, 20:44, 16:56] = 1
    return mask


def test_a_trimap_and_its_band(run, masks):
    trimap, band = run("Trimap", mask=disc(), inside=3, outside=5)
    assert torch.equal(trimap, masks.make_trimap(disc(), 3, 5))
    assert torch.equal(band, (trimap == 0.5).float()) and band.any()


def test_despill_knows_its_screens(run, masks):
    expected = masks.remove_spill(image(), "#0000ff")
    assert torch.equal(run("Despill", image=image(), screen="blue")[0], expected)
    assert torch.equal(run("Despill", image=image(), screen="color", color="#0000ff")[0], expected)
    teal = image() * torch.tensor([0.2, 0.9, 0.8])
    measured = masks.remove_spill(teal, masks.background_color(teal, disc()), masks=disc())
    assert torch.equal(run("Despill", image=teal, screen="background", mask=disc())[0], measured)
    with pytest.raises(Exception, match="mask is not connected"):
        run("Despill", image=image(), screen="background")
    with pytest.raises(Exception, match="connect the mask, or set edge_width to 0"):
        run("Despill", image=image(), edge_width=4)


def test_despill_keeps_alpha_and_takes_it_as_the_mask(run):
    teal = image() * torch.tensor([0.2, 0.9, 0.8])
    cutout = torch.cat([teal, disc()[..., None]], dim=-1)
    result = run("Despill", image=cutout, screen="background", edge_width=4)[0]
    expected = run("Despill", image=teal, screen="background", edge_width=4, mask=disc())[0]
    assert torch.equal(result, torch.cat([expected, disc()[..., None]], dim=-1))


def test_a_cut_out_goes_with_many_masks(run):
    cutout = torch.cat([image(), disc()[..., None]], dim=-1)
    several = torch.cat([disc(), disc().flip(2)])
    result = run("Despill", image=cutout, edge_width=4, mask=several)[0]
    assert torch.equal(result[1:], run("Despill", image=cutout, edge_width=4, mask=several[1:])[0])
    assert torch.equal(result[..., 3], disc().expand(2, -1, -1))


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize(
    ("mask", "alpha", "told"),
    [
        (torch.zeros(1, 64, 64), 1, True),  # as Load Image gives it
        (torch.zeros(2, 60, 80), 1, True),
        (disc(), 0, True),
        (disc(), 1, False),
        (torch.cat([disc() * 0, disc()]), 1, False),  # a frame without a subject among others
        (torch.full((1, 60, 80), 1e-4), 1, False),  # the faint haze of a network
    ],
)
def test_a_cut_out_of_which_nothing_is_left_is_told(run, caplog, mask, alpha, told, crop):
    picture = torch.cat([image(), torch.full((1, 60, 80, 1), float(alpha))], dim=-1)
    cutout, result = run("ApplyAlpha", image=picture, mask=mask, crop=crop)
    assert ["Invert Mask turns them round" in line for line in caplog.messages] == [True] * told
    assert result.any() != told and torch.equal(cutout[..., 3], result)


def test_alpha_is_looked_at_as_colours_are(run):
    cutout = torch.cat([image(), disc()[..., None] * 1.1], dim=-1)  # as enlarged ones are
    assert torch.equal(run("Despill", image=cutout)[0][..., 3], disc())
    cutout[0, 3, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="alpha of image has NaN"):
        run("Despill", image=cutout, mask=disc())


def test_despill_refuses_to_measure_the_background_of_a_cut_out(run):
    picture = torch.tensor([0.2, 0.3, 0.7]).lerp(torch.tensor([0.8, 0.5, 0.4]), disc()[..., None])
    cutout, mask = run("ApplyAlpha", image=picture, mask=disc())
    for given in ({}, {"mask": mask}):
        with pytest.raises(ValueError, match="Connect the image before Apply Alpha"):
            run("Despill", image=cutout, screen="background", **given)
    assert torch.equal(
        run("Despill", image=picture, mask=mask, screen="background")[0][disc() > 0], picture[disc() > 0]
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_crop_goes_back_to_the_bit(run, channels):
    original = image(channels=channels)
    crop, mask, stitch = run("CropAroundSubject", image=original, mask=disc())
    assert crop.shape[:3] == mask.shape and crop.shape[1] % 8 == 0
    whole = original.expand(-1, -1, -1, max(3, channels))
    assert torch.equal(run("StitchBack", stitch=stitch, image=crop)[0], whole)
    changed = run("StitchBack", stitch=stitch, image=torch.zeros_like(crop[..., :3]), mask=mask, blend=0)[0]
    assert not changed[..., :3][disc() > 0].any()
    assert torch.equal(changed[disc() == 0], whole[disc() == 0])
    of_the_whole = run("StitchBack", stitch=stitch, image=torch.zeros_like(crop[..., :3]), mask=disc(), blend=0)[0]
    assert torch.equal(of_the_whole, changed)


def png_that_claims(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))


HUGE = png_that_claims(60_000, 60_000)


def test_points_and_paint_become_marks(run, comfy):
    folder = Path(comfy.folders.get_input_directory())
    folder.mkdir(exist_ok=True)
    painted = np.zeros((60, 80, 4), np.uint8)
    painted[10:20, 30:50] = (255, 0, 0, 255)
    Image.fromarray(painted).save(folder / "strokes.png")
    (marks,) = run("PointAtSubject", image=image(), mask="strokes.png", coordinates='[{"x": 5, "y": 50}]')
    expected = torch.zeros(1, 60, 80)
    expected[:, 10:20, 30:50] = 1
    for y, x in ((50, 5), (49, 5), (51, 5), (50, 4), (50, 6)):
        expected[0, y, x] = 1
    assert torch.equal(marks, expected)
    assert not run("PointAtSubject", image=image(), mask="")[0].any()
    larger = run("PointAtSubject", image=image(120, 160), mask="strokes.png")[0]
    assert larger.shape == (1, 120, 160) and larger[0, 30, 80] == 1


def test_paint_that_is_gone_or_elsewhere_is_told(run, comfy, tmp_path):
    Image.new("RGBA", (4, 4), "red").save(tmp_path / "outside.png")
    node = next(n for n in comfy.nodes.NODES if n.__name__ == "BiRefNetPointAtSubject")
    for name in ("gone.png", str(tmp_path / "outside.png"), "../../outside.png"):
        with pytest.raises(Exception, match="paint again"):
            run("PointAtSubject", image=image(), mask=name)
        assert node.fingerprint_inputs(mask=name) == "" or "outside" not in node.fingerprint_inputs(mask=name)
    assert node.fingerprint_inputs(mask=None) == node.fingerprint_inputs(mask="") == ""


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(50), HUGE, b"qoif" + bytes(9), b"DDS " + bytes(200)]
)
def test_paint_that_is_damaged_is_told(run, comfy, content):
    folder = Path(comfy.folders.get_input_directory())
    folder.mkdir(exist_ok=True)
    (folder / "damaged.png").write_bytes(content)
    with pytest.raises(Exception, match="paint again") as error:
        run("PointAtSubject", image=image(), mask="damaged.png")
    assert any(kind.__name__ == "ImageError" for kind in type(error.value).__mro__)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000, "d/" * 3000, "\udc80.png"])
def test_paint_of_names_that_no_file_has_is_told(run, comfy, name):
    node = next(n for n in comfy.nodes.NODES if n.__name__ == "BiRefNetPointAtSubject")
    assert node.fingerprint_inputs(mask=name) == ""
    with pytest.raises(Exception, match="paint again"):
        run("PointAtSubject", image=image(), mask=name)


def test_a_box_is_passed_on(run):
    box = {"x": 3, "y": 4, "width": 50, "height": 60}
    assert run("BoxSubject", image=image(), region=box) == (box,)


def test_a_comfyui_without_canvas_widgets_lacks_only_the_nodes_that_need_them(comfy):
    assert comfy.compat.HAS_CANVAS
    names = [node.__name__ for node in comfy.nodes.NODES]
    assert names[-2:] == ["BiRefNetPointAtSubject", "BiRefNetBoxSubject"]
