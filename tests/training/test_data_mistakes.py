"""Data that a training must not take for something else: one folder for both, copies, runs inside the data."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core import DatasetError
from birefnet_core.cli.main import main
from birefnet_core.training import TrainingData, load_datasets
from birefnet_core.training.data import find_set, find_training
from birefnet_core.training.data.examples import draw_examples
from birefnet_core.training.data.folders import EXAMPLES, list_backgrounds
from birefnet_core.training.data.preflight import validate_dataset, validate_pair
from birefnet_core.training.data.reading import read_pair

from .conftest import TINY_FLAGS, draw_shape, write_shapes


def names(found) -> list[tuple[str, str]]:
    return [(pair.image.name, pair.mask.name) for pair in found.pairs]


def both(folder) -> TrainingData:
    return TrainingData(images=(folder,), masks=(folder,))


@pytest.fixture
def one_folder(tmp_path):
    """Writes images and masks beside each other, under names made from a number."""

    def write(image_name: str, mask_name: str, count: int = 3):
        folder = tmp_path / "one"
        folder.mkdir()
        for number in range(count):
            image, mask = draw_shape(number)
            image.save(folder / image_name.format(number))
            mask.save(folder / mask_name.format(number))
        return folder

    return write


@pytest.mark.parametrize(
    ("image", "mask"),
    [("{}.jpg", "{}_mask.png"), ("{}.png", "{}_mask.png"), ("{}.jpg", "{}-mask.gif"), ("{}.jpg", "{}.png"),
     ("{}.JPG", "{}_gt.bmp"), ("{}_mask.jpg", "{}_mask_mask.png")],
)  # fmt: skip
def test_images_and_masks_in_one_folder_are_told_apart_by_their_names(one_folder, image, mask):
    folder = one_folder(image, mask)
    expected = [(image.format(n), mask.format(n)) for n in range(3)]
    for found in (find_training(both(folder)), find_set(folder)):
        assert sorted(names(found)) == expected
        assert not found.unpaired_images


def test_one_folder_by_two_paths_is_one_folder(one_folder, tmp_path):
    folder = one_folder("{}.jpg", "{}_mask.png")
    (tmp_path / "link").symlink_to(folder)
    found = find_training(TrainingData(images=(folder,), masks=(tmp_path / "link",)))
    assert names(found) == [(f"{n}.jpg", f"{n}_mask.png") for n in range(3)]


def test_one_folder_without_masks_by_name_is_refused(one_folder):
    folder = one_folder("a{}.jpg", "b{}.png")
    with pytest.raises(DatasetError, match=r"in one folder.*0001_mask\.png"):
        find_training(both(folder))


def test_masks_below_their_images_and_the_reverse_are_not_taken_for_images(tmp_path):
    folder = write_shapes(tmp_path, 3, names=("", "masks"))
    found = find_training(TrainingData(images=(folder,), masks=(folder / "masks",)))
    assert len(found.pairs) == 3 and not found.unpaired_images
    inside = write_shapes(tmp_path / "reverse", 3, names=("images", ""))
    found = find_training(TrainingData(images=(inside / "images",), masks=(inside,)))
    assert len(found.pairs) == 3 and not found.unpaired_masks


@pytest.mark.parametrize("kind", ["link", "hard link", "copy", "grey copy", "jpeg copy", "small copy"])
def test_an_image_as_its_own_mask_is_a_problem(tmp_path, kind):
    folder = write_shapes(tmp_path, 3)
    image, mask = folder / "im/shape01.png", folder / "gt/shape01.png"
    mask.unlink()
    if kind == "link":
        mask.symlink_to(image)
    elif kind == "hard link":
        os.link(image, mask)
    elif kind == "copy":
        shutil.copy(image, mask)
    else:
        side = 48 if kind == "small copy" else 96
        ending = "jpg" if kind == "jpeg copy" else "png"
        Image.open(image).convert("L").resize((side, side)).save(mask.with_suffix(f".{ending}"))
    (problem,) = validate_dataset(find_set(folder)).problems
    assert any(words in problem for words in ("its own mask", "a copy?", "as a photo"))


def test_folders_of_the_same_images_are_refused(tmp_path, capsys):
    folder = write_shapes(tmp_path, 3)
    shutil.copytree(folder / "im", tmp_path / "copy")
    assert main(["train", "--images", str(folder / "im"), "--masks", str(tmp_path / "copy"), "--dry-run"]) == 2
    assert "3 of 3 pairs cannot be used" in capsys.readouterr().err


def test_a_bright_object_on_black_is_no_copy_of_its_mask(tmp_path):
    for name in ("im", "gt"):
        (tmp_path / name).mkdir()
    shade = np.linspace(120, 255, 96)[None].repeat(96, 0) * (np.hypot(*(np.mgrid[:96, :96] - 48)) < 30)
    Image.fromarray(shade.astype(np.uint8)).save(tmp_path / "im/a.png")
    Image.fromarray(((shade > 0) * 255).astype(np.uint8)).save(tmp_path / "gt/a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "im/b.png")  # black, without an object
    Image.new("L", (9, 9)).save(tmp_path / "gt/b.png")
    assert validate_dataset(find_set(tmp_path)).problems == ()


def write_run(folder, *files):
    """What a training leaves in its folder."""
    (folder / "samples").mkdir(parents=True)
    for name in ("recipe.toml", "metrics.jsonl", *files):
        (folder / name).write_text("")
    for name in ("curves.png", EXAMPLES, "samples/epoch_0001.png"):
        Image.new("RGB", (8, 8)).save(folder / name)


@pytest.mark.parametrize("place", ["run", "runs/first", "."])
def test_runs_inside_the_data_are_left_out(tmp_path, place):
    cutouts = tmp_path / "cutouts"
    cutouts.mkdir()
    for number in range(3):
        image, mask = draw_shape(number)
        image.putalpha(mask)
        image.save(cutouts / f"{number}.png")
    write_run(cutouts / place, "last.pt")
    data = TrainingData(sets=(cutouts,), backgrounds=cutouts)
    assert [pair.name for pair in find_training(data).pairs] == [f"cutouts/{n}" for n in range(3)]
    assert len(list_backgrounds(cutouts)) == 3


@pytest.mark.parametrize("kind", ["dry run", "training"])
def test_cutouts_beside_which_results_were_written_are_data_still(tmp_path, kind):
    for number in range(4):
        image, mask = draw_shape(number)
        image.putalpha(mask)
        folder = tmp_path / "sets" / ("ab"[number % 2])
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    if kind == "training":
        write_run(tmp_path / "sets/a", "last.pt")
    else:
        Image.new("RGB", (8, 8)).save(tmp_path / "sets/a" / EXAMPLES)
    found = find_set(tmp_path / "sets")
    assert [pair.name for pair in found.pairs] == ["sets/a/0", "sets/a/2", "sets/b/1", "sets/b/3"]


@pytest.mark.parametrize("place", ["cutouts", "deeper/set/im", "photos"])
def test_images_beside_known_layouts_are_left_out_with_a_word(tmp_path, place):
    write_shapes(tmp_path / "known", 3)
    (tmp_path / place).mkdir(parents=True)
    draw_shape(0)[0].save(tmp_path / place / "other.png")
    report = validate_dataset(find_set(tmp_path))
    assert len(report.usable) == 3
    assert "1 images have no mask and are left out (other.png)" in report.warnings


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
@pytest.mark.parametrize("ending", ["", "_mask"])
def test_names_with_accents_pair_whatever_system_wrote_them(tmp_path, forms, ending):
    folder = write_shapes(tmp_path, 2)
    for name, form, suffix in (("im", forms[0], ""), ("gt", forms[1], ending)):
        os.rename(folder / name / "shape00.png", folder / name / f"{unicodedata.normalize(form, 'été ñ')}{suffix}.png")
    found = find_set(folder)
    assert len(found.pairs) == 2 and not found.unpaired_images and not found.unpaired_masks


def test_a_mask_of_an_images_own_name_is_no_other_images(tmp_path):
    folder = write_shapes(tmp_path, 1)
    for name in ("shape00_alpha.png", "shape00_seg.png"):
        shutil.copy(folder / "im/shape00.png", folder / "im" / name)
    (folder / "gt/shape00.png").rename(folder / "gt/shape00_alpha.png")
    found = find_set(folder)
    assert names(found) == [("shape00_alpha.png", "shape00_alpha.png")]
    assert [path.name for path in found.unpaired_images] == ["shape00.png", "shape00_seg.png"]


@pytest.mark.parametrize("how", ["same", "link", "folders", "copies"])
def test_images_that_are_given_twice_are_not_trained_and_validated_on(tmp_path, tiny_recipe, how):
    folder = write_shapes(tmp_path / "set", 8)
    (tmp_path / "link").symlink_to(folder)
    if how == "copies":
        copies = shutil.copytree(folder, tmp_path / "set - copy")
        for part in ("im", "gt"):
            for path in (copies / part).iterdir():
                path.rename(path.with_name(f"renamed {path.name}"))
        data = TrainingData(sets=(folder, copies))
    elif how == "folders":
        data = TrainingData(sets=(folder,), images=(folder / "im",), masks=(folder / "gt",))
    else:
        data = TrainingData(sets=(folder, folder if how == "same" else tmp_path / "link"))
    datasets = load_datasets(tiny_recipe(val_fraction=0.3), data)
    training, validation = ({p.image.name[-6:] for p in d.pairs} for d in (datasets.training, datasets.validation))
    assert len(training) == 6 and len(validation) == 2 and not training & validation
    assert "warning: 8 images are given several times" in datasets.text


def test_copies_of_images_to_validate_on_are_warned_of(tmp_path, tiny_recipe):
    folder = write_shapes(tmp_path / "set", 4)
    copies = shutil.copytree(folder, tmp_path / "val")
    (copies / "im/shape01.png").unlink()
    text = load_datasets(tiny_recipe(), TrainingData(sets=(folder,), validation=(copies,))).text
    assert "warning: 3 images to validate on are trained on, too (val/shape00, val/shape02, val/shape03)" in text


def test_one_image_given_twice_is_trained_on(tmp_path, tiny_recipe):
    folder = write_shapes(tmp_path / "set", 1)
    assert len(load_datasets(tiny_recipe(), TrainingData(sets=(folder, folder))).training) == 2


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "$RECYCLE.BIN", ".hidden"])
def test_folders_of_systems_are_no_data(tmp_path, name):
    """Thumbnails of images and of masks pair as well as these do."""
    folder = write_shapes(tmp_path, 2)
    write_shapes(folder / name, 1)
    for part in ("im", "gt"):
        (folder / part / name / "shape00.png").mkdir(parents=True)
        shutil.copy(folder / part / "shape00.png", folder / part / name / "shape00.png/thumbnail.png")
    for found in (find_set(folder), find_set(write_shapes(tmp_path / "a/b", 2).parent)):
        assert [pair.image.name for pair in found.pairs] == ["shape00.png", "shape01.png"]
        assert not found.unpaired_images and not found.links


def test_links_to_folders_among_the_data_are_named(tmp_path):
    folder, other = write_shapes(tmp_path / "set", 2), write_shapes(tmp_path / "other", 2)
    for name in ("im", "gt"):
        (folder / name / "more").symlink_to(other / name)
    report = validate_dataset(find_set(folder))
    assert len(report.usable) == 2
    (warning,) = report.warnings
    assert "2 links to folders are not followed" in warning and str(folder / "im/more") in warning


def test_a_training_inside_its_data_is_resumed(tmp_path):
    cutouts = tmp_path / "cutouts"
    cutouts.mkdir()
    for number in range(3):
        image, mask = draw_shape(number, 64)
        image.putalpha(mask)
        image.save(cutouts / f"{number}.png")
    flags = ["--data", str(cutouts), "--out", str(cutouts / "run"), "--size", "64", "--epochs", "1", *TINY_FLAGS]
    flags += ["--device", "cpu", "--workers", "0", "--quiet"]
    assert main(["train", *flags]) == 0
    assert main(["train", *flags, "--resume"]) == 0
    assert (cutouts / "run" / EXAMPLES).is_file()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((96, 96), 60, np.uint8), "half of their range"),
        (np.arange(96 * 96).reshape(96, 96) % 3 + np.uint8(1), "without 0"),
        (np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8), "as a photo"),
    ],
)
def test_masks_that_are_not_understood_stop_a_training_with_what_was_found(tmp_path, array, words, capsys):
    folder = write_shapes(tmp_path, 4)
    Image.fromarray(array.astype(np.uint8)).save(folder / "gt/shape02.png")
    assert main(["train", "--data", str(folder), "--dry-run", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "shape02.png" in error and words in error and "found" in error and "255 (white)" in error
    assert main(["train", "--data", str(folder), "--dry-run", "--quiet", "--skip-bad"]) == 0
    assert "3 of 4 pairs can be used" in capsys.readouterr().out


def test_the_report_says_what_was_found_and_how_much_it_covers(tmp_path, capsys):
    folder = write_shapes(tmp_path / "set", 4)
    mask = np.asarray(Image.open(folder / "gt/shape00.png"))
    Image.fromarray(mask // 255).save(folder / "gt/shape00.png")
    assert main(["train", "--data", str(folder), "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "values in the masks: 3 x 0 and 255, 1 x 0 and 1" in captured.out
    assert "warning: 1 masks are of the labels 0 and 1" in captured.out
    assert "covers" in captured.out and " to " in captured.out
    assert captured.out.count("pairs can be used") == 1 and "pairs" not in captured.err  # said once


def test_dry_run_draws_examples_where_the_results_would_be(tmp_path, capsys):
    folder, out = write_shapes(tmp_path / "set", 5), tmp_path / "out"
    assert main(["train", "--data", str(folder), "--dry-run", "--out", str(out)]) == 0
    assert str(out / EXAMPLES) in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == [EXAMPLES]


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 4, 2), (40, 4, 4)])
def test_examples_are_spread_over_the_data_and_dim_the_background(tmp_path, count, columns, rows):
    found = find_set(write_shapes(tmp_path / "set", count, side=32))
    sheet = draw_examples(found.pairs)
    one = draw_examples(found.pairs[:1])
    assert sheet.size == (columns * one.width, rows * one.height)
    colours, mask = read_pair(found.pairs[0])
    left, right = (np.asarray(one)[18:162, x : x + 144].astype(float) for x in (4, 152))
    small = torch.nn.functional.interpolate(mask[None, None], (144, 144))[0, 0].numpy() > 0.5
    assert np.abs(left - right)[small].mean() < 15
    assert right[~small].mean() < 0.4 * left[~small].mean()
    assert colours.shape[:2] == mask.shape


@pytest.mark.parametrize("damage", ["truncated", "text", "truncated jpeg"])
def test_backgrounds_are_looked_at_before_training(tmp_path, damage, tiny_recipe):
    folder, backgrounds = write_shapes(tmp_path / "set", 3), tmp_path / "backgrounds"
    backgrounds.mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    for name in ("good.png", "bad.jpg" if damage == "truncated jpeg" else "bad.png"):
        noise.save(backgrounds / name)
    bad = next(backgrounds.glob("bad.*"))
    bad.write_bytes(b"no image" if damage == "text" else bad.read_bytes()[:5000])
    data = TrainingData(sets=(folder,), backgrounds=backgrounds)
    with pytest.raises(DatasetError, match=r"1 of 2 backgrounds cannot be used:\n.*bad\.(.|\n)*--skip-bad"):
        load_datasets(tiny_recipe(), data)
    skipping = TrainingData(sets=(folder,), backgrounds=backgrounds, skip_bad=True)
    assert "\n1 backgrounds" in load_datasets(tiny_recipe(), skipping).text


def test_backgrounds_that_are_images_of_the_data_are_warned_of(tmp_path, tiny_recipe):
    folder = write_shapes(tmp_path / "set", 3)
    text = load_datasets(tiny_recipe(), TrainingData(sets=(folder,), backgrounds=folder / "im")).text
    assert "warning: 3 backgrounds are images of the data" in text


def test_full_masks_and_opaque_cutouts_teach_nothing(tmp_path):
    for number in range(3):
        draw_shape(number)[0].convert("RGBA").save(tmp_path / f"{number}.png")
    with pytest.raises(DatasetError, match="every mask is full"):
        validate_dataset(find_set(tmp_path)).check()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_photo_and_mask_of_one_orientation_stay_together(tmp_path, orientation):
    half = np.zeros((64, 64), np.uint8)
    half[:, :20] = 255
    exif = Image.Exif()
    exif[0x112] = orientation
    (tmp_path / "im").mkdir()
    (tmp_path / "gt").mkdir()
    Image.fromarray(half // 2 + 30).convert("RGB").save(tmp_path / "im/a.jpg", exif=exif, quality=95)
    Image.fromarray(half).save(tmp_path / "gt/a.jpg", exif=exif, quality=95)
    (pair,) = find_set(tmp_path).pairs
    colours, mask = read_pair(pair)
    assert ((colours.mean(-1) > 0.35) == (mask > 0.5)).float().mean() > 0.98
    assert validate_pair(pair).problem is None


@pytest.mark.parametrize(
    ("image", "mask", "size", "warned"),
    [(3, 1, (64, 48), True), (1, 3, (64, 48), True), (3, 3, (64, 48), False), (2, 1, (64, 48), True),
     (6, 1, (64, 64), True), (8, 6, (64, 64), True), (6, 1, (64, 48), False), (1, 1, (64, 64), False)],
)  # fmt: skip
def test_masks_that_may_be_turned_against_their_images_are_warned_of(tmp_path, image, mask, size, warned):
    for name, value in (("im", image), ("gt", mask)):
        (tmp_path / name).mkdir()
        exif = Image.Exif()
        exif[0x112] = value
        pixels = Image.new("L", size[::-1] if value >= 5 else size, 90 if name == "im" else 255)
        pixels.save(tmp_path / name / "a.png", exif=exif)
    report = validate_dataset(find_set(tmp_path))
    assert not report.problems
    assert any("EXIF orientation" in warning for warning in report.warnings) == warned


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_of_other_bytes_than_utf8_are_data_like_others(tmp_path, tiny_recipe):
    folder = write_shapes(tmp_path / "set", 3)
    for name in ("im", "gt"):
        os.rename(folder / name / "shape00.png", os.fsencode(folder / name) + b"/caf\xe9.png")
    datasets = load_datasets(tiny_recipe(), TrainingData(sets=(folder,)))
    assert "3 of 3 pairs" in datasets.text and datasets.fingerprint
    assert any("caf\\udce9" in pair.name for pair in (*datasets.training.pairs, *datasets.validation.pairs))
    draw_examples(datasets.training.pairs)


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_the_recipe_that_is_read_is_not_replaced(tmp_path, capsys, link, flags):
    recipe = tmp_path / "run" / "recipe.toml"
    recipe.parent.mkdir()
    text = "# mine\nname = 'mine'\nbackbone = 'pvt_v2_b0'\n"
    given = tmp_path / "mine.toml" if link else recipe
    given.write_text(text)
    if link:
        link(given, recipe)
    assert main(["train", "--data", str(tmp_path), "--recipe", str(given), "--out", str(recipe.parent), *flags]) == 2
    assert "would be replaced by the recipe of the run" in capsys.readouterr().err
    assert given.read_text() == text
