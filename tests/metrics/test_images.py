import numpy as np
import pytest
from PIL import Image

from birefnet_core.errors import DatasetError, ImageError
from birefnet_core.metrics.images import ALPHA, COLOUR, read_mask

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def write(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "pgm", "gif"])
def test_lossless_formats_read_alike(tmp_path, ending):
    options = {"lossless": True} if ending == "webp" else {}
    pixels, notes = read_mask(write(tmp_path / f"a.{ending}", GREY, **options))
    assert np.array_equal(pixels, GREY)
    assert notes == ((COLOUR,) if ending == "webp" else ())  # which knows nothing but colours


def test_jpeg_reads_as_opencv_does(tmp_path):
    cv2 = pytest.importorskip("cv2")
    colours = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    path = write(tmp_path / "a.jpg", colours, quality=90)
    assert np.array_equal(read_mask(path)[0], cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_is_noted_and_turns_grey_as_in_opencv(tmp_path, channels):
    cv2 = pytest.importorskip("cv2")
    colours = np.random.default_rng(0).integers(0, 256, (80, 90, channels), dtype=np.uint8)
    path = write(tmp_path / "a.png", colours)
    pixels, notes = read_mask(path)
    assert np.array_equal(pixels, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert notes == ((COLOUR,) if channels == 3 else (COLOUR, ALPHA))


def test_grey_saved_in_colour_keeps_its_values(tmp_path):
    assert np.array_equal(read_mask(write(tmp_path / "a.png", GREY, "RGB"))[0], GREY)


def test_alpha_is_ignored_and_noted(tmp_path):
    pixels, notes = read_mask(write(tmp_path / "a.png", np.stack([GREY, GREY[::-1]], axis=-1)))
    assert np.array_equal(pixels, GREY)
    assert notes == (ALPHA,)


def test_one_bit_and_palette_files(tmp_path):
    black_and_white = np.where(GREY > 99, 255, 0).astype(np.uint8)
    assert np.array_equal(read_mask(write(tmp_path / "a.png", black_and_white, "1"))[0], black_and_white)
    assert np.array_equal(read_mask(write(tmp_path / "b.png", GREY, "P"))[0], GREY)


def test_16_bits_lose_the_low_byte(tmp_path):
    wide = np.random.default_rng(0).integers(0, 1 << 16, (9, 9)).astype(np.uint16)
    assert np.array_equal(read_mask(write(tmp_path / "a.png", wide))[0], wide >> 8)


def test_floats_are_taken_in_0_1(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[0, 0.5, 1]], np.float32))
    assert read_mask(path)[0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("value", [np.nan, 7])
def test_floats_that_are_no_mask_are_refused_by_name(tmp_path, value):
    path = write(tmp_path / "broken.tif", np.array([[0, value]], np.float32))
    with pytest.raises(ImageError, match=r"broken\.tif"):
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
