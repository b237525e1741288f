"""The command line: clips in, cut-outs out."""

import os
import signal
import sys
import threading

import pytest
import torch

import birefnet_core
from birefnet_core.cli.main import main
from birefnet_core.errors import CheckpointError, ImageError, MemoryLimitError

from ..video.conftest import make_clip, picture, probe

pytest.importorskip("av")


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.mp4", "b.mkv", "deeper/c.mp4"):
        make_clip(folder, name=name, frames=3, size=(64, 48))
    (folder / "notes.txt").write_text("no clip")
    return folder


@pytest.fixture
def video(model_file, tmp_path):
    def run(*arguments, out="out"):
        options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--colors", "none"]
        return main(["video", *map(str, arguments), "-o", str(tmp_path / out), *options]), tmp_path / out

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("out", "codec"), [("o.mov", "prores"), ("o.webm", "vp9"), ("o.gif", "gif"), ("o.apng", "apng")]
)
def test_the_ending_says_what_is_written(video, clips, out, codec):
    code, path = video(clips / "a.mp4", out=out)
    assert code == 0
    assert probe(path).codec == codec
    assert len(probe(path).times) == 3


def test_a_folder_of_clips_keeps_its_layout(video, clips, capsys):
    code, out = video(clips, "--recursive", "--mask")
    assert code == 0
    assert files(out) == ["a.mov", "a_mask.mkv", "b.mov", "b_mask.mkv", "deeper/c.mov", "deeper/c_mask.mkv"]
    assert "3 of 3 clips segmented" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--overwrite",), ("--resume", "--overwrite")])
def test_two_clips_of_one_output_are_not_both_done(video, clips, capsys, flags):
    assert video(clips / "a.mp4")[0] == 0
    made = (clips.parent / "out" / "a.mov").read_bytes()
    (clips / "b.mkv").rename(clips / "a.mkv")
    code, out = video(clips / "a.mp4", clips / "a.mkv", *flags)
    assert code == 1
    shown = capsys.readouterr()
    assert f"not done: {clips / 'a.mkv'}: {clips / 'a.mp4'} has the same output" in shown.err
    assert f"{1 if flags else 0} of 2 clips segmented" in shown.out
    assert files(out) == ["a.mov"]
    assert (out / "a.mov").read_bytes() == made or "--overwrite" in flags


@pytest.mark.parametrize("codec", [None, "vp9", "gif", "apng"])
def test_what_earlier_runs_wrote_beside_the_clips_is_no_clip(video, clips, capsys, codec):
    flags = ["--mask", *(["--codec", codec] if codec else [])]
    assert video(clips, *flags, out="clips")[0] == 0
    written = files(clips)
    assert len(written) == 4 + 4
    before = {name: (clips / name).read_bytes() for name in ("a.mp4", "b.mkv")}
    for more in ("--resume", "--overwrite"):
        capsys.readouterr()
        assert video(clips, *flags, more, out="clips")[0] == 0
        assert "2 of 2 clips segmented" in capsys.readouterr().out
    assert video(clips, *flags, out="clips/a.mov" if codec is None else "clips")[0] != 0  # already there
    assert files(clips) == written
    assert {name: (clips / name).read_bytes() for name in before} == before


def test_an_output_folder_below_the_clips_is_not_searched(video, clips, capsys):
    for _ in range(2):
        assert video(clips, "--recursive", "--overwrite", out="clips/out")[0] == 0
        assert "3 of 3 clips segmented" in capsys.readouterr().out
    make_clip(clips / "out", name="mine.mp4", frames=3, size=(64, 48))
    assert video(clips, "--recursive", "--resume", out="clips/out")[0] == 0
    assert "3 of 3" in capsys.readouterr().out


def test_a_clip_of_someone_else_in_the_output_folder_is_a_clip(video, clips, capsys):
    make_clip(clips, name="c.mov", frames=3, size=(64, 48), codec="prores_ks", pixels="yuv444p10le")
    assert video(clips, "--overwrite", out="clips")[0] == 1
    assert "is an input of this run" in capsys.readouterr().err
    assert video(clips, "--only-mask", "--overwrite", out="clips")[0] == 1  # b.mkv would be replaced


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--background", "#fff"], ["a.mp4", "b.mp4"]),
        (["--only-mask"], ["a.mkv", "b.mkv"]),
        (["--codec", "vp9"], ["a.webm", "b.webm"]),
        (["--codec", "png"], [f"{clip}/frame_00000{n}.png" for clip in "ab" for n in (1, 2, 3)]),
        (["--codec", "exr", "--only-mask"], [f"{clip}/frame_00000{n}.exr" for clip in "ab" for n in (1, 2, 3)]),
        (["--background", "0,0,255", "--codec", "hevc", "--crf", "30"], ["a.mp4", "b.mp4"]),
    ],
)
def test_flags_choose_the_kind_and_the_codec(video, clips, flags, expected):
    code, out = video(clips, *flags)
    assert code == 0
    assert files(out) == expected


def test_images_are_a_clip(video, tmp_path):
    from PIL import Image

    (tmp_path / "shot.v2").mkdir()
    for number in range(3):
        Image.fromarray(picture(number, 64, 48)).save(tmp_path / "shot.v2" / f"{number:04d}.png")
    code, out = video(tmp_path / "shot.v2", "--fps", "24000/1001")
    assert (code, files(out)) == (0, ["shot.v2.mov"])
    code, out = video(tmp_path / "shot.v2" / "%04d.png", out="one.webm")
    assert (code, len(probe(out).times)) == (0, 3)


def test_clips_that_cannot_be_read_are_skipped_and_named(video, clips, capsys):
    (clips / "bad.mp4").write_bytes(b"no clip")
    code, out = video(clips, clips / "nowhere.mp4")
    assert code == 1
    assert files(out) == ["a.mov", "b.mov"]
    shown = capsys.readouterr()
    assert "2 of 4 clips segmented" in shown.out
    assert "bad.mp4: cannot be read as a clip" in shown.err
    assert "nowhere.mp4: no such file" in shown.err
    assert "Traceback" not in shown.err


def test_resume_skips_what_is_done_and_nothing_is_overwritten(video, clips, capsys):
    video(clips / "a.mp4", out="out/a.mov")
    (clips.parent / "out" / "b.mov").write_bytes(b"mine")
    before = (clips.parent / "out" / "a.mov").stat().st_mtime_ns
    code, out = video(clips)
    assert code == 1
    assert "already there (--overwrite replaces it)" in capsys.readouterr().err
    code, out = video(clips, "--resume", "--mask")  # of neither the mask is there: it is made, and the others stay
    assert code == 0
    assert files(out) == ["a.mov", "a_mask.mkv", "b.mov", "b_mask.mkv"]
    assert (out / "a.mov").stat().st_mtime_ns == before and (out / "b.mov").read_bytes() == b"mine"
    done = (out / "a.mov").stat().st_mtime_ns
    assert video(clips, "--resume", "--mask")[0] == 0
    assert (out / "a.mov").stat().st_mtime_ns == done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--background", "reddish"], "no file of that name"),
        (["--codec", "h264"], "cannot hold a cutout"),
        (["--temporal-radius", "-1"], "temporal_radius"),
        (["--size", "native", "--crf", "3"], "prores has none"),
    ],
)
def test_wrong_calls_end_with_2(video, clips, capsys, arguments, words):
    code, out = video(clips, *arguments)
    assert code == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_one_file_for_several_clips_is_refused(video, clips, capsys):
    assert video(clips, out="one.mov")[0] == 2
    assert "is one file, but there are 2 clips" in capsys.readouterr().err


def test_torchrun_shares_the_clips(video, clips, monkeypatch):
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        code, out = video(clips, out=f"of{rank}")
        assert (code, files(out)) == (0, [["a.mov"], ["b.mov"]][int(rank)])


def test_a_cut_and_no_sound(video, clips):
    _, path = video(clips / "a.mp4", "--start", "0.04", "--duration", "0.05", "--no-audio", out="o.mov")
    found = probe(path)
    assert (len(found.times), found.audio) == (2, [])


@pytest.mark.parametrize("flags", [["--overwrite"], ["--resume", "--mask"]])
def test_no_output_replaces_another_clip_of_the_run(video, tmp_path, capsys, flags):
    folder = tmp_path / "clips"
    folder.mkdir()
    make_clip(folder, name="a.mp4", frames=2, size=(64, 48))
    make_clip(folder, name="a.mov", frames=2, size=(64, 48))
    before = (folder / "a.mov").read_bytes()
    code, _ = video(folder, *flags, out="clips")
    assert code == 1
    assert (folder / "a.mov").read_bytes() == before
    assert "a.mov is an input of this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 15), 143)]
)
@pytest.mark.parametrize("keep", [False, True])
def test_interrupting_removes_or_keeps_what_is_finished(video, tmp_path, monkeypatch, capsys, keep, number, expected):
    source = make_clip(tmp_path, frames=40, size=(64, 48))
    monkeypatch.setattr(
        "birefnet_core.cli.video._advance", lambda bar, state: state.done == 3 and os.kill(os.getpid(), number)
    )
    before = signal.getsignal(number)
    code, path = video(source, *(["--keep-partial"] * keep), out="out/o.mov")
    assert code == expected
    assert signal.getsignal(number) is before
    if keep:
        assert len(probe(path).times) == 3
        assert "first 3 frames were kept" in capsys.readouterr().err
    else:
        assert files(tmp_path / "out") == []


def test_an_interrupt_says_what_was_done_and_what_failed(video, clips, monkeypatch, capsys):
    (clips / "a.mp4").write_bytes(b"no clip")
    monkeypatch.setattr("birefnet_core.cli.video._advance", lambda bar, state: os.kill(os.getpid(), signal.SIGINT))
    assert video(clips)[0] == 130
    shown = capsys.readouterr()
    assert "a.mp4: cannot be read as a clip" in shown.err and "--resume does the clips" in shown.err
    assert "0 of 2 clips segmented" in shown.out


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP")
def test_signals_that_the_shell_ignores_stay_ignored(video, clips, monkeypatch):
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in the background of a script
    try:
        monkeypatch.setattr("birefnet_core.cli.video._advance", lambda bar, state: os.kill(os.getpid(), signal.SIGINT))
        assert video(clips)[0] == 0
    finally:
        signal.signal(signal.SIGINT, former)


ERRORS = [
    CheckpointError("the network computes NaN"),
    MemoryLimitError("too little memory"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ImageError("no mask"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_clip_that_cannot_be_segmented_does_not_end_the_others(video, clips, monkeypatch, capsys, error):
    from birefnet_core.inference import Segmenter

    compute, calls = Segmenter.__call__, []

    def fail_once(self, *args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return compute(self, *args, **options)

    monkeypatch.setattr(Segmenter, "__call__", fail_once)
    code, out = video(clips)
    assert (code, files(out)) == (1, ["b.mov"])
    shown = capsys.readouterr()
    assert "1 of 2 clips segmented" in shown.out and "Traceback" not in shown.err
    assert str(error) in shown.err or "a.mp4: too little memory" in shown.err
    code, _ = video(clips, "--resume")
    assert (code, files(out)) == (0, ["a.mov", "b.mov"])


def test_links_without_a_target_and_folders_that_cannot_be_listed_are_named(video, clips, monkeypatch, capsys):
    (clips / "lost.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(clips / "pipe.mov")
    (clips / ".hidden").mkdir()
    make_clip(clips / ".hidden", name="d.mp4", frames=2, size=(64, 48))
    listing = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, out = video(clips, "--recursive")
    assert (code, files(out)) == (1, ["a.mov", "b.mov"])
    shown = capsys.readouterr().err
    for name in ("lost.mp4: leads to no file", "pipe.mov: leads to no file", "deeper: the folder cannot be listed"):
        assert name in shown


def test_a_clip_named_twice_is_segmented_once(video, clips, capsys):
    assert video(clips / "a.mp4", clips, clips / "deeper" / ".." / "a.mp4")[0] == 0
    assert "2 of 2 clips segmented" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_playlist_beside_the_clips_opens_no_other_file(video, clips, capsys):
    os.mkfifo(clips / "pipe")
    pipe = os.open(clips / "pipe", os.O_RDWR | os.O_NONBLOCK)
    os.write(pipe, b"untouched")
    for name, text in (
        ("c.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clips / 'pipe'}\n#EXT-X-ENDLIST\n"),
        ("d.mkv", "ffconcat version 1.0\nfile pipe\n"),
    ):
        (clips / name).write_text(text)
    end = threading.Timer(20, os.close, [pipe])  # a reader would wait for ever
    end.start()
    assert video(clips, out="clips")[0] == 1
    end.cancel()
    assert os.read(pipe, 99) == b"untouched"
    os.close(pipe)
    errors = capsys.readouterr().err
    assert "c.mp4: cannot be read as a clip" in errors and "d.mkv: cannot be read as a clip" in errors


@pytest.mark.parametrize(("argument", "out"), [("", "out"), ("a.mp4", "")])
def test_empty_names_are_not_the_working_folder(clips, monkeypatch, capsys, argument, out):
    monkeypatch.chdir(clips)
    before = files(clips)
    assert main(["video", argument, "-o", out]) == 2
    assert "is empty" in capsys.readouterr().err
    assert files(clips) == before


def test_without_pyav_one_sentence_says_so(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(birefnet_core, "video", birefnet_core.video)  # imported anew below
    for name in [name for name in sys.modules if name.startswith("birefnet_core.video.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["video", str(clips / "a.mp4"), "-o", str(tmp_path / "o.mov")]) == 2
    assert "pip install av" in capsys.readouterr().err
