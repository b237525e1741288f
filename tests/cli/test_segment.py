"""The command line: images in, mask files out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import birefnet_core as bc
from birefnet_core.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg", "deeper/c.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def segment(model_file, tmp_path):
    def run(*arguments, out="out"):
        target = tmp_path / out
        options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32"]
        return main(["segment", *map(str, arguments), "-o", str(target), *options]), target

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_gives_a_mask_for_each_image(segment, photos, capsys):
    code, out = segment(photos)
    assert code == 0
    assert files(out) == ["a.png", "b.png"]
    mask = Image.open(out / "a.png")
    assert (mask.mode, mask.size) == ("L", (60, 40))
    assert "2 of 2 images segmented" in capsys.readouterr().out


def test_the_layout_of_folders_is_kept(segment, photos):
    _, out = segment(photos, "--recursive")
    assert files(out) == ["a.png", "b.png", "deeper/c.png"]


def test_globs_and_files_are_taken(segment, photos):
    _, out = segment(photos / "*.png", photos / "b.jpg")
    assert files(out) == ["a.png", "b.png"]


def test_a_glob_in_a_folder_whose_name_has_brackets(segment, photos):
    folder = photos.rename(photos.with_name("photos [2024]"))
    _, out = segment(folder / "*.png", folder / "deep*" / "*.png")
    assert files(out) == ["a.png", "c.png"]


def test_one_image_may_go_to_a_named_file(segment, photos):
    code, out = segment(photos / "a.png", out="mine.png")
    assert code == 0
    assert out.is_file()


def test_the_mask_is_the_one_the_segmenter_computes(segment, photos, model_file):
    _, out = segment(photos / "a.png", "--bits", 16)
    image = torch.from_numpy(np.array(Image.open(photos / "a.png"))) / 255
    expected = bc.Segmenter(bc.load_model(model_file))(image[None])[0].numpy()
    found = np.array(Image.open(out / "a.png"))
    assert found.dtype in (np.uint16, np.int32)  # the second by older Pillow
    assert np.abs(found / 65535 - expected).max() < 1e-4


def test_the_cutout_is_rgba_with_the_mask_as_alpha(segment, photos):
    _, out = segment(photos / "a.png", "--cutout")
    cutout = np.array(Image.open(out / "a_cutout.png"))
    assert cutout.shape == (40, 60, 4)
    assert np.array_equal(cutout[..., 3], np.array(Image.open(out / "a.png")))


def test_exif_orientation_is_honoured(segment, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    _, out = segment(tmp_path / "turned.jpg")
    assert Image.open(out / "turned.png").size == (40, 60)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_every_mode_are_read(mode, segment, tmp_path):
    name = "x.tif" if mode in ("CMYK", "I;16") else "x.png"
    image = Image.fromarray(np.full((20, 30), 40000, np.uint16)) if mode == "I;16" else Image.new(mode, (30, 20))
    image.save(tmp_path / name)
    code, out = segment(tmp_path / name)
    assert code == 0
    assert files(out) == ["x.png"]


def test_nothing_is_overwritten_unless_asked(segment, photos, capsys):
    _, out = segment(photos)
    (out / "a.png").write_bytes(b"mine")
    code, _ = segment(photos)
    assert code == 1
    assert (out / "a.png").read_bytes() == b"mine"
    assert "--overwrite" in capsys.readouterr().err
    code, _ = segment(photos, "--overwrite")
    assert code == 0
    assert (out / "a.png").read_bytes() != b"mine"


def test_an_unreadable_image_does_not_stop_the_others(segment, photos, capsys):
    (photos / "aa.png").write_bytes(b"not an image")
    whole = (photos / "b.jpg").read_bytes()
    (photos / "bb.jpg").write_bytes(whole[: len(whole) // 2])
    code, out = segment(photos, photos / "missing.png")
    printed = capsys.readouterr()
    assert code == 1
    assert files(out) == ["a.png", "b.png"]
    for name in ("aa.png", "bb.jpg", "missing.png"):
        assert name in printed.err
    assert "2 of 5 images segmented" in printed.out


def test_two_images_with_one_mask_file_are_told(segment, photos, capsys):
    (photos / "a.jpg").write_bytes((photos / "b.jpg").read_bytes())
    code, out = segment(photos)
    assert code == 1
    assert "same mask file" in capsys.readouterr().err
    assert files(out) == ["a.png", "b.png"]


def test_a_mask_never_replaces_its_image(segment, photos, capsys):
    before = (photos / "a.png").read_bytes()
    code, _ = segment(photos / "a.png", "--overwrite", out="photos")
    assert code == 1
    assert (photos / "a.png").read_bytes() == before
    assert "replace the image itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "0"], "whole numbers above 0"),
        (["--device", "abacus"], "abacus"),
        (["--model", "BiRefNet_light"], "BiRefNet_lite"),
    ],
)
def test_wrong_calls_end_with_code_2(arguments, words, photos, model_file, tmp_path, capsys):
    options = {"--model": str(model_file), "--device": "cpu"}
    options.update(zip(arguments[::2], arguments[1::2], strict=True))
    flat = [part for pair in options.items() for part in pair]
    assert main(["segment", str(photos), "-o", str(tmp_path / "out"), *flat]) == 2
    assert words in capsys.readouterr().err


def test_an_empty_folder_and_a_single_file_for_many_are_refused(segment, photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert segment(tmp_path / "empty")[0] == 2
    assert "no images" in capsys.readouterr().err
    assert segment(photos, out="one.png")[0] == 2
    assert "give a folder" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["96", "96x64", "native"])
def test_sizes_are_understood(size, segment, photos):
    assert segment(photos / "a.png", "--size", size)[0] == 0


def test_nonsense_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as error:
        main(["segment", "x", "-o", "y", "--size", "huge"])
    assert error.value.code == 2
    assert "N, WxH or native" in capsys.readouterr().err


def test_a_run_is_resumed(segment, photos):
    _, out = segment(photos / "a.png")
    before = (out / "a.png").stat().st_mtime_ns
    code, _ = segment(photos, "--resume")
    assert code == 0
    assert files(out) == ["a.png", "b.png"]
    assert (out / "a.png").stat().st_mtime_ns == before


@pytest.mark.slow
def test_two_processes_share_a_folder_and_write_the_same_bytes(segment, photos, model_file, tmp_path):
    _, alone = segment(photos, "--recursive", out="alone")
    together = tmp_path / "together"
    command = ["-m", "birefnet_core", "segment", str(photos), "-o", str(together), "--recursive"]
    command += ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *command],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert files(together) == files(alone)
    assert all((together / name).read_bytes() == (alone / name).read_bytes() for name in files(alone))
    assert [line for line in run.stdout.splitlines() if "segmented" in line] == [f"3 of 3 images segmented: {together}"]
