"""A Segmenter takes tensors, arrays, PIL images and paths, and gives masks of the same kind."""

import numpy as np
import pytest
import torch
from PIL import Image

import birefnet_core as bc
from birefnet_core.images import to_bytes
from birefnet_core.inference.image_inputs import as_batch


@pytest.fixture(scope="module")
def segment(filled):
    return bc.Segmenter(bc.model_from_state_dict(filled("smallest")))


@pytest.fixture(scope="module")
def pixels():
    """H, W, 3 bytes."""
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mask(pixels, segment):
    """The mask of these pixels by a batch of images."""
    return segment(torch.from_numpy(pixels)[None].float() / 255, 64)[0]


def test_a_single_tensor_gives_a_single_mask(pixels, mask, segment):
    assert torch.equal(segment(torch.from_numpy(pixels).float() / 255, 64), mask)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "not contiguous", "read-only"])
def test_an_array_gives_an_array(kind, pixels, mask, segment):
    array = pixels if kind == "uint8" else (pixels / 255).astype(np.float64 if kind == "float64" else np.float32)
    array = np.asfortranarray(array) if kind == "not contiguous" else array
    array.flags.writeable = kind != "read-only"  # as arrays of memory maps and other libraries are not
    found = segment(array, 64)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32 and found.shape == pixels.shape[:2]
    np.testing.assert_allclose(found, mask.numpy(), atol=1e-6)


def test_a_batch_of_arrays_gives_a_batch(pixels, mask, segment):
    found = segment(np.stack([pixels, pixels]), 64)
    assert found.shape == (2, *pixels.shape[:2])
    np.testing.assert_allclose(found[1], mask.numpy(), atol=1e-6)


def test_deep_and_grey_arrays_are_scaled(pixels):
    deep = np.full((4, 5, 3), 65535, np.uint16)
    assert as_batch(deep).images.shape == (1, 4, 5, 3) and as_batch(deep).images.min() == 1
    assert as_batch(deep.astype(">u2")).images.min() == 1
    grey = as_batch(pixels[..., 0]).images
    assert grey.shape == (1, 40, 56, 1)
    torch.testing.assert_close(grey[0, ..., 0], torch.from_numpy(pixels[..., 0]).float() / 255)


def test_a_pil_image_of_an_unknown_scale_is_told_once():
    with pytest.raises(bc.ImageError, match=r"^image: has floats from 121.5 to 121.5, expected \[0, 1\]"):
        as_batch(Image.new("F", (4, 4), 121.5))


def test_a_pil_image_gives_a_grey_pil_image(pixels, mask, segment):
    image = Image.fromarray(pixels)
    found = segment(image, 64)
    assert (found.mode, found.size) == ("L", image.size)
    np.testing.assert_array_equal(np.asarray(found), to_bytes(mask))
    image.putalpha(found)  # what people do with it
    assert image.mode == "RGBA"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "F"])
def test_pil_images_of_every_mode_are_read(mode, pixels):
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray((pixels[..., 0] / 255).astype(np.float32))
    else:
        image = image.convert(mode)
    images = as_batch(image).images
    assert images.shape[:3] == (1, 40, 56) and images.min() >= 0 and 0.5 < images.max() <= 1
    assert image.mode == mode  # and is left as it was


def test_what_alpha_hides_is_not_the_subject(pixels, segment):
    hidden = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    assert np.asarray(segment(Image.fromarray(hidden), 64)).max() == 0
    assert segment(hidden, 64).max() == 0


@pytest.mark.parametrize("make", [str, lambda path: path])
def test_a_path_gives_a_pil_image(make, pixels, mask, segment, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(np.asarray(segment(make(path), 64)), to_bytes(mask))


def test_a_file_is_turned_upright_and_an_image_in_memory_is_not(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert as_batch(tmp_path / "turned.png").images.shape == (1, 56, 40, 3)
    with Image.open(tmp_path / "turned.png") as image:
        assert as_batch(image).images.shape == (1, 40, 56, 3)


NESTED = torch.nested.nested_tensor([torch.zeros(9, 9, 3), torch.zeros(5, 9, 3)])
BAD = {
    "a missing file": ("no/such.png", "no such file"),
    "channels first": (np.zeros((3, 9, 9), np.uint8), "channels come last"),
    "a vector": (np.zeros(9, np.uint8), "expected H, W"),
    "two channels": (np.zeros((9, 9, 2), np.uint8), r"shape \(9, 9, 2\)"),
    "whole numbers": (np.zeros((9, 9, 3), np.int32), "array of int32"),
    "switches": (np.zeros((9, 9, 3), bool), "array of bool"),
    "text": (np.full((9, 9, 3), "x"), "array of <U1"),
    "floats to 255": (np.full((9, 9, 3), 200.0), "divide bytes by 255"),
    "NaN": (np.full((9, 9, 3), np.nan), "NaN"),
    "no pixels": (np.zeros((0, 9, 3), np.uint8), "at least one pixel"),
    "an empty image": (Image.new("RGB", (0, 5)), "no pixels"),
    "bytes": (b"png", "images is bytes"),
    "None": (None, "images is NoneType"),
    "a tensor of bytes": (torch.zeros(9, 9, 3, dtype=torch.uint8), "divide bytes by 255"),
    "no values": (torch.zeros(1, 9, 9, 3, device="meta"), "images is a meta tensor"),
    "no values, single": (torch.zeros(9, 9, 3, device="meta"), "images is a meta tensor"),
    "sparse": (torch.zeros(1, 9, 9, 3).to_sparse(), "images is a sparse tensor"),
    "of several sizes": (NESTED, "images is a nested tensor"),
}


@pytest.mark.parametrize("kind", BAD)
def test_others_are_refused_with_a_sentence(kind, segment):
    value, words = BAD[kind]
    with pytest.raises(bc.ImageError, match=words):
        segment(value, 64)


def test_a_damaged_image_is_named(tmp_path, pixels):
    path = tmp_path / "cut.png"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with Image.open(path) as image, pytest.raises(bc.ImageError, match=r"cut\.png"):
        as_batch(image)
