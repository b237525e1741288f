"""Folders of images, and masks and cut-outs as files."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from birefnet_core import image_formats
from birefnet_core.errors import ConfigError, DatasetError, ImageError
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


@pytest.mark.parametrize(
    ("write", "values", "reason"),
    [
        (write_mask, torch.ones(1, 4, 4), "mask has shape 1 x 4 x 4, expected H, W"),
        (write_mask, torch.ones(4, 4, 3), "mask has shape 4 x 4 x 3, expected H, W"),
        (write_mask, torch.full((4, 4), 255.0), "divide bytes by 255"),
        (write_mask, torch.full((4, 4), 200, dtype=torch.uint8), "divide bytes by 255"),
        (write_mask, np.ones((4, 4)), "torch.as_tensor"),
        (write_mask, torch.ones(0, 4), "no pixels"),
        (write_image, torch.ones(4, 4), "image has shape 4 x 4, expected H, W, 3 or H, W, 4"),
        (write_image, torch.ones(1, 4, 4, 3), "image has shape 1 x 4 x 4 x 3"),
        (write_image, torch.ones(3, 5, 6), "channels come last"),
        (write_image, torch.full((4, 4, 3), 255.0), "divide bytes by 255"),
        (write_image, None, "torch.as_tensor"),
    ],
)
def test_what_is_no_mask_or_image_is_not_written(tmp_path, write, values, reason):
    with pytest.raises(ImageError, match=rf"a\.png: not written: .*{reason}"):
        write(tmp_path / "a.png", values)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("bits", [12, 1, "16", None])
def test_other_bits_of_a_mask_are_refused(tmp_path, bits):
    with pytest.raises(ConfigError, match="expected 8 or 16"):
        write_mask(tmp_path / "a.png", torch.ones(4, 4), bits)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("write", "values"), [(write_mask, torch.ones(4, 4)), (write_image, torch.ones(4, 4, 3))])
def test_other_endings_and_switches_that_are_text_are_refused(tmp_path, write, values):
    with pytest.raises(ImageError, match=r"a\.jpg: not written: expected a name ending in \.png"):
        write(tmp_path / "a.jpg", values)
    write(tmp_path / "a.png", values)
    with pytest.raises(ConfigError, match="overwrite is 'false', expected True or False"):
        write(tmp_path / "a.png", values * 0, overwrite="false")
    assert read_image(tmp_path / "a.png").min() == 1
    assert os.listdir(tmp_path) == ["a.png"]


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
