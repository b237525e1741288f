"""The command line: a folder of images is replaced as a whole, so it must hold nothing else."""

import os

import pytest
from PIL import Image

from birefnet_core.cli.main import main

from ..video.conftest import make_clip, picture
from .stub_segmenter import content

pytest.importorskip("av")
FRAMES = ["frame_000001.png", "frame_000002.png"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with in/a.mp4."""
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "in")
    return tmp_path


@pytest.fixture
def images(model_file, capsys):
    """Runs ``birefnet video``; gives the exit code and the errors."""

    def run(*arguments):
        options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--colors", "none"]
        return main(["video", *map(str, arguments), "--codec", "png", *options]), capsys.readouterr().err

    return run


def clip(folder, name="a.mp4"):
    folder.mkdir(parents=True, exist_ok=True)
    return make_clip(folder, name=name, frames=2, size=(64, 48), audio=None)


@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
@pytest.mark.parametrize("mine", ["photo.jpg", "deeper/in/a.mp4", "frame_01.png", ".notes", "frame_000001.png/a"])
def test_other_files_in_it_are_not_lost(folder, images, flag, mine):
    (folder / "out" / mine).parent.mkdir(parents=True)
    (folder / "out" / mine).write_bytes(b"mine")
    before = content(folder)
    code, errors = images("in/a.mp4", "-o", "out", flag)
    assert (code == 1 and "which would be lost" in errors) or (flag == "--resume" and mine.startswith("frame_000001"))
    assert content(folder) == before


@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_a_folder_that_holds_the_clip_is_not_replaced(folder, images, flag):
    clip(folder / "shoot" / "raw")
    before = content(folder)
    assert images("shoot/raw/a.mp4", "-o", "shoot", flag)[0] == 1
    assert images("shoot/raw/a.mp4", "-o", "shoot/raw", flag)[0] == 1
    assert content(folder) == before


@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_a_folder_that_holds_another_clip_of_the_run_is_not_replaced(folder, images, flag):
    clip(folder / "in" / "a", "b.mp4")
    (folder / "in" / "c").mkdir()
    for number in (1, 2):
        Image.fromarray(picture(number, 64, 48)).save(folder / f"in/c/frame_00000{number}.png")
    clip(folder / "in", "c.mp4")
    before = content(folder)
    code, errors = images("in", "in/c", "--recursive", "-o", "in", flag)
    assert code == 1
    assert "in/a is an input of this run" in errors
    assert "in/c is an input of this run" in errors or flag == "--resume"  # for there are frames
    after = content(folder)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"]])
def test_an_empty_folder_is_filled(folder, images, flags):
    (folder / "out").mkdir()
    (folder / "out" / ".DS_Store").touch()
    assert images("in/a.mp4", "-o", "out", *flags)[0] == 0
    assert sorted(os.listdir(folder / "out")) == FRAMES


def test_frames_are_replaced_only_where_that_is_wanted(folder, images):
    assert images("in/a.mp4", "-o", "out")[0] == 0
    (folder / "out" / "frame_000003.png").write_bytes(b"of a longer clip")
    before = content(folder)
    code, errors = images("in/a.mp4", "-o", "out")
    assert code == 1 and "already there" in errors
    assert images("in/a.mp4", "-o", "out", "--resume")[0] == 0
    assert content(folder) == before
    assert images("in/a.mp4", "-o", "out", "--overwrite")[0] == 0
    assert sorted(os.listdir(folder / "out")) == FRAMES


@pytest.mark.skipif(os.name == "nt", reason="links need a permission")
def test_a_link_to_a_folder_stays_one(folder, images):
    (folder / "disk").mkdir()
    (folder / "out").symlink_to("disk")
    for _ in range(3):
        assert images("in/a.mp4", "-o", "out", "--overwrite")[0] == 0
    assert (folder / "out").is_symlink()
    assert sorted(os.listdir(folder / "disk")) == FRAMES
    assert sorted(os.listdir(folder)) == ["disk", "in", "out"]


@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_a_file_is_not_replaced_by_a_folder(folder, images, flag):
    (folder / "out").write_bytes(b"mine")
    before = content(folder)
    code, errors = images("in/a.mp4", "-o", "out", flag)
    assert code == 1 and "is a file, expected the name of a folder" in errors
    assert content(folder) == before
    assert sorted(os.listdir(folder)) == ["in", "out"]


def test_what_cannot_be_replaced_is_found_before_the_work(folder, images, monkeypatch):
    (folder / "out").mkdir()
    monkeypatch.chdir(folder / "out")
    for out in (".", folder / "out", "./"):
        code, errors = images("../in/a.mp4", "-o", out)
        assert code == 1 and "the working folder" in errors
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    code, errors = images("in/a.mp4", "-o", "out")
    assert code == 1 and "is a disk" in errors
    code, errors = images("in/a.mp4", "-o", "m" * 256)
    assert code == 1 and "cannot be written (File name too long)" in errors


def test_an_empty_file_or_a_folder_is_no_finished_clip(folder, model_file, capsys):
    flags = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--colors", "none", "--resume"]
    (folder / "out").mkdir()
    (folder / "out" / "a.mov").touch()
    assert main(["video", "in/a.mp4", "-o", "out", *flags]) == 0
    assert (folder / "out" / "a.mov").stat().st_size
    (folder / "out" / "a_mask.mkv").mkdir()
    assert main(["video", "in/a.mp4", "-o", "out", "--mask", *flags]) == 1
    assert "a_mask.mkv: is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [(), ("--recursive",)])
def test_a_folder_without_clips_is_told_beside_others(folder, images, flags):
    clip(folder / "shelf" / "inner", "b.mp4")
    code, error = images("in/a.mp4", "shelf", "-o", "out", *flags)
    assert code == 0
    assert ("note: shelf: no clips in this folder itself" in error) == (not flags)


@pytest.mark.parametrize("name", ["x.mov/", "x.mp4/."])
def test_a_name_that_ends_as_folders_do_is_one(folder, model_file, name):
    options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--colors", "none"]
    assert main(["video", "in/a.mp4", "-o", name, *options]) == 0
    assert os.listdir(name) == ["a.mov"]
    assert main(["video", "in/a.mp4", "-o", "-", *options]) == 2


@pytest.mark.skipif(os.name == "nt", reason="links need a permission")
@pytest.mark.parametrize("kind", ["clip", "background", "mask"])
def test_images_that_are_links_into_the_output_folder_are_not_replaced(folder, images, kind):
    (folder / "view").mkdir()
    target = folder / ("o_mask" if kind == "mask" else "o")
    target.mkdir()
    for number in (1, 2):
        Image.fromarray(picture(number, 64, 48)).save(target / f"frame_00000{number}.png")
        (folder / f"view/{number}.png").symlink_to(target / f"frame_00000{number}.png")
    before = content(folder)
    flags = {"background": ["--background", "view/%d.png"], "mask": ["--mask", "--mask-codec", "png"]}.get(kind, [])
    code, errors = images("in/a.mp4" if kind == "background" else "view", "-o", "o", "--overwrite", *flags)
    assert code == 1 and "is an input of this run" in errors
    assert content(folder) == before


@pytest.mark.skipif(os.name == "nt", reason="links need a permission")
@pytest.mark.parametrize("name", ["frame_000001.png", "frame_000007.png"])  # replaced by another, and lost
def test_a_background_that_is_a_link_into_the_output_folder_is_not_lost(folder, images, name):
    (folder / "o").mkdir()
    Image.fromarray(picture(1, 64, 48)).save(folder / "o" / name)
    (folder / "back.png").symlink_to(folder / "o" / name)
    before = content(folder)
    code, errors = images("in/a.mp4", "-o", "o", "--background", "back.png", "--overwrite")
    assert code == 1 and "is an input of this run" in errors
    assert content(folder) == before


@pytest.mark.skipif(os.name == "nt", reason="links need a permission")
@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_weights_that_are_a_link_to_an_output_are_not_replaced(folder, model_file, capsys, link, flag):
    out = folder / "o" / "a.mov"
    out.parent.mkdir()
    out.write_bytes(model_file.read_bytes())
    link(out, folder / "w.safetensors")
    before = content(folder)
    options = ["--device", "cpu", "--dtype", "fp32", "--colors", "none", "--model", "w.safetensors"]
    for name in ("o", "o/a.mov"):
        code = main(["video", "in/a.mp4", "-o", name, flag, *options])
        assert code == 1 or flag == "--resume"
        assert content(folder) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_replaced(folder, capsys):
    os.mkfifo("p.mov")
    assert main(["video", "in/a.mp4", "-o", "p.mov", "--overwrite"]) == 1
    assert "is a pipe or a device" in capsys.readouterr().err
    assert not os.path.isfile("p.mov")


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_what_comes_into_it_meanwhile_is_not_lost(folder, images, flags, monkeypatch):
    """Frames are replaced as a whole after hours, in which notes on them may have been written beside."""
    from birefnet_core.video.stages import Encoding

    (folder / "out").mkdir()
    if flags:
        (folder / "out" / "frame_000001.png").write_bytes(b"old")
    finish = Encoding.finish

    def appear_and_finish(self):
        (folder / "out" / "notes.txt").write_bytes(b"mine")
        finish(self)

    monkeypatch.setattr(Encoding, "finish", appear_and_finish)
    before = content(folder)
    code, errors = images("in/a.mp4", "-o", "out", *flags)
    assert code == 1 and ("holds notes.txt, which would be lost" if flags else "written it meanwhile") in errors
    assert content(folder) == {**before, "out/notes.txt": b"mine"}


def test_a_link_that_leads_nowhere_is_told_before_the_work(folder, images, model_file, monkeypatch, capsys):
    from birefnet_core.video.stages import Encoding

    (folder / "out").mkdir()
    (folder / "out" / "a.mov").symlink_to("nowhere")
    command = ["video", "in/a.mp4", "-o", "out", "--model", str(model_file), "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(Encoding, "finish", lambda self: pytest.fail("work was done"))
        assert main(command) == 1
        assert "is already there, as a link that leads nowhere" in capsys.readouterr().err
    assert os.readlink(folder / "out" / "a.mov") == "nowhere"
    assert main([*command, "--overwrite"]) == 0
    assert (folder / "out" / "a.mov").is_file()
