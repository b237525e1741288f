"""Folders -> pairs."""

import shutil
import struct
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from birefnet_core import DatasetError
from birefnet_core.image_reading import read_image_file
from birefnet_core.training.data import Pair, TrainingData, find_set, find_training
from birefnet_core.training.data.folders import class_labels, class_name, hold_out
from birefnet_core.training.data.reading import read_cutout

from .conftest import write_shapes


@pytest.mark.parametrize("names", [("im", "gt"), ("images", "masks"), ("Image", "Mask")])
def test_known_layouts_are_paired(tmp_path, names):
    found = find_set(write_shapes(tmp_path / "set", 3, names=names))
    assert [pair.name for pair in found.pairs] == ["set/shape00", "set/shape01", "set/shape02"]
    assert all(pair.image.stem == pair.mask.stem for pair in found.pairs)


def test_folder_of_sets_gives_all_of_them(tmp_path):
    write_shapes(tmp_path / "a", 2)
    write_shapes(tmp_path / "b", 1)
    assert [pair.name for pair in find_set(tmp_path).pairs] == ["a/shape00", "a/shape01", "b/shape00"]


def test_two_sets_in_one_folder_are_not_taken_for_one(tmp_path):
    for names in (("im", "gt"), ("images", "masks")):
        write_shapes(tmp_path, 1, names=names)
    with pytest.raises(DatasetError, match=r"two data sets in it, im/ \+ gt/ and images/ \+ masks/"):
        find_set(tmp_path)
    shutil.rmtree(tmp_path / "masks")
    write_shapes(tmp_path, 1, names=("img", "gt"))  # masks of one set, its images at two sizes
    assert [pair.image.parent.name for pair in find_set(tmp_path).pairs] == ["im"]


def test_one_name_in_both_spellings_of_its_accents_is_two(tmp_path):
    names = [unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD")]
    for folder in ("im", "gt"):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("L", (8, 8)).save(tmp_path / folder / f"{name}.png")
    if len(list((tmp_path / "im").iterdir())) < 2:
        pytest.skip("a disk on which they are one")
    assert [pair.image.name for pair in find_set(tmp_path).pairs] == [p.mask.name for p in find_set(tmp_path).pairs]


def test_explicit_folders_and_several_sets_are_joined(tmp_path):
    write_shapes(tmp_path / "a", 2)
    write_shapes(tmp_path / "b", 1, names=("photos", "labels"))
    data = TrainingData(sets=(tmp_path / "a",), images=(tmp_path / "b/photos",), masks=(tmp_path / "b/labels",))
    assert len(find_training(data).pairs) == 3


def test_mask_endings_and_other_file_types_pair(tmp_path):
    image, mask = Image.new("RGB", (8, 8)), Image.new("L", (8, 8))
    for folder in ("im/deep", "gt/deep"):
        (tmp_path / folder).mkdir(parents=True)
    image.save(tmp_path / "im/deep/a.jpg")
    mask.save(tmp_path / "gt/deep/a_mask.png")
    (pair,) = find_set(tmp_path).pairs
    assert pair.name.endswith("deep/a")


def test_files_without_a_partner_are_listed(tmp_path):
    folder = write_shapes(tmp_path, 3)
    (folder / "gt/shape00.png").rename(folder / "gt/other.png")
    found = find_set(folder)
    assert len(found.pairs) == 2
    assert [p.name for p in found.unpaired_images] == ["shape00.png"]
    assert [p.name for p in found.unpaired_masks] == ["other.png"]


def test_rgba_folder_is_a_set_of_its_own(tmp_path):
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    (pair,) = find_set(tmp_path).pairs
    assert pair.mask is None


def test_no_pair_at_all_says_what_names_differ(tmp_path):
    folder = write_shapes(tmp_path, 1)
    (folder / "gt/shape00.png").rename(folder / "gt/shape0.png")
    with pytest.raises(DatasetError, match=r"no two of one name.*'shape00'.*'shape0'"):
        find_set(folder)


def test_unknown_layout_lists_what_was_found_and_expected(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DatasetError, match=r"im/ \+ gt/.*found photos/"):
        find_set(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        find_set(tmp_path / "missing")


def test_two_images_of_one_name_are_refused(tmp_path):
    folder = write_shapes(tmp_path, 1)
    Image.new("RGB", (8, 8)).save(folder / "im/shape00.jpg")
    with pytest.raises(DatasetError, match="have one name"):
        find_set(folder)


def test_folders_that_do_not_match_in_number_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="2 folders of images but 1"):
        TrainingData(images=(tmp_path, tmp_path), masks=(tmp_path,))
    with pytest.raises(DatasetError, match="--data DIR"):
        TrainingData()


def test_classes_come_from_dis5k_names(tmp_path):
    names = ["1#Accessories#1#Bag#23.jpg", "2#Aircraft#4#Jet#1.jpg", "plain.jpg"]
    pairs = [Pair(name=name, image=tmp_path / name, mask=None) for name in names]
    assert [class_name(pair) for pair in pairs] == ["Bag", "Jet", None]
    assert class_labels(pairs) == {"Bag": 0, "Jet": 1}
    with pytest.raises(DatasetError, match="--classes none"):
        class_labels(pairs[2:])


def test_hold_out_keeps_the_same_names_when_pairs_join(tmp_path):
    pairs = [Pair(name=f"s/{i}", image=tmp_path / f"{i}", mask=None) for i in range(20)]
    training, validation = hold_out(pairs, 0.2)
    assert len(validation) == 4
    assert not set(training) & set(validation)
    fewer, held = hold_out(pairs[:10], 0.2)
    assert len(held) == 2
    assert len(fewer) == 8
    assert hold_out(pairs[:1], 0.5) == (tuple(pairs[:1]), ())


@pytest.mark.parametrize("linear", [False, True])
def test_cutouts_have_the_colours_that_segmenting_sees(tmp_path, linear):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(np.arange(8) < 4, 0, 255)[:, None]
    info = PngInfo()
    if linear:
        info.add(b"gAMA", struct.pack(">I", 100000))
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=info)
    colours, mask = read_cutout(tmp_path / "a.png")
    assert torch.equal(colours, read_image_file(tmp_path / "a.png").colours)
    assert np.array_equal(mask.pixels, pixels[..., 3])
    assert linear != np.array_equal(colours.mul(255).round().byte().numpy(), pixels[..., :3])
