"""Ground truths whose levels compression, soft edges or sheer number hide: labels are doubted, mattes are not."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from birefnet_core.mask_files import read_mask
from birefnet_core.mask_values import FAINT, FLAT, LOSSY, VALUES


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("grey", [128, 150, 200, 220])
@pytest.mark.parametrize("how", ["jpg", "webp", "soft edge"])
def test_one_grey_on_black_is_doubted_however_many_values_its_edges_have(tmp_path, grey, how):
    amount = np.clip((60 - np.hypot(*np.mgrid[-80:80, -100:100])) / (4 if how == "soft edge" else 0.1), 0, 1)
    path = tmp_path / ("a.png" if how == "soft edge" else f"a.{how}")
    assert FLAT in read_mask(save(path, np.rint(amount * grey).astype(np.uint8), quality=75)).doubts


@pytest.mark.parametrize("quality", [60, 75, 90])
def test_compressed_labels_are_doubted(tmp_path, quality):
    y, x = np.mgrid[:240, :320]
    array = np.array([0, 85, 170, 255], np.uint8)[(x // 75 + y // 110) % 4]
    assert FLAT in read_mask(save(tmp_path / "a.jpg", array, quality=quality)).doubts


@pytest.mark.parametrize("labels", [(2, 2), (20, 20), (5, 15), (1, 3)])
@pytest.mark.parametrize("quality", [50, 75, 90, 95])
def test_labels_that_compression_changed_are_doubted(tmp_path, labels, quality):
    y, x = np.mgrid[:240, :320]
    array = sum(np.where(np.hypot(y - 120, x - 90 - 140 * n) < 40, labels[n], 0) for n in range(2))
    assert LOSSY in read_mask(save(tmp_path / "a.jpg", array.astype(np.uint8), quality=quality)).doubts
    assert not read_mask(save(tmp_path / "a.png", array.astype(np.uint8))).doubts


def test_more_labels_than_a_class_list_has_are_doubted(tmp_path):
    y, x = np.mgrid[:400, :600]
    cells = np.where(np.hypot(y % 30 - 15, x % 35 - 17) < 13, 1 + y // 30 * 18 + x // 35, 0)
    mask = read_mask(save(tmp_path / "a.png", cells.astype(np.uint8)))
    assert mask.doubts == (FLAT,)


@pytest.mark.parametrize("blur", [1, 3, 10, 30])
@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("kind", ["edge", "fade", "glass"])
def test_soft_mattes_are_no_areas_of_grey(tmp_path, blur, quality, kind):
    shape = Image.fromarray((np.hypot(*np.mgrid[-200:200, -300:300]) < 150).astype(np.uint8) * np.uint8(255))
    matte = np.asarray(shape.filter(ImageFilter.GaussianBlur(blur))) / 255
    if kind == "fade":
        matte = matte * np.linspace(0, 1, 400)[:, None]
    elif kind == "glass":
        clouds = np.random.default_rng(0).random((9, 9), np.float32)
        matte = matte * np.asarray(Image.fromarray(clouds).resize((600, 400), Image.Resampling.BILINEAR))
    assert not read_mask(save(tmp_path / "a.jpg", np.rint(matte * 255).astype(np.uint8), quality=quality)).doubts


def test_a_full_mask_that_was_compressed_is_full(tmp_path):
    noise = np.random.default_rng(0).integers(249, 256, (60, 80)).astype(np.uint8)
    assert not read_mask(save(tmp_path / "a.png", noise)).doubts


@pytest.mark.parametrize("top", [7, 12, 30])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_soft_mask_of_a_few_dark_levels_is_not_taken_for_labels(tmp_path, top, dtype):
    radius = np.hypot(*np.mgrid[-80:80, -100:100])
    soft = np.rint(np.clip((70 - radius) / 40, 0, 1) * top).astype(dtype)
    assert read_mask(save(tmp_path / "a.png", soft)).doubts == (FAINT,)
    blocks = np.random.default_rng(0).permutation(np.arange(200) % (top + 1)).reshape(10, 20)
    assert read_mask(save(tmp_path / "b.png", blocks.repeat(16, 0).repeat(10, 1).astype(dtype))).notes == (VALUES,)
    y, x = np.mgrid[:160, :200]
    cells = np.where(np.hypot(y % 40 - 20, x % 40 - 20) < 15, (y // 40 * 5 + x // 40) % top + 1, 0).astype(dtype)
    assert top > 20 or read_mask(save(tmp_path / "c.png", cells)).notes == (VALUES,)
