"""`birefnet segment` replaces no image it reads, finds clashes before it begins, and does all that can be done."""

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from birefnet_core.cli import outputs, segment
from birefnet_core.cli.main import main
from birefnet_core.errors import CheckpointError, MemoryLimitError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


class Brightness:
    """Stands for a Segmenter: the mask is the mean of the colours. ``fail`` may raise instead."""

    seen: list

    def __init__(self, model, compile=False):
        Brightness.seen = []

    def network_size(self, size, height, width):
        return 32, 32

    def __call__(self, images, size=None):
        Brightness.seen.append(images)
        self.fail(images)
        return images.mean(dim=-1)

    @staticmethod
    def fail(images):
        pass


@pytest.fixture(autouse=True)
def stub_model(monkeypatch):
    monkeypatch.setattr(segment, "load_model", lambda *args, **options: None)
    monkeypatch.setattr(segment, "Segmenter", Brightness)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def save(path, pixels=PIXELS, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def run(*arguments):
    return main(["segment", *map(str, arguments), "--device", "cpu", "--dtype", "fp32"])


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(content(folder)) if folder.exists() else []


# Nothing that is read is replaced


@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--resume",), ("--overwrite", "--resume")])
@pytest.mark.parametrize("cutout", [(), ("--cutout",)])
@pytest.mark.parametrize(
    "order", [("a.jpg", "a.png", "a_cutout.png", "b.jpg"), ("b.jpg", "a_cutout.png", "a.png", "a.jpg")]
)
def test_no_image_of_the_run_is_replaced(folder, flags, cutout, order, capsys):
    for name in order:
        save(folder / name)
    before = content(folder)
    assert run(*(folder / name for name in order), "-o", folder, *flags, *cutout) == 1
    after = content(folder)
    assert {name: after[name] for name in before} == before
    assert "b.png" in after
    said = capsys.readouterr().err
    assert "another image of this run" in said
    assert "replace the image itself" in said


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("kind", ["mask", "cut-out"])
def test_no_image_is_replaced_through_links(folder, link, kind, capsys):
    save(folder / "a.jpg")
    victim = save(folder / "victim.png")
    out = folder.parent / "out"
    out.mkdir()
    link(victim, out / ("a.png" if kind == "mask" else "a_cutout.png"))
    before = victim.read_bytes()
    assert run(folder, "-o", out, "--overwrite", "--cutout") == 1
    assert victim.read_bytes() == before
    assert f"the {kind} would replace another image of this run" in capsys.readouterr().err
    assert names(out) == sorted({"a.png" if kind == "mask" else "a_cutout.png", "victim.png", "victim_cutout.png"})


def test_no_image_is_replaced_through_a_linked_folder(folder):
    save(folder / "a.png")
    before = content(folder)
    (folder.parent / "out").symlink_to(folder)
    assert run(folder, "-o", "out", "--overwrite") == 1
    assert content(folder) == before


def test_a_link_out_of_the_output_folder_is_replaced_and_not_followed(folder):
    save(folder / "a.jpg")
    other = folder.parent / "other.txt"
    other.write_text("mine")
    out = folder.parent / "out"
    out.mkdir()
    (out / "a.png").symlink_to(other)
    assert run(folder, "-o", out) == 1
    assert run(folder, "-o", out, "--overwrite") == 0
    assert other.read_text() == "mine"
    assert not (out / "a.png").is_symlink()


def test_a_link_that_leads_nowhere_is_there(folder):
    save(folder / "a.jpg")
    out = folder.parent / "out"
    out.mkdir()
    (out / "a.png").symlink_to("nowhere")
    assert run(folder, "-o", out) == 1
    assert (out / "a.png").is_symlink()


@pytest.mark.parametrize("folds", [True, False])
def test_names_that_differ_in_case_clash_where_the_disk_folds_them(folder, folds, monkeypatch, capsys):
    save(folder / "photo.jpg")
    save(folder / "PHOTO.jpg")
    monkeypatch.setattr(outputs, "_folds_names", lambda path: folds)
    assert run(folder, "-o", "out") == int(folds)
    assert len(names(Path("out"))) == (1 if folds else 2)
    assert ("same mask file" in capsys.readouterr().err) == folds


def test_a_disk_is_asked_whether_it_folds_names(tmp_path):
    assert outputs._folds_names(tmp_path) is (tmp_path.parent / tmp_path.name.upper()).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", ["x.jpg", "x_cutout.jpg"])
def test_masks_and_cutouts_clash_with_each_other(folder, first, capsys):
    paths = [save(folder / name) for name in ("x.jpg", "x_cutout.jpg")]
    paths.sort(key=lambda path: path.name != first)
    assert run(*paths, "-o", "out", "--cutout") == 1
    assert f"{paths[0]} has the same" in capsys.readouterr().err
    assert len(names(Path("out"))) == 2


def test_an_image_named_twice_is_segmented_once(folder, capsys):
    save(folder / "a.png")
    assert run(folder, folder / "a.png", "in/*.png", "-o", "out") == 0
    assert "1 of 1 images" in capsys.readouterr().out


# What lies in the output folder is no input


@pytest.mark.parametrize("where", ["in/masks", "in/deep/er/masks", "./in/../in/masks"])
@pytest.mark.parametrize("source", ["in", "in/**/*", "in/*"])
def test_masks_below_the_images_are_no_images(folder, where, source):
    save(folder / "a.jpg")
    for _ in range(3):
        assert run(source, "-o", where, "--recursive", "--resume", "--cutout") == 0
    assert sorted(Path(name).name for name in names(folder)) == ["a.jpg", "a.png", "a_cutout.png"]


def test_an_image_in_the_output_folder_may_be_named(folder):
    save(folder / "masks" / "a.jpg")
    assert run(folder / "masks" / "a.jpg", "-o", folder / "masks") == 0
    assert names(folder) == ["masks/a.jpg", "masks/a.png"]


# What -o may be


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("mask.jpg", "masks are PNG files"),
        ("mask.JPEG", "masks are PNG files"),
        ("mask.webp", "masks are PNG files"),
        ("mask.heic", "masks are PNG files"),
        ("results", "results is a file; -o needs a folder"),
        ("results/deeper", "results is a file; -o needs a folder"),
        ("results/mask.png", "results is a file; -o needs a folder"),
        ("/dev/null", "is a file"),
        ("/proc/nothing", "cannot be"),
        ("", "-o is empty"),
        ("y" * 300, "cannot be created"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(folder, output, words, monkeypatch, capsys):
    monkeypatch.setattr(segment, "load_model", None)
    save(folder / "a.jpg")
    Path("results").write_text("x")
    assert run(folder / "a.jpg", "-o", output) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert Path("results").read_text() == "x"


@pytest.mark.parametrize("output", ["mask.png", "mask.PNG", "new/mask.png"])
def test_a_named_file_is_honoured(folder, output, capsys):
    save(folder / "a.jpg")
    assert run(folder / "a.jpg", "-o", output, "--cutout") == 0
    stem = Path(output).with_suffix("")
    assert Path(output).is_file()
    assert Path(f"{stem}_cutout.png").is_file()
    assert str(Path(output).absolute()) in capsys.readouterr().out


def test_a_folder_may_have_the_name_of_a_file(folder):
    save(folder / "a.jpg")
    Path("odd.png").mkdir()
    Path("v1.2").mkdir()
    assert run(folder, "-o", "odd.png") == 0
    assert run(folder, "-o", "v1.2") == 0
    assert names(Path("odd.png")) == names(Path("v1.2")) == ["a.png"]


def test_a_folder_without_permission_is_told_before_any_work(folder, monkeypatch, capsys):
    save(folder / "a.jpg")
    Path("closed").mkdir()
    monkeypatch.setattr(segment, "load_model", None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run(folder, "-o", "closed") == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_where_the_masks_are_is_said(folder, capsys):
    save(folder / "a.jpg")
    run(folder, "-o", "out")
    assert f"1 of 1 images segmented: {Path('out').absolute()}" in capsys.readouterr().out
    run(folder, "-o", "out", "--resume")
    assert "1 of 1 images segmented (1 of them before): " in capsys.readouterr().out


def test_names_too_long_for_a_cutout_are_told_before_any_work(folder, capsys):
    save(folder / ("m" * 245 + ".jpg"))
    save(folder / "a.jpg")
    assert run(folder, "-o", "out", "--cutout") == 1
    assert names(Path("out")) == ["a.png", "a_cutout.png"]
    assert "its cut-out cannot be named" in capsys.readouterr().err
    assert run(folder, "-o", "out2") == 0


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "[", "**" * 300, "nothing\n.png", "a\0b"])
def test_inputs_that_cannot_be_are_told(folder, name, capsys):
    save(folder / "a.jpg")
    assert run(name, folder, "-o", "out") == 1
    assert "1 of 2 images segmented" in capsys.readouterr().out


# What is passed over


def test_files_of_other_endings_are_counted(folder, capsys):
    save(folder / "a.jpg")
    save(folder / "b.tga")
    for name in ("c.heic", "d.HEIC", "e.txt", "no_ending", "Thumbs.db", "._a.jpg", ".hidden.png"):
        (folder / name).write_bytes(b"\0\5\26\7")
    save(folder / ".cache" / "f.png")
    assert run(folder, "-o", "out", "--recursive") == 0
    assert names(Path("out")) == ["a.png", "b.png"]
    said = capsys.readouterr().err
    assert "4 files with other endings passed over: .heic (2), .txt (1), no ending (1); pip install pillow-heif" in said


def test_a_folder_of_other_endings_only_says_so(folder, capsys):
    (folder / "a.heic").write_bytes(b"x")
    assert run(folder, "-o", "out") == 2
    assert ".heic (1)" in capsys.readouterr().err


def test_broken_links_and_pipes_are_named(folder, capsys):
    save(folder / "a.jpg")
    (folder / "gone.png").symlink_to("/nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    assert run(folder, "-o", "out") == 1
    said = capsys.readouterr().err
    assert all(f"not done: {folder / name}" in said for name in ("gone.png", "loop.png", "pipe.png"))


def test_links_to_folders_are_no_loops(folder):
    save(folder / "sub" / "a.jpg")
    (folder / "loop").symlink_to(folder)
    assert run(folder, "-o", "out", "--recursive") == 0
    assert names(Path("out")) == ["sub/a.png"]


# One bad image does not end the others


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "too little memory"),
        (MemoryLimitError("out of memory for one image"), "out of memory for one image"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "too little memory"),
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
    assert "a.png: not written, because it would hold NaN" in capsys.readouterr().err


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
    from birefnet_core.files import _part_name

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
