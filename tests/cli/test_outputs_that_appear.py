"""Two runs into one folder: without --overwrite neither replaces what the other has written meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from birefnet_core.cli import segment_plan
from birefnet_core.cli.main import main

from ..video.conftest import make_clip
from .stub_segmenter import Brightness, content, names, run, save

MEANWHILE = "another program has written it meanwhile, and it is kept"


@pytest.fixture
def appearing(monkeypatch):
    """Files that another program writes while the first image is segmented."""

    def prepare(*paths):
        def write(images):
            for path in paths if len(Brightness.seen) == 1 else ():
                path.write_bytes(b"theirs")

        monkeypatch.setattr(Brightness, "fail", staticmethod(write))

    return prepare


@pytest.mark.parametrize("name", ["a.png", "a_cutout.png"])
def test_an_empty_file_that_another_run_fills_meanwhile_stays(folder, name, appearing, capsys):
    save(folder / "a.jpg")
    out = folder.parent / "out"
    out.mkdir()
    (out / name).touch()
    appearing(out / name)
    assert run(folder, "-o", "out", "--cutout", "--resume") == 1
    assert f"{name}: not written ({MEANWHILE})" in capsys.readouterr().err
    assert (out / name).read_bytes() == b"theirs"


@pytest.mark.parametrize("flags", [(), ("--resume",)])
@pytest.mark.parametrize("name", ["a.png", "a_cutout.png"])
def test_a_file_that_appears_stays_and_the_other_images_are_done(folder, name, flags, appearing, capsys):
    for image in "ab":
        save(folder / f"{image}.jpg")
    out = folder.parent / "out"
    appearing(out / name)
    assert run(folder, "-o", "out", "--cutout", *flags) == 1
    said = capsys.readouterr()
    assert f"{name}: not written ({MEANWHILE})" in said.err and said.err.count("not done") == 1
    assert "1 of 2 images segmented" in said.out
    assert (out / name).read_bytes() == b"theirs"
    assert {"b.png", "b_cutout.png", name} <= set(names(out))
    assert not [path for path in names(out) if path.endswith(".part")]


def test_it_is_replaced_with_overwrite(folder, appearing):
    save(folder / "a.jpg")
    appearing(folder.parent / "out" / "a.png")
    assert run(folder, "-o", "out", "--overwrite") == 0
    assert (folder.parent / "out" / "a.png").read_bytes() != b"theirs"


def test_resuming_replaces_what_is_empty_and_nothing_else(folder):
    for image in "abc":
        save(folder / f"{image}.jpg")
    out = folder.parent / "out"
    out.mkdir()
    (out / "a.png").touch()  # of a run that a full disk ended
    (out / "b.png").write_bytes(b"touched up by hand, without its cut-out")
    (out / "c_cutout.png").write_bytes(b"without its mask")
    assert run(folder, "-o", "out", "--cutout", "--resume") == 0
    found = content(out)
    assert len(found) == 6 and all(found.values())
    assert found["b.png"] == b"touched up by hand, without its cut-out"
    assert found["c_cutout.png"] == b"without its mask"


PROGRAM = """
import sys, time
from pathlib import Path
from birefnet_core.cli import segment
from birefnet_core.cli.main import main
from tests.cli.stub_segmenter import Brightness

def wait(images):
    if len(Brightness.seen) == 1:
        Path(sys.argv[1]).touch()
        while not Path(sys.argv[2]).exists():
            time.sleep(0.01)
    images *= float(sys.argv[3])

segment.load_model = lambda *args, **options: None
segment.Segmenter = Brightness
Brightness.fail = staticmethod(wait)
sys.exit(main(["segment", "in", "-o", "out", "--device", "cpu", "--dtype", "fp32"]))
"""


def test_a_folder_that_another_run_makes_meanwhile_is_no_file(folder, monkeypatch):
    """Of two runs that began at once, one sometimes ended with ``out is a file``."""
    suffixes = segment_plan.image_suffixes

    def make_it():
        Path("out").mkdir(exist_ok=True)
        return suffixes()

    monkeypatch.setattr(segment_plan, "image_suffixes", make_it)
    assert run(save(folder / "a.jpg"), "-o", "out") == 0
    assert names(Path("out")) == ["a.png"]


def test_two_processes_write_each_mask_once(folder):
    for number in range(4):
        save(folder / f"{number}.jpg")
    root = Path(__file__).resolve().parents[2]
    signs = "sign 0", "sign 1"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, signs[own], signs[1 - own], str(0.5 * own)],
            env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for own in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in processes]
    failed = [err.count(MEANWHILE) for _, err in said]
    assert sum(failed) == 4, said
    for process, (out, _), count in zip(processes, said, failed, strict=True):
        assert process.returncode == (1 if count else 0)
        assert f"{4 - count} of 4 images segmented" in out
    assert names(folder.parent / "out") == [f"{number}.png" for number in range(4)]


@pytest.mark.parametrize(
    ("flags", "empty"), [((), False), (("--resume",), False), (("--resume",), True), (("--overwrite",), True)]
)
def test_a_clip_that_is_finished_meanwhile_stays(flags, empty, model_file, tmp_path, monkeypatch, capsys):
    """Of two runs with --resume, the one that came to a clip later replaced what the other had made of it."""
    pytest.importorskip("av")
    from birefnet_core.video.stages import Encoding

    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / "in", name=name, frames=2, size=(64, 48))
    out = tmp_path / "out"
    out.mkdir()
    if empty:  # as a full disk leaves them
        (out / "a_mask.mkv").touch()
        (out / "b.mov").symlink_to("nowhere")
    finish, made = Encoding.finish, []

    def appear_and_finish(self):
        made.append(self)
        if len(made) == 1:
            for name in ("a.mov", "b.mov", "b_mask.mkv"):
                (out / name).unlink(missing_ok=True)
                (out / name).write_bytes(b"theirs")
        finish(self)

    monkeypatch.setattr(Encoding, "finish", appear_and_finish)
    options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--colors", "none", "--mask"]
    code = main(["video", str(tmp_path / "in"), "-o", str(out), *options, *flags])
    theirs = {path.name for path in out.iterdir() if path.read_bytes() == b"theirs"}
    assert not [name for name in names(out) if name.endswith(".part")]
    if "--overwrite" in flags:
        assert code == 0 and not theirs
    else:
        assert code == 1 and theirs == {"a.mov", "b.mov", "b_mask.mkv"}
        assert capsys.readouterr().err.count("not done") == (1 if flags else 2)


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--overwrite",)])
@pytest.mark.parametrize("frames", [False, True])
def test_a_clip_that_appears_stays(flags, frames, model_file, tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    from birefnet_core.video.stages import Encoding

    make_clip(tmp_path, name="a.mp4", frames=2, size=(64, 48))
    out = tmp_path / "out"
    finish = Encoding.finish

    def appear_and_finish(self):
        finish(self)
        out.mkdir(exist_ok=True)
        (out / ("frame_000000.png" if frames else "a.mov")).write_bytes(b"theirs")

    monkeypatch.setattr(Encoding, "finish", appear_and_finish)
    codec = ["--codec", "png"] if frames else []
    options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--colors", "none"]
    code = main(["video", str(tmp_path / "a.mp4"), "-o", str(out), *options, *codec, *flags])
    said = capsys.readouterr()
    theirs = [path for path in out.rglob("*") if path.is_file() and path.read_bytes() == b"theirs"]
    if "--overwrite" in flags:
        assert code == 0 and not theirs
    else:
        assert code == 1 and MEANWHILE in said.err and theirs
