"""`birefnet segment` does all that can be done, names the rest, and keeps transparency and colour profiles."""

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from birefnet_core.errors import CheckpointError, ConfigError, MemoryLimitError
from birefnet_core.files import _part_name

from .stub_segmenter import PIXELS, Brightness, names, run, save

# One bad image does not end the others


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "too little memory"),
        (MemoryLimitError("out of memory for one image"), "out of memory for one image"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory"),
        (RuntimeError("std::bad_alloc"), "too little memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "too little memory"),
        (ConfigError("width and height must be at most 65536"), "at most 65536"),
        (CheckpointError("the network computes NaN"), "computes NaN"),
    ],
)
def test_an_image_that_fails_does_not_end_the_others(folder, error, words, monkeypatch, capsys):
    def fail(images):
        if images.shape[1] == 50:
            raise error

    monkeypatch.setattr(Brightness, "fail", staticmethod(fail))
    for name in ("a.png", "z.png"):
        save(folder / name)
    save(folder / "m.png", np.zeros((50, 9, 3), np.uint8))
    assert run(folder, "-o", "out") == 1
    assert names(Path("out")) == ["a.png", "z.png"]
    captured = capsys.readouterr()
    assert f"not done: {folder / 'm.png'}: " in captured.err
    assert words in captured.err
    assert "2 of 3 images" in captured.out
    monkeypatch.setattr(Brightness, "fail", staticmethod(lambda images: None))
    assert run(folder, "-o", "out", "--resume") == 0
    assert "m.png" in names(Path("out"))


def test_a_mask_that_is_no_number_is_not_written(folder, monkeypatch, capsys):
    monkeypatch.setattr(Brightness, "__call__", lambda self, images, size=None: images.mean(dim=-1) / 0 * 0)
    save(folder / "a.png")
    assert run(folder, "-o", "out") == 1
    assert names(Path("out")) == []
    assert "a.png: not written: mask has NaN or infinite values" in capsys.readouterr().err


def test_a_fault_of_our_own_keeps_its_traceback(folder, monkeypatch):
    def fail(images):
        raise RuntimeError("a matrix of the wrong shape")

    monkeypatch.setattr(Brightness, "fail", staticmethod(fail))
    save(folder / "a.png")
    with pytest.raises(RuntimeError, match="wrong shape"):
        run(folder, "-o", "out")


def test_an_interrupted_run_says_what_it_did(folder, monkeypatch, capsys):
    def fail(images):
        if len(Brightness.seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Brightness, "fail", staticmethod(fail))
    for name in "abc":
        save(folder / f"{name}.png")
    assert run(folder, "-o", "out") == 130
    captured = capsys.readouterr()
    assert "1 of 1 images segmented" in captured.out
    assert "--resume" in captured.err


def test_names_reach_the_terminal_escaped(folder, capsys):
    (folder / "n\x1b[31m\n9 of 9 images segmented.png").write_bytes(b"no")
    (folder / os.fsdecode(b"raw\xff.png")).write_bytes(b"no")
    save(folder / os.fsdecode(b"good\xff.png"))
    assert run(folder, "-o", "out") == 1
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err
    assert r"n\x1b[31m\n9 of 9" in captured.err
    assert "1 of 3 images segmented" in captured.out
    assert os.listdir("out") == [os.fsdecode(b"good\xff.png")]


# Transparency and colour profiles


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_transparent_stays_so(folder, bits):
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 10:] = 255
    alpha[:, 20:] = 128
    save(folder / "a.png", np.dstack([PIXELS, alpha]))
    assert run(folder, "-o", "out", "--cutout", "--bits", bits) == 0
    mask = np.array(Image.open("out/a.png")) / (2**bits - 1)
    cutout = np.array(Image.open("out/a_cutout.png")) / 255
    assert np.abs(cutout[..., 3] - mask).max() < 0.005
    assert (mask[:, :10] == 0).all()
    seen = Brightness.seen[0][0].numpy()
    assert np.allclose(seen[:, :10], 0.5)  # colours under transparent pixels are not seen
    assert np.allclose(seen[:, 10:20], PIXELS[:, 10:20] / 255)
    assert np.abs(mask[:, 10:20] - PIXELS[:, 10:20].mean(-1) / 255).max() < 0.005


def test_a_transparent_image_has_no_subject_and_says_so(folder, capsys):
    save(folder / "a.png", np.dstack([PIXELS, np.zeros((20, 30), np.uint8)]))
    assert run(folder, "-o", "out", "--cutout") == 0
    assert not np.array(Image.open("out/a.png")).any()
    assert "a.png: it is transparent everywhere" in capsys.readouterr().err


def test_a_colour_profile_goes_with_the_cutout(folder):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(folder / "a.jpg", icc_profile=profile)
    save(folder / "b.png")
    assert run(folder, "-o", "out", "--cutout") == 0
    assert Image.open("out/a_cutout.png").info["icc_profile"] == profile
    assert "icc_profile" not in Image.open("out/b_cutout.png").info
    assert "icc_profile" not in Image.open("out/a.png").info


# Full disks and left-overs


def test_a_full_disk_is_named_and_leaves_nothing(folder, monkeypatch, capsys):
    real = Image.Image.save

    def full(image, part, **options):
        if isinstance(part, str) and ".part" in part:
            Path(part).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(image, part, **options)

    save(folder / "a.png")
    monkeypatch.setattr(Image.Image, "save", full)
    assert run(folder, "-o", "out") == 1
    assert "a.png: not written (No space left on device)" in capsys.readouterr().err
    assert os.listdir("out") == []


def test_resume_removes_what_a_killed_run_left_of_finished_masks(folder):
    save(folder / "a.png")
    assert run(folder, "-o", "out") == 0
    part = Path(_part_name(Path("out/a.png"), 0))
    part.write_bytes(b"half")
    assert run(folder, "-o", "out", "--resume") == 0
    assert os.listdir("out") == ["a.png"]


def test_a_read_only_folder_with_all_masks_is_done(folder, monkeypatch):
    save(folder / "a.png")
    assert run(folder, "-o", "out") == 0
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run(folder, "-o", "out", "--resume") == 0


def test_masks_have_the_permissions_of_ordinary_files(folder):
    save(folder / "a.png")
    run(folder, "-o", "out")
    shutil.copyfile("out/a.png", "out/b.png")
    assert stat.S_IMODE(Path("out/a.png").stat().st_mode) == stat.S_IMODE(Path("out/b.png").stat().st_mode)


@pytest.mark.parametrize(
    ("flags", "said"), [((), "no images in this folder itself"), (("--recursive",), None), (("--resume",), "itself")]
)
def test_a_folder_without_images_is_told_beside_others(folder, flags, said, capsys):
    """Its images may be in subfolders, and the summary counts those of the other inputs alone."""
    save(folder / "a.png")
    save(folder / "shelf" / "inner" / "b.png")
    assert run(folder / "a.png", folder / "shelf", "-o", folder.parent / "out", *flags) == 0
    error = capsys.readouterr().err
    assert (f"note: {folder / 'shelf'}: no images in this folder" in error) == (said is not None)
    assert said is None or said in error
