"""Folders of images, and masks and cut-outs as files."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core import image_formats
from birefnet_core.errors import DatasetError, ImageError
from birefnet_core.images import find_images, is_own_output, list_images, read_image, write_image, write_mask


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.JPG",
        "a.png",
        ".hidden.png",
        "._a.png",
        "c.heic",
        "d.txt",
        "Thumbs.db",
        "deeper/e.tif",
        ".cache/f.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


def relative(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


@pytest.mark.parametrize("recursive", [False, True])
def test_images_are_found_and_the_rest_is_counted(folder, recursive):
    found = find_images(folder, recursive=recursive)
    assert relative(found.images, folder) == ["a.png", "b.JPG", *(["deeper/e.tif"] if recursive else [])]
    assert found.passed == {".heic": 1, ".txt": 1}
    assert relative(found.broken, folder) == ["gone.png"]
    assert found.errors == []
    assert list_images(folder, recursive=recursive) == found.images


def test_a_subfolder_may_be_left_out(folder):
    found = find_images(folder, recursive=True, leave_out=folder / "deeper")
    assert relative(found.images, folder) == ["a.png", "b.JPG"]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path):
    with pytest.raises(DatasetError, match="nothing: the folder cannot be listed"):
        list_images(tmp_path / "nothing")


def test_heic_is_taken_where_a_package_reads_it(folder, monkeypatch):
    monkeypatch.setattr(image_formats, "all_suffixes", lambda: frozenset({".heic", ".png"}))
    assert "c.heic" in relative(list_images(folder), folder)


@pytest.mark.parametrize("bits", [8, 16])
def test_masks_come_back_as_they_were(tmp_path, bits):
    mask = torch.rand(9, 7)
    write_mask(tmp_path / "new" / "m.png", mask, bits)
    assert (read_image(tmp_path / "new" / "m.png")[..., 0] - mask).abs().max() < 0.6 / (2**bits - 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_written(tmp_path, value):
    for write in (write_mask, write_image):
        with pytest.raises(ImageError, match=r"a\.png: not written"):
            write(
                tmp_path / "a.png", torch.full((4, 4), value) if write is write_mask else torch.full((4, 4, 4), value)
            )
    assert os.listdir(tmp_path) == []


def test_own_outputs_are_known(tmp_path):
    write_mask(tmp_path / "mask.png", torch.ones(4, 4))
    write_image(tmp_path / "cutout.png", torch.ones(4, 4, 4))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    assert [is_own_output(tmp_path / f"{name}.png") for name in ("mask", "cutout")] == [True, True]
    assert not any(is_own_output(tmp_path / name) for name in ("photo.png", "broken.png", "none.png", "mask.jpg"))


@pytest.mark.parametrize("place", ["file/m.png", "folder.png"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="not written"):
        write_mask(tmp_path / place, torch.ones(4, 4))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]
