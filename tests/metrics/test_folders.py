from pathlib import Path

import numpy as np
import pytest

from birefnet_core.errors import DatasetError
from birefnet_core.metrics.folders import (
    ground_truth_folder,
    image_folder,
    list_images,
    pair_folders,
    set_name_of,
)

MASK = np.zeros((4, 4), np.uint8)


@pytest.fixture
def make(tmp_path, save):
    """Writes empty masks and returns the root."""

    def files(*names):
        for name in names:
            save(tmp_path / name, MASK)
        return tmp_path

    return files


def test_files_pair_by_stem_whatever_the_format(make):
    root = make("p/b.jpg", "p/a.PNG", "g/a.bmp", "g/b.png")
    (root / "g" / "notes.txt").write_text("no image")
    (root / "g" / "._a.png").write_text("left by a Mac")
    pairs = pair_folders(root / "p", root / "g").pairs
    assert [(stem, p.name, g.name) for stem, p, g in pairs] == [("a", "a.PNG", "a.bmp"), ("b", "b.jpg", "b.png")]


def test_accents_pair_however_they_are_written(make):
    root = make("p/Caf\u00e9.png", "g/Cafe\u0301.png")
    assert [stem for stem, _, _ in pair_folders(root / "p", root / "g").pairs] == ["Caf\u00e9"]


def test_missing_and_extra_predictions_are_listed(make):
    root = make("p/a.png", "p/x.png", "g/a.png", "g/b.png", "g/c.png")
    with pytest.raises(DatasetError, match=r"2 of 3 .* b, c\. 1 predictions .* x\. .*--allow-missing"):
        pair_folders(root / "p", root / "g")
    pairing = pair_folders(root / "p", root / "g", allow_missing=True)
    assert (pairing.missing, pairing.extra, len(pairing.pairs)) == (("b", "c"), ("x",), 1)


def test_long_lists_are_cut(make):
    root = make("p/a.png", *[f"g/{number:03}.png" for number in range(30)], "g/a.png")
    with pytest.raises(DatasetError, match="009 and 20 more"):
        pair_folders(root / "p", root / "g")


def test_folders_without_a_common_name_never_pair(make):
    root = make("p/a.png", "g/b.png")
    with pytest.raises(DatasetError, match="No file of the two folders shares a name"):
        pair_folders(root / "p", root / "g", allow_missing=True)


def test_two_files_of_one_name_are_refused(make):
    with pytest.raises(DatasetError, match=r"a\.jpg and a\.png"):
        list_images(make("a.png", "a.jpg"))


def test_a_folder_without_images_says_what_it_holds(make):
    with pytest.raises(DatasetError, match="gt, im"):
        list_images(make("im/a.png", "gt/a.png"))
    with pytest.raises(DatasetError, match="not a folder"):
        list_images(Path("nowhere"))


@pytest.mark.parametrize("layout", ["DIS-VD/gt/a.png", "DIS-VD/GT/a.png", "gt/DIS-VD/a.png", "DIS-VD/a.png"])
def test_ground_truths_are_found_in_usual_layouts(make, layout):
    root = make(layout)
    assert ground_truth_folder(root, "DIS-VD") == (root / layout).parent


def test_images_are_found_beside_the_ground_truths(make):
    root = make("DIS-VD/gt/a.png", "DIS-VD/im/a.jpg")
    assert image_folder(root, "DIS-VD").name == "im"


def test_an_unknown_set_is_refused(make):
    with pytest.raises(DatasetError, match="no set DIS-TE9"):
        ground_truth_folder(make("DIS-VD/gt/a.png"), "DIS-TE9")


def test_a_folder_called_gt_has_its_parent_s_name():
    assert set_name_of(Path("/data/DIS-VD/gt")) == "DIS-VD"
    assert set_name_of(Path("/data/DIS-VD")) == "DIS-VD"
