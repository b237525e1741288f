"""`birefnet segment` replaces no image it reads, and finds clashes before it begins."""

import os
from pathlib import Path

import pytest

from birefnet_core.cli import outputs, segment

from .stub_segmenter import Brightness, content, names, run, save

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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--resume",)])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "cut-out"])
def test_a_pipe_is_not_replaced(folder, kind, flags, capsys):
    save(folder / "a.jpg")
    pipe = folder.parent / "out" / ("a_cutout.png" if kind == "cut-out" else "a.png")
    pipe.parent.mkdir()
    os.mkfifo(folder.parent / "pipe" if kind == "link" else pipe)
    if kind == "link":
        pipe.symlink_to(folder.parent / "pipe")
    out = pipe if kind == "file" else pipe.parent
    assert run(folder / "a.jpg", "-o", out, *flags, *(["--cutout"] if kind == "cut-out" else [])) == 1
    assert pipe.is_fifo()
    assert capsys.readouterr().err.count("is a pipe or a device") == 1
    assert os.listdir(pipe.parent) == [pipe.name]


@pytest.mark.parametrize("flags", [("--overwrite",), ("--overwrite", "--resume")])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_weights_are_not_replaced(folder, link, flags, capsys):
    """Under a name that a mask has: what they hold is not looked at before."""
    save(folder / "a.jpg")
    weights = folder.parent / "out" / "a.png"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    model = weights
    if link:
        model = folder.parent / "w.pth"
        link(weights, model)
    assert run(folder, "-o", "out", "--model", model, *flags) == 1
    assert weights.read_bytes() == b"weights"
    assert "from which the network is loaded" in capsys.readouterr().err


def test_a_link_that_leads_nowhere_is_there(folder):
    save(folder / "a.jpg")
    out = folder.parent / "out"
    out.mkdir()
    (out / "a.png").symlink_to("nowhere")
    assert run(folder, "-o", out) == 1
    assert (out / "a.png").is_symlink()


@pytest.mark.parametrize("kind", ["empty", "lost link", "empty cut-out"])
def test_what_is_no_finished_mask_is_made_when_the_run_goes_on(folder, kind, capsys):
    save(folder / "a.jpg")
    assert run(folder, "-o", "out", "--cutout") == 0
    before = content(Path("out"))
    path = Path("out", "a_cutout.png" if "cut-out" in kind else "a.png")
    path.unlink()
    path.symlink_to("nowhere") if "link" in kind else path.touch()
    assert run(folder, "-o", "out", "--cutout") == 1
    assert run(folder, "-o", "out", "--cutout", "--resume") == 0
    assert content(Path("out")) == before


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--overwrite",)])
@pytest.mark.parametrize("name", ["a.png", "a_cutout.png"])
@pytest.mark.parametrize("link", [False, True])
def test_a_folder_in_the_place_of_a_mask_is_told_before_work_begins(folder, flags, name, link, capsys):
    """A link to a folder was replaced, and so the images that were read through it were no longer there."""
    save(folder / "a.jpg")
    save(folder / "more" / "b.jpg")
    place = Path("out", name)
    place.parent.mkdir()
    place.symlink_to(folder / "more") if link else place.mkdir()
    Brightness.seen.clear()
    more = [place / "b.jpg"] if link else []
    assert run(folder / "a.jpg", *more, "-o", "out", "--cutout", *flags) == 1
    assert f"{place} is a folder, expected the place of its" in capsys.readouterr().err
    assert len(Brightness.seen) == len(more)
    assert place.is_dir() and place.is_symlink() == link


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_weights_named_with_a_tilde_are_not_replaced(folder, link, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(folder.parent))
    save(folder / "a.jpg")
    place = Path("out", "a.png")
    place.parent.mkdir()
    place.write_bytes(b"weights")
    link(place.absolute(), folder.parent / "m.safetensors")
    assert run(folder, "-o", "out", "--overwrite", "--model", "~/m.safetensors") == 1
    assert "from which the network is loaded" in capsys.readouterr().err
    assert place.read_bytes() == b"weights"


@pytest.mark.parametrize(("argument", "out"), [("", "out"), ("in", "")])
def test_empty_names_are_not_the_working_folder(folder, argument, out, capsys):
    save(folder.parent / "a.jpg")
    before = content(folder.parent)
    assert run(argument, "-o", out) == 2
    assert "is empty" in capsys.readouterr().err
    assert content(folder.parent) == before


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


def test_a_mask_and_a_folder_of_one_name_clash(folder, capsys):
    save(folder / "x.jpg")
    save(folder / "x.png" / "y.jpg")
    save(folder / "z" / "x.jpg")
    assert run(folder, "-o", "out", "--recursive") == 1
    assert names(Path("out")) == ["x.png", "z/x.png"]
    assert "y.jpg: " in capsys.readouterr().err
    assert run(folder / "x.png", folder / "x.jpg", "-o", "out2") == 0


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


@pytest.mark.parametrize("source", ["in", "in/*", "in/**/*"])
@pytest.mark.parametrize("flags", [("--resume",), ("--overwrite",)])
def test_masks_beside_the_images_are_no_images(folder, source, flags):
    save(folder / "a.jpg")
    save(folder / "sub" / "b.jpg")
    before = content(folder)
    for _ in range(3):
        assert run(source, "-o", folder, "--recursive", "--cutout", *flags) == 0
    after = content(folder)
    assert {name: after[name] for name in before} == before
    stems = "a" if source == "in/*" else "ab"
    assert len(after) == len(before) + 2 * len(stems)
    assert {f"{stem}_cutout.png" for stem in stems} <= {Path(name).name for name in after}


def test_a_mask_that_is_named_is_an_image(folder):
    save(folder / "a.jpg")
    assert run(folder, "-o", "out") == 0
    assert run("out/a.png", "-o", "out2") == 0
    assert run("out", "-o", "out3") == 0
    assert names(Path("out2")) == names(Path("out3")) == ["a.png"]


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


@pytest.mark.parametrize("name", ["x.png/", "x.png/.", "new/x.png/", "./-", "x/"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_name_that_ends_as_folders_do_is_one(folder, name, count):
    """``x.png/`` was the file x.png, and for several images an error that asked for a folder."""
    images = [save(folder / image) for image in ("a.jpg", "b.jpg")[:count]]
    assert run(*images, "-o", name) == 0
    assert names(Path(name)) == ["a.png", "b.png"][:count]


def test_a_file_in_a_folders_place_is_named(folder, capsys):
    Path("x.png").write_bytes(b"mine")
    assert run(save(folder / "a.jpg"), "-o", "x.png/", "--overwrite") == 2
    assert "x.png is a file; -o needs a folder" in capsys.readouterr().err
    assert Path("x.png").read_bytes() == b"mine"


@pytest.mark.parametrize("count", [1, 2])
def test_standard_output_is_refused(folder, capsys, count):
    """It was a folder of the name -."""
    images = [save(folder / image) for image in ("a.jpg", "b.jpg")[:count]]
    assert run(*images, "-o", "-") == 2
    assert "nothing is written to standard output; give a folder or a file" in capsys.readouterr().err
    assert not Path("-").exists()
