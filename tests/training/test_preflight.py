"""Dataset validation: bad input of every kind."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core import DatasetError
from birefnet_core.mask_files import read_mask
from birefnet_core.training import TrainingData, load_datasets
from birefnet_core.training.data import Pair, find_set
from birefnet_core.training.data.folders import hold_out
from birefnet_core.training.data.preflight import validate_dataset, validate_pair
from birefnet_core.training.data.reading import read_pair

from .conftest import draw_shape, write_shapes


@pytest.fixture
def folder(tmp_path):
    return write_shapes(tmp_path / "set", 4)


def test_good_data_pass(folder):
    report = validate_dataset(find_set(folder))
    assert len(report.check()) == 4
    assert report.problems == report.warnings == ()
    assert "smallest 96 x 96" in report.text()


@pytest.mark.parametrize("level", [1.0, 0.4])
def test_a_grey_object_cut_out_of_its_image_is_no_mask(tmp_path, level):
    image, mask = draw_shape(0)
    noise = np.random.RandomState(0).rand(12, 12)
    noise = np.array(Image.fromarray((noise * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR))
    photo = np.array(image.convert("L")) // 2 + (noise * level / 2).astype(np.uint8)
    for folder in ("im", "gt"):
        (tmp_path / folder).mkdir()
    Image.fromarray(photo).save(tmp_path / "im/a.png")
    Image.fromarray(np.where(np.array(mask) > 0, photo, 0)).save(tmp_path / "gt/a.png")
    (one,) = validate_dataset(find_set(tmp_path)).pairs
    assert "shows the same as its image" in one.problem
    mask.save(tmp_path / "gt/a.png")
    (one,) = validate_dataset(find_set(tmp_path)).pairs
    assert one.problem is None


def test_a_split_that_leaves_one_kind_of_mask_is_told(folder, tiny_recipe):
    data = TrainingData(sets=(folder,))
    training, (held,) = hold_out(find_set(folder).pairs, 0.1)
    Image.new("L", (96, 96)).save(held.mask)
    assert "every mask held out for validation is empty" in load_datasets(tiny_recipe(), data).text
    Image.new("L", (96, 96), 255).save(held.mask)
    for pair in training:
        Image.new("L", (96, 96)).save(pair.mask)
    with pytest.raises(DatasetError, match="every mask to train on is empty, apart from those held out"):
        load_datasets(tiny_recipe(), data)


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode")
def test_folders_and_backgrounds_may_have_names_that_are_not_unicode(tmp_path, tiny_recipe):
    data = write_shapes(tmp_path / os.fsdecode(b"b\xfcrste"), 2)
    (tmp_path / "backgrounds").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "backgrounds/a.png")
    (tmp_path / "backgrounds/a.png").rename(tmp_path / "backgrounds" / os.fsdecode(b"\xe9.png"))
    found = load_datasets(tiny_recipe(), TrainingData(sets=(data,), backgrounds=tmp_path / "backgrounds"))
    assert found.training.pairs[0].name.startswith(r"b\udcfcrste/shape0")
    assert found.fingerprint != found.background_fingerprint


def test_truncated_image_stops_with_its_name_or_is_skipped(folder):
    path = folder / "im/shape01.png"
    path.write_bytes(path.read_bytes()[:200])
    report = validate_dataset(find_set(folder))
    with pytest.raises(DatasetError, match=r"1 of 4 pairs cannot be used:\n.*shape01.png(.|\n)*--skip-bad"):
        report.check()
    assert len(report.check(skip_bad=True)) == 3


def test_truncated_jpeg_is_found(tmp_path):
    (tmp_path / "im").mkdir()
    (tmp_path / "gt").mkdir()
    noise = np.random.RandomState(0).randint(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "im/a.jpg")
    Image.new("L", (200, 200), 255).save(tmp_path / "gt/a.png")
    path = tmp_path / "im/a.jpg"
    path.write_bytes(path.read_bytes()[:5000])
    (one,) = validate_dataset(find_set(tmp_path)).pairs
    assert "cannot be read" in one.problem


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("kind", ["floats", "integers", "PNG", "JPEG", "EPS"])
def test_what_training_cannot_read_is_found_under_any_ending(tmp_path, kind, ending):
    for name in ("im", "gt"):
        (tmp_path / name).mkdir()
    values = np.random.default_rng(0).random((40, 40))
    pixels = {"floats": (50 * values).astype(np.float32), "integers": (900_000 * values).astype(np.int32)}
    image = Image.fromarray(pixels.get(kind, (255 * values).astype(np.uint8)))
    image.save(tmp_path / f"im/a.{ending}", kind if kind.isupper() else "TIFF")
    Image.new("L", (40, 40), 255).save(tmp_path / "gt/a.png")
    (pair,) = find_set(tmp_path).pairs
    problem = validate_pair(pair).problem
    assert (problem is None) == (kind in ("PNG", "JPEG"))
    if problem is None:
        read_pair(pair)
    else:
        with pytest.raises(DatasetError):
            read_pair(pair)


def test_mask_of_another_shape_is_a_problem_and_of_another_scale_a_warning(folder):
    Image.open(folder / "gt/shape00.png").resize((96, 50)).save(folder / "gt/shape00.png")
    Image.open(folder / "gt/shape01.png").resize((48, 48)).save(folder / "gt/shape01.png")
    report = validate_dataset(find_set(folder))
    assert "96 x 50 pixels, its image 96 x 96" in report.problems[0]
    assert any("another scale" in warning for warning in report.warnings)
    colours, mask = read_pair(find_set(folder).pairs[1])
    assert mask.shape == colours.shape[:2]


def test_empty_inverted_and_unpaired_masks_are_warned_of(folder):
    Image.new("L", (96, 96)).save(folder / "gt/shape00.png")
    mask = np.asarray(Image.open(folder / "gt/shape01.png"))
    Image.fromarray(255 - mask).save(folder / "gt/shape01.png")
    (folder / "gt/shape02.png").unlink()
    text = "\n".join(validate_dataset(find_set(folder)).warnings)
    assert "1 masks are empty (set/shape00)" in text
    assert "1 masks look inverted" in text
    assert "1 images have no mask" in text


def test_all_masks_empty_is_refused(folder):
    for path in (folder / "gt").iterdir():
        Image.new("L", (96, 96)).save(path)
    with pytest.raises(DatasetError, match="every mask is empty"):
        validate_dataset(find_set(folder)).check()


def test_flat_grey_is_half_transparent_to_a_matting_network(folder):
    matte = np.zeros((96, 96), np.uint8)
    matte[20:70, 20:70], matte[30:60, 30:60] = 255, 128
    Image.fromarray(matte).save(folder / "gt/shape00.png")
    assert "train with --matting, if it is half transparent" in validate_dataset(find_set(folder)).problems[0]
    report = validate_dataset(find_set(folder), matting=True)
    assert report.problems == ()
    assert any("masks are with areas of flat grey" in warning for warning in report.warnings)


def test_binary_masks_with_a_matting_network_are_warned_of(folder):
    assert any("unlearn soft edges" in warning for warning in validate_dataset(find_set(folder), matting=True).warnings)


def test_one_pair_is_warned_of(tmp_path):
    assert any("only one pair" in w for w in validate_dataset(find_set(write_shapes(tmp_path, 1))).warnings)


@pytest.mark.parametrize("mode", ["1", "L", "16", "P", "RGB", "RGBA", "LA", "CMYK", "labels"])
def test_masks_of_every_kind_are_read_alike(tmp_path, mode):
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:7] = 255
    path = tmp_path / ("mask.tif" if mode == "CMYK" else "mask.png")
    if mode == "16":
        Image.fromarray(mask.astype(np.uint16) * 257).save(path)
    elif mode == "labels":
        Image.fromarray(mask // 255).save(path)
    elif mode == "P":
        image = Image.fromarray(mask // 255)
        image.putpalette([0, 0, 0, 128, 0, 0] + [0] * 750)
        image.save(path)
    else:
        Image.fromarray(mask).convert(mode).save(path)
    assert torch.equal(torch.from_numpy(read_mask(path).values), torch.from_numpy(mask) / 255.0)


def test_coloured_masks_are_read_as_scoring_reads_them(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (8, 8, 3), np.uint8)).save(path)
    scored = read_mask(path).pixels  # as OpenCV does: tests/test_mask_files.py
    assert torch.equal(torch.from_numpy(read_mask(path).values), torch.from_numpy(scored) / 255.0)


def test_floats_that_overshoot_are_clamped_and_other_ranges_and_nan_are_problems(folder):
    values = np.linspace(-0.04, 1.04, 96 * 96, dtype=np.float32).reshape(96, 96)
    (folder / "gt/shape00.png").unlink()
    Image.fromarray(values).save(folder / "gt/shape00.tif")
    assert validate_dataset(find_set(folder)).problems == ()
    assert np.array_equal(read_mask(folder / "gt/shape00.tif").values, values.clip(0, 1))
    Image.fromarray(3 * values).save(folder / "gt/shape00.tif")
    assert "floats must be in [0, 1]" in validate_dataset(find_set(folder)).problems[0]
    values[3, 3] = np.nan
    Image.fromarray(values).save(folder / "gt/shape00.tif")
    (problem,) = validate_dataset(find_set(folder)).problems
    assert "shape00.tif" in problem and "nan" in problem


def test_cmyk_jpeg_and_exif_orientation_are_read(tmp_path):
    (tmp_path / "im").mkdir()
    (tmp_path / "gt").mkdir()
    Image.new("RGB", (32, 16), "red").convert("CMYK").save(tmp_path / "im/a.jpg")
    Image.new("L", (32, 16)).save(tmp_path / "gt/a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "im/b.jpg", exif=exif)
    Image.new("L", (16, 32)).save(tmp_path / "gt/b.png")
    pairs = find_set(tmp_path).pairs
    assert validate_dataset(find_set(tmp_path)).problems == ()
    assert [tuple(read_pair(pair)[0].shape) for pair in pairs] == [(16, 32, 3), (32, 16, 3)]


def test_rgba_without_alpha_is_a_problem(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    one = validate_pair(Pair(name="a", image=tmp_path / "a.png", mask=None))
    assert "no alpha channel" in one.problem


@pytest.mark.parametrize(("cut_outs", "composite", "warned"), [(False, 0, True), (False, 0.5, False), (True, 0, False)])
def test_backgrounds_that_are_never_used_are_warned_of(folder, tmp_path, tiny_recipe, cut_outs, composite, warned):
    backgrounds, data = tmp_path / "backgrounds", [folder]
    backgrounds.mkdir()
    Image.new("RGB", (40, 40), (9, 99, 199)).save(backgrounds / "blue.png")
    if cut_outs:
        data.append(tmp_path / "cut-outs")
        data[1].mkdir()
        image, mask = draw_shape(50)
        image.putalpha(mask)
        image.save(data[1] / "shape.png")
    recipe = tiny_recipe().replace(**{"augment.composite_background": composite})
    text = load_datasets(recipe, TrainingData(sets=tuple(data), backgrounds=backgrounds)).text
    assert ("warning: --backgrounds has no effect without cut-outs" in text) == warned


def test_what_was_guessed_or_lost_in_reading_images_is_told_by_kind(folder):
    paths = sorted((folder / "im").iterdir())
    for path, top in zip(paths[:3], (900, 1000, 60000), strict=True):
        grey = np.array(Image.open(path).convert("L"), np.float64)
        Image.fromarray((grey / grey.max() * top).astype(np.uint16)).save(path)
    pages = [Image.open(paths[3]), Image.new("RGB", (96, 96))]
    pages[0].save(paths[3].with_suffix(".tif"), save_all=True, append_images=pages[1:])
    paths[3].unlink()
    report = validate_dataset(find_set(folder))
    assert report.warnings == (
        "2 images are not read as they are; of set/shape00, its values reach 900 of 65535, so they are read as 10 bits "
        "(set/shape00, set/shape01)",
        "1 images are not read as they are; of set/shape03, it has several frames or pages, of which the first was "
        "read (set/shape03)",
    )
    assert len(report.check()) == 4
