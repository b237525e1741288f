"""What a mask file of any kind is read as, by training and by scoring."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from birefnet_core.errors import DatasetError
from birefnet_core.mask_files import read_mask
from birefnet_core.mask_values import ALPHA, COLOUR, FAINT, LABELS, NO_BACKGROUND, PALETTE

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def write(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "pgm", "gif"])
def test_lossless_formats_read_alike(tmp_path, ending):
    options = {"lossless": True} if ending == "webp" else {}
    mask = read_mask(write(tmp_path / f"a.{ending}", GREY, **options))
    assert np.array_equal(mask.pixels, GREY)
    assert mask.notes == ((COLOUR,) if ending == "webp" else ())  # which knows nothing but colours


def test_jpeg_reads_as_opencv_does(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    path = write(tmp_path / "a.jpg", colours, quality=90)
    assert np.array_equal(read_mask(path).pixels, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_is_noted_and_turns_grey_as_in_opencv(tmp_path, channels):
    colours = np.random.default_rng(0).integers(0, 256, (80, 90, channels), dtype=np.uint8)
    path = write(tmp_path / "a.png", colours)
    mask = read_mask(path, labels=False)
    assert np.array_equal(mask.pixels, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert mask.notes == ((COLOUR,) if channels == 3 else (COLOUR, ALPHA))


def test_grey_saved_in_colour_keeps_its_values(tmp_path):
    assert np.array_equal(read_mask(write(tmp_path / "a.png", GREY, "RGB")).pixels, GREY)


def test_alpha_of_a_prediction_is_ignored_and_noted(tmp_path):
    mask = read_mask(write(tmp_path / "a.png", np.stack([GREY, GREY[::-1]], axis=-1)), labels=False)
    assert np.array_equal(mask.pixels, GREY)
    assert mask.notes == (ALPHA,)


def test_one_bit_and_palette_files(tmp_path):
    black_and_white = np.where(GREY > 99, 255, 0).astype(np.uint8)
    assert np.array_equal(read_mask(write(tmp_path / "a.png", black_and_white, "1")).pixels, black_and_white)
    assert np.array_equal(read_mask(write(tmp_path / "b.png", GREY, "P")).pixels, GREY)


def test_a_palette_of_colours_holds_labels(tmp_path):
    labels = np.array([[0, 1, 2, 0]], np.uint8)
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 1, 0])
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.pixels.tolist() == [[0, 255, 255, 0]]
    assert mask.notes == (PALETTE,)
    assert mask.has_labels


def test_labels_0_and_1_are_black_and_white_in_a_ground_truth_only(tmp_path):
    path = write(tmp_path / "a.png", np.array([[0, 1]], np.uint8))
    truth, prediction = read_mask(path), read_mask(path, labels=False)
    assert (truth.pixels.tolist(), truth.notes, truth.has_labels) == ([[0, 255]], (LABELS,), True)
    assert (prediction.pixels.tolist(), prediction.notes, prediction.has_labels) == ([[0, 1]], (), False)


def test_16_bits_are_kept(tmp_path):
    wide = np.random.default_rng(0).integers(0, 1 << 16, (9, 9)).astype(np.uint16)
    mask = read_mask(write(tmp_path / "a.png", wide))
    assert mask.pixels.dtype == np.uint16
    assert np.array_equal(mask.pixels, wide)
    assert np.allclose(mask.values, wide / 65535, atol=1e-7)


def test_floats_are_taken_in_0_1(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[0, 0.5, 1]], np.float32))
    assert read_mask(path).values.tolist() == [[0, 0.5, 1]]


@pytest.mark.parametrize("value", [np.nan, 7, -0.1])
def test_floats_that_are_no_mask_are_refused_by_name(tmp_path, value):
    path = write(tmp_path / "broken.tif", np.array([[0, value]], np.float32))
    with pytest.raises(DatasetError, match=r"broken\.tif has values"):
        read_mask(path)


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty", "missing"])
def test_unreadable_files_are_refused_by_name(tmp_path, damage):
    path = write(tmp_path / "broken.png", np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "noise": b"no image at all", "empty": b""}[damage])
    with pytest.raises(DatasetError, match=r"broken\.png"):
        read_mask(path)


@pytest.mark.parametrize("ending", [".png", ".eps", ".jpg"])
def test_no_format_is_read_whose_reader_starts_a_program(tmp_path, monkeypatch, ending):
    from birefnet_core.training.data.preflight import image_thumbnail
    from birefnet_core.training.data.reading import read_cutout

    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (read_mask, read_cutout, image_thumbnail):
        with pytest.raises(DatasetError, match=r"cannot be read|not an image"):
            read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("values", "note"), [((0, 1), LABELS), ((-1, 1), NO_BACKGROUND), ((-128, 127), NO_BACKGROUND), ((-60, 60), FAINT)]
)
def test_signed_bytes_of_tiff_are_not_taken_for_unsigned(tmp_path, values, note):
    """Arrays of int8, as tifffile writes them: -1 is no 255."""
    pixels = np.full((16, 16), values[0], np.int8)
    pixels[4:12, 4:12] = values[1]
    if note is FAINT:
        pixels[:4] = np.arange(64).reshape(4, 16)
    path = write(tmp_path / "a.tif", pixels.view(np.uint8), tiffinfo={339: 2})
    mask = read_mask(path)
    assert note in mask.notes
    prediction = read_mask(path, labels=False)
    assert np.array_equal(prediction.pixels, np.maximum(pixels, 0))
