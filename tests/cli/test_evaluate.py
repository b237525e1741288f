"""birefnet evaluate, called through its parser."""

import csv
import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import birefnet_core.metrics.evaluate as evaluation
from birefnet_core import inference
from birefnet_core.cli.main import build_parser
from birefnet_core.errors import ConfigError, DatasetError
from birefnet_core.metrics import KEYS

RECORDED = Path(__file__).parents[1] / "fixtures" / "reference" / "metrics"
DIS = ("DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4", "DIS-VD")


def evaluate(*arguments):
    args = build_parser("evaluate").parse_args(["evaluate", "--quiet", *map(str, arguments)])
    return args.run(args)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def collection(tmp_path):
    """Sets of DIS5K with two small pairs each, in the field's layout; a good and a bad method."""
    rng = np.random.default_rng(0)
    for name in DIS:
        for stem in ("x", "y"):
            truth = np.zeros((30, 40), np.uint8)
            row, column = rng.integers(0, 15, 2)
            truth[row : row + 12, column : column + 20] = 255
            save(tmp_path / "data" / name / "gt" / f"{stem}.png", truth)
            save(tmp_path / "data" / name / "im" / f"{stem}.jpg", np.stack([truth] * 3, axis=-1))
            save(tmp_path / "good" / name / f"{stem}.png", truth)
            save(tmp_path / "bad" / name / f"{stem}.png", np.roll(truth, 4, axis=1))
    return tmp_path


def test_table_json_and_csv_of_the_recorded_set(tmp_path, capsys):
    out = tmp_path / "new"
    files = ("--json", out / "r.json", "--csv", out / "r.csv", "--image-csv", out / "i.csv", "--markdown", out / "r.md")
    assert evaluate("--pred", RECORDED / "pred", "--gt", RECORDED / "gt", *files) == 0
    shown = capsys.readouterr()
    assert "| metrics | pred " in shown.out
    assert "empty ground truth" in shown.err
    assert (out / "r.md").read_text("utf-8") == shown.out
    official = json.loads((RECORDED / "metrics.json").read_text())["set"]["official"]
    document = json.loads((out / "r.json").read_text("utf-8"))
    assert [key for key in document if key != "results"] == list(KEYS)
    for key in ("Sm", "maxF", "wF", "meanE", "MAE", "MSE", "HCE"):
        assert document[key] == pytest.approx(official[key], abs=1e-9)
    with (out / "i.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def test_sets_and_methods_in_one_table_with_the_paper_s_grouping(collection, capsys):
    methods = (f"ours={collection / 'good'}", collection / "bad")
    assert evaluate("--pred", *methods, "--gt", collection / "data", "--sets", ",".join(DIS)) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    sets = list(dict.fromkeys(row[0] for row in rows[2:]))
    assert sets == ["DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4", "DIS-TE(1-4)", "DIS-VD"]
    mean = [row for row in rows if row[0] == "DIS-TE(1-4)"]
    assert [row[1] for row in mean[:3]] == ["ours", "bad", "BiRefNet (Swin-L), paper"]
    assert mean[0][2] == "1.000"
    assert mean[2][2:8] == ["0.896", "0.858", "0.035", "0.901", "0.934", "916"]


def test_plot_and_sheets(collection):
    out = collection / "out"
    common = ("--pred", collection / "good", collection / "bad", "--gt", collection / "data", "--sets", "DIS-VD")
    wanted = ("--plot", out / "p.png", "--sheet", out / "s.png", "--worst", 1, "--worst-by", "MAE")
    assert evaluate(*common, *wanted, "--images", collection / "data") == 0
    assert sorted(path.name for path in out.iterdir()) == ["p.png", "s_bad_DIS-VD.png", "s_good_DIS-VD.png"]


def test_partial_results_are_kept(collection, capsys):
    (collection / "bad" / "DIS-VD" / "x.png").write_bytes(b"broken")
    (collection / "bad" / "DIS-TE1" / "x.png").unlink()
    common = ("--pred", collection / "bad", "--gt", collection / "data", "--sets", *DIS, "--metrics", "MAE")
    assert evaluate(*common) == 1
    shown = capsys.readouterr()
    assert "DIS-TE2" in shown.out
    assert "DIS-VD" in shown.out  # of the one readable pair
    assert "DIS-TE1 " not in shown.out
    assert "have no prediction: x" in shown.err
    assert "could not be measured" in shown.err
    assert evaluate(*common, "--allow-missing") == 0


def test_nothing_scored_is_an_error(collection):
    with pytest.raises(DatasetError, match="no set DIS-XX"):
        evaluate("--pred", collection / "good", "--gt", collection / "data", "--sets", "DIS-XX")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--pred DIR"),
        (("--model", "BiRefNet"), "--images DIR"),
        (("--pred", "a/m", "b/m"), "have the same name"),
        (("--pred", "a", "--sheet", "s.png", "--worst-by", "Conn"), "--worst-by Conn"),
        (("--pred", "a", "--worst-by", "nonsense"), "--worst-by nonsense"),
        (("--pred", "a", "--save", "masks"), "--save is of masks that --model makes"),
        (("--pred", "a", "--size", "64"), "--size is of masks that --model makes"),
        (("--pred", "a", "--device", "cpu"), "--device is of masks that --model makes"),
        (("--pred", "a", "--images", "im"), "--images are for --model or --sheet"),
        (("--pred", "a", "--plot", "p.png", "--metrics", "MAE"), "add maxF"),
        (("--pred", "a", "--worst", "0"), "positive"),
        (("--pred", "a", "--hce-relax", "-3"), "-3"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_work(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate("--gt", tmp_path, *options)


def test_matting_errors_stand_beside_the_protocol(collection, capsys):
    assert evaluate("--pred", collection / "good", "--gt", collection / "data", "--sets", "DIS-VD", "--matting") == 0
    assert "SAD ↓" in capsys.readouterr().out


def test_the_cache_serves_a_second_run(collection, capsys, monkeypatch):
    command = ("--pred", collection / "bad", "--gt", collection / "data", "--sets", "DIS-VD", "--workers", 1)
    command += ("--cache", collection / "cache.sqlite")
    assert evaluate(*command) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(evaluation, "measure_files", None)  # a pair measured again would fail
    assert evaluate(*command) == 0
    assert capsys.readouterr().out == first


class Brightness:
    """Stands for a Segmenter: the mask is the mean of the colours."""

    def __init__(self, model):
        self.model = model

    def network_size(self, size, height, width):
        return size

    def __call__(self, images, size=None):
        assert images.dtype == torch.float32
        assert size == self.model["size"]
        return images.mean(dim=-1)


@pytest.fixture
def stub_model(monkeypatch):
    seen = {"size": None}
    monkeypatch.setattr(
        import_module("birefnet_core.checkpoints"), "load_model", lambda name, device, fused: seen | {"name": name}
    )
    monkeypatch.setattr(inference, "Segmenter", Brightness)
    return seen


def test_a_model_is_segmented_with_and_scored_in_one_go(collection, stub_model, capsys):
    data = collection / "data"
    common = ("--gt", data, "--images", data, "--sets", "DIS-VD", "DIS-TE1", "--metrics", "MAE", "maxF")
    before = sorted(data.rglob("*"))
    assert evaluate("--model", "dir/BiRefNet_lite.safetensors", *common, "--save", collection / "masks") == 0
    assert "BiRefNet_lite.safetensors" in capsys.readouterr().out
    assert sorted(path.name for path in (collection / "masks" / "DIS-VD").iterdir()) == ["x.png", "y.png"]
    assert sorted(data.rglob("*")) == before
    assert evaluate("--model", "m", "--pred", collection / "good", *common, "--json", collection / "r.json") == 0
    results = json.loads((collection / "r.json").read_text("utf-8"))["results"]
    assert [(result["method"], result["set"]) for result in results] == [
        ("good", "DIS-VD"), ("m", "DIS-VD"), ("good", "DIS-TE1"), ("m", "DIS-TE1"),
    ]  # fmt: skip
    assert results[1]["scores"]["MAE"] < 0.02  # the images are the masks, but for JPEG


def test_sheet_shows_masks_of_a_model_that_are_not_kept(collection, stub_model):
    data = collection / "data" / "DIS-VD"
    command = ("--model", "m", "--gt", data / "gt", "--images", data / "im", "--metrics", "MAE", "--worst-by", "MAE")
    assert evaluate(*command, "--sheet", collection / "removed.png") == 0
    assert evaluate(*command, "--sheet", collection / "kept.png", "--save", collection / "masks") == 0
    removed, kept = (np.array(Image.open(collection / name)) for name in ("removed.png", "kept.png"))
    assert removed.std() > 0
    assert np.array_equal(removed, kept)


def test_sizes_of_a_model_are_those_of_segment(collection, stub_model):
    data = collection / "data" / "DIS-VD"
    command = ("--model", "m", "--gt", data / "gt", "--images", data / "im", "--metrics", "MAE")
    for text, size in (("64", 64), ("64x96", (64, 96)), ("native", "native")):
        stub_model["size"] = size
        assert evaluate(*command, "--size", text) == 0
    with pytest.raises(SystemExit):
        evaluate(*command, "--size", "large")


def test_what_was_guessed_of_an_image_is_noted(collection, stub_model, capsys):
    data = collection / "data" / "DIS-VD"
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("white", "black")]
    frames[0].save(data / "im" / "x.gif", save_all=True, append_images=frames[1:])
    (data / "im" / "x.jpg").unlink()
    assert evaluate("--model", "m", "--gt", data / "gt", "--images", data / "im", "--metrics", "MAE") == 0
    assert "x.gif: it has several frames or pages, of which the first was read" in capsys.readouterr().err


def test_images_that_cannot_be_read_are_left_out(collection, stub_model, capsys):
    data = collection / "data" / "DIS-VD"
    (data / "im" / "x.jpg").write_bytes(b"broken")
    assert evaluate("--model", "m", "--gt", data / "gt", "--images", data / "im", "--metrics", "MAE") == 1
    shown = capsys.readouterr()
    assert "x.jpg: not an image that can be read" in shown.err
    assert "| DIS-VD | m " in shown.out


def test_without_opencv_the_table_lacks_hce_and_says_why(collection, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert evaluate("--pred", collection / "good", "--gt", collection / "data", "--sets", "DIS-VD") == 0
    assert "pip install opencv-python-headless" in capsys.readouterr().err
