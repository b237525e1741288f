"""Values of ``birefnet video``'s flags at the edge of what they mean, and beyond."""

from fractions import Fraction

import pytest

from birefnet_core.cli.main import main
from birefnet_core.errors import ConfigError

from ..video.conftest import make_clip, probe

pytest.importorskip("av")


@pytest.fixture
def video(model_file, tmp_path):
    clip = make_clip(tmp_path, name="a.mp4", frames=3, size=(64, 48))

    def run(*arguments):
        options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--colors", "none", "--quiet"]
        try:
            return main(["video", str(clip), "-o", str(tmp_path / "o.mov"), *options, *arguments]), tmp_path / "o.mov"
        except SystemExit as end:
            return end.code, tmp_path / "o.mov"

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--start", "1e300"], "start_time is 1e+300, expected seconds"),
        (["--start=-1e300"], "start_time is -1e+300, expected seconds"),
        (["--start", "1000000001"], "expected seconds, at most 1000000000"),
        (["--start", "nan"], "start_time is NaN, expected a number"),
        (["--start", "inf"], "start_time is inf, expected seconds"),
        (["--duration", "1e300"], "duration is 1e+300, expected seconds"),
        (["--duration", "nan"], "duration is NaN, expected a number"),
        (["--duration", "inf"], "duration is inf, expected seconds"),
        (["--duration=-1"], "duration is -1.0, expected seconds"),
        (["--fps", "1/0"], "--fps: '1/0': expected a number such as 25 or 24000/1001"),
        (["--fps", "fast"], "--fps: 'fast': expected a number"),
        (["--fps", ""], "--fps: '': expected a number"),
        (["--fps", "1e999999999"], "--fps: '1e999999999': expected a number"),
        (["--fps", "0"], "frame_rate is 0, expected above 0"),
        (["--only-mask", "--background", "#fff"], "--only-mask writes nothing over a --background"),
        (["--premultiplied", "--background", "#fff"], "--premultiplied is of cut-outs"),
        (["--premultiplied", "--only-mask"], "--premultiplied is of cut-outs"),
        (["--fit", "stretch"], "--fit says how a --background lies behind the subject"),
        (["--mask-codec", "png"], "--mask-codec is of masks: give --mask or --only-mask"),
        (["--only-mask", "--mask-codec", "png", "--codec", "ffv1"], "--codec ffv1 and --mask-codec png are of one"),
        (["--only-mask", "--mask-codec", "png"], "png writes an image for each frame; give a folder"),
        (["--codec", "vp9", "--crf", "64"], "vp9 is written to .webm"),
        (["--crf", "64"], "crf=64: prores has none"),
        (["--batch-size", "0"], "batch_size=0: expected a whole number, at least 1"),
        (["--batch-size=-3"], "batch_size=-3: expected a whole number, at least 1"),
    ],
)
def test_values_that_mean_nothing_are_refused_before_work(video, capsys, arguments, said):
    code, path = video(*arguments)
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert "Traceback" not in error
    assert not path.exists()


@pytest.mark.parametrize("start", ["1e9", "99"])
def test_a_start_behind_the_end_is_the_clips(video, capsys, start):
    code, path = video("--start", start)
    assert code == 1
    assert "no frame from" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        (["--start=-1e9"], 3),
        (["--duration", "1e9"], 3),
        (["--start", "1e-9"], 3),
        (["--duration", "1e-9"], 1),
        (["--batch-size", "2"], 3),
    ],
)
def test_values_at_the_edge_are_taken(video, arguments, frames):
    code, path = video(*arguments)
    assert code == 0
    assert len(probe(path).times) == frames


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("o.avi", "-o o.avi: .avi is not written; use one of .mov, .mp4"),
        ("o.M4V", "o.M4V/ for a folder"),
        ("o.jpg", "-o o.jpg: .jpg is not written"),
        ("shot_%04d.png", "give --codec png, and their folder"),
        ("%d.jpg", "give --codec png, and their folder"),
    ],
)
@pytest.mark.parametrize("codec", [(), ("--codec", "png")])
def test_names_of_files_that_are_not_written_are_refused(video, tmp_path, monkeypatch, capsys, name, said, codec):
    """They became folders of that name, and the pattern one animated PNG."""
    monkeypatch.chdir(tmp_path)
    code, _ = video("-o", name, *codec)
    assert code == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]
    (tmp_path / name).mkdir()
    assert video("-o", name)[0] == 0
    assert [path.name for path in (tmp_path / name).iterdir()] == ["a.mov"]


@pytest.mark.parametrize(
    ("text", "rate"), [("25", Fraction(25)), ("23.976", Fraction(2997, 125)), ("24000/1001", Fraction(24000, 1001))]
)
def test_rates_are_exact(text, rate):
    from birefnet_core.cli.video import parse_rate

    assert parse_rate(text) == rate


@pytest.mark.parametrize("values", [{"start_time": 1e300}, {"start_time": -2e9}, {"duration": 2e9}])
def test_options_of_python_have_the_same_bounds(values):
    from birefnet_core.video import VideoOptions

    with pytest.raises(ConfigError, match="at most 1000000000"):
        VideoOptions(**values)


def test_the_codec_of_a_mask_is_that_of_only_masks_too(model_file, tmp_path):
    clip = make_clip(tmp_path, name="a.mp4", frames=3, size=(64, 48))
    options = ["--model", str(model_file), "--device", "cpu", "--dtype", "fp32", "--quiet", "--only-mask"]
    for path in ("m.mkv", "folder/"):
        assert main(["video", str(clip), "-o", f"{tmp_path}/{path}", *options, "--mask-codec", "h264"]) == 0
        written = tmp_path / path
        stream = probe(written if written.is_file() else next(written.iterdir()))
        assert stream.codec == "h264"
    assert main(["video", str(clip), "-o", f"{tmp_path}/images", *options, "--mask-codec", "png"]) == 0
    assert len(list((tmp_path / "images").glob("frame_*.png"))) == 3
