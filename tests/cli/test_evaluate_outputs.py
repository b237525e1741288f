"""`birefnet evaluate` finds before measuring what it cannot write, and replaces nothing it reads."""

import csv
import json
import os
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import birefnet_core.metrics.evaluate as evaluation
from birefnet_core import inference
from birefnet_core.cli.main import main

FILES = ("--json", "--csv", "--image-csv", "--markdown", "--plot", "--sheet", "--cache")
TRUTH = np.zeros((20, 30), np.uint8)
TRUTH[5:15, 5:20] = 255


def save(path, array=TRUTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stem in "ab":
        save(tmp_path / "truths" / f"{stem}.png")
        save(tmp_path / "pred" / f"{stem}.png", np.roll(TRUTH, 2, axis=1))
        save(tmp_path / "im" / f"{stem}.png", np.dstack([TRUTH] * 3))
    return tmp_path


def evaluate(*arguments, pred="pred"):
    command = [
        "evaluate",
        "--gt",
        "truths",
        "--metrics",
        "MAE",
        "maxF",
        "--worst-by",
        "MAE",
        "--quiet",
        "--workers",
        "1",
    ]
    return main([*command, *(["--pred", str(pred)] if pred else []), *map(str, arguments)])


@pytest.fixture
def no_measuring(monkeypatch):
    def fail(*args):
        raise AssertionError("measured")

    monkeypatch.setattr(evaluation, "measure_files", fail)


@pytest.fixture
def stub_model(monkeypatch):
    """A model whose masks are the mean of the colours."""

    class Brightness:
        def __init__(self, model):
            pass

        def network_size(self, size, height, width):
            return 32, 32

        def __call__(self, images, size=None):
            self.fail(images)
            return images.mean(dim=-1)

        @staticmethod
        def fail(images):
            pass

    monkeypatch.setattr(import_module("birefnet_core.checkpoints"), "load_model", lambda name, device, fused: None)
    monkeypatch.setattr(inference, "Segmenter", Brightness)
    return Brightness


@pytest.mark.parametrize("flag", FILES)
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pred", "is a folder"),
        ("file/x", "file is a file"),
        ("truths/a.png", "would replace a file that is read"),
        ("pred/b.png", "would replace a file that is read"),
        ("link.png", "would replace a file that is read"),
        ("hard.png", "would replace a file that is read"),
        ("/proc/x/y", "cannot be"),
    ],
)
def test_files_that_cannot_be_written_are_found_before_measuring(data, no_measuring, flag, path, words, capsys):
    (data / "file").write_text("x")
    (data / "link.png").symlink_to("truths/a.png")
    os.link(data / "pred" / "a.png", data / "hard.png")
    before = {p: p.read_bytes() for p in data.rglob("*.png")}
    assert evaluate(flag, path) == 2
    error = capsys.readouterr().err
    assert words in error
    assert flag in error
    assert {p: p.read_bytes() for p in data.rglob("*.png")} == before


@pytest.mark.parametrize("name", ["-", "./-"])
@pytest.mark.parametrize("flag", [*FILES, "--save"])
def test_standard_output_is_no_file_called_so(data, no_measuring, stub_model, flag, name, capsys):
    before = sorted(data.rglob("*"))
    assert evaluate(flag, name, *(["--model", "demo", "--images", "im"] if flag == "--save" else [])) == 2
    assert f"{flag} -: " in capsys.readouterr().err
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize(
    ("flag", "value"), [*((flag, "") for flag in (*FILES, "--save", "--images", "--gt", "--pred")), ("--pred", "name=")]
)
def test_an_empty_name_is_not_the_working_folder(data, no_measuring, stub_model, flag, value, capsys):
    save(data / "a.png", TRUTH)
    before = {path: path.read_bytes() for path in data.rglob("*.png")}
    images = [] if flag == "--images" else ["--images", "im"]
    try:
        code = evaluate(*images, "--model", "demo", flag, value)
    except SystemExit as ended:  # of argparse
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err
    assert flag in error and "is empty" in error
    assert {path: path.read_bytes() for path in data.rglob("*.png")} == before


@pytest.mark.parametrize("second", ["--csv", "--markdown", "--plot", "--sheet", "--cache"])
def test_two_results_in_one_file_are_found_before_measuring(data, no_measuring, second, capsys):
    assert evaluate("--json", "new/../r", second, "r") == 2
    assert "writes the same file" in capsys.readouterr().err


def test_a_sheet_of_several_methods_never_replaces_a_mask(data, no_measuring, capsys):
    save(data / "pred" / "s_other_truths.png")
    assert evaluate("--pred", "other", "--sheet", "pred/s.png") == 2
    assert "pred/s_other_truths.png: would replace a file that is read" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--plot", "--sheet"])
@pytest.mark.parametrize("name", ["a.pdf", "a.svg", "a.jpg", "a.png.jpg"])
def test_images_of_results_are_png(data, no_measuring, flag, name, capsys):
    assert evaluate(flag, name) == 2
    assert f"{flag} {name}: is a PNG file. Give a name that ends in .png." in capsys.readouterr().err
    assert not (data / name).exists()


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a"])
def test_names_of_png_files_are_taken(data, name):
    assert evaluate("--sheet", name, "--metrics", "MAE") == 0  # by the score that there is
    assert (data / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flag", FILES)
@pytest.mark.parametrize("place", ["truths", "pred"])
def test_images_of_results_do_not_become_masks(data, no_measuring, flag, place, capsys):
    assert evaluate(flag, f"{place}/new.png") == 2
    assert "by the next evaluation" in capsys.readouterr().err


def test_a_file_that_fails_at_the_end_does_not_cost_the_others(data, monkeypatch, capsys):
    from birefnet_core.cli import evaluate_outputs

    def full(results, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluate_outputs, "write_csv", full)
    assert evaluate("--csv", "r.csv", "--json", "r.json", "--image-csv", "i.csv") == 1
    captured = capsys.readouterr()
    assert "| truths " in captured.out
    assert "error: r.csv: not written (No space left on device)." in captured.err
    assert json.loads(Path("r.json").read_text())
    assert not Path("r.csv").exists()
    assert not list(data.glob(".*"))


def test_devices_and_links_are_written_through(data):
    (data / "kept.json").write_text("old")
    (data / "link.json").symlink_to("kept.json")
    assert evaluate("--json", "link.json", "--csv", "/dev/null") == 0
    assert not os.path.isfile("/dev/null")
    assert (data / "link.json").is_symlink()
    assert json.loads((data / "kept.json").read_text())


def test_a_write_protected_file_and_a_name_too_long_are_told(data, no_measuring, monkeypatch, capsys):
    Path("r.json").write_text("mine")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "r.json" and access(path, mode))
    assert evaluate("--json", "r.json") == 2
    assert evaluate("--json", "y" * 300) == 2
    said = capsys.readouterr().err
    assert "write-protected" in said
    assert "too long" in said


@pytest.mark.parametrize("save_to", ["truths", "im", "other", "linked"])
def test_masks_of_a_model_never_replace_what_is_read(data, stub_model, save_to, no_measuring, capsys):
    save(data / "other" / "a.png")
    save(data / "other" / "b.png")
    (data / "linked").symlink_to("im")
    before = {p: p.read_bytes() for p in data.rglob("*.png")}
    assert evaluate("--model", "m", "--images", "im", "--save", save_to, pred="other") == 2
    assert "--save" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in data.rglob("*.png")} == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_masks_of_a_model_never_replace_what_is_read_through_links(data, stub_model, link, capsys):
    (data / "masks").mkdir()
    link(data / "im" / "a.png", data / "masks" / "a.png")
    before = (data / "im" / "a.png").read_bytes()
    assert evaluate("--model", "m", "--images", "im", "--save", "masks", pred=None) == 2
    assert "would replace another file" in capsys.readouterr().err
    assert (data / "im" / "a.png").read_bytes() == before


@pytest.mark.parametrize("kind", ["photo", "notes", "link", "folder", "pipe"])
def test_masks_of_a_model_never_replace_what_is_no_mask(data, stub_model, no_measuring, kind, capsys):
    """``--save photos`` wrote over photos that had the names of the ground truths."""
    (data / "masks").mkdir()
    place = data / "masks" / "b.png"
    if kind == "pipe" and os.name == "nt":
        pytest.skip("has no such pipes")
    make = {
        "photo": lambda: save(place, np.dstack([TRUTH] * 3)),
        "notes": lambda: place.write_text("mine"),
        "link": lambda: place.symlink_to("nowhere"),
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
    }
    make[kind]()
    before = {p: os.lstat(p) for p in data.rglob("*.png")}
    assert evaluate("--model", "m", "--images", "im", "--save", "masks", pred=None) == 2
    assert "b.png is already there, and is no mask of a former run. Give another" in capsys.readouterr().err
    after = {p: os.lstat(p) for p in data.rglob("*.png")}
    assert {p: (s.st_ino, s.st_mtime_ns, s.st_size) for p, s in after.items()} == {
        p: (s.st_ino, s.st_mtime_ns, s.st_size) for p, s in before.items()
    }


def test_masks_whose_names_differ_in_case_clash_where_the_disk_folds_them(data, stub_model, monkeypatch, capsys):
    save(data / "truths" / "A.png")
    monkeypatch.setattr("birefnet_core.cli.outputs._folds_names", lambda folder: True)
    assert evaluate("--model", "m", "--images", "im", "--save", "masks", pred=None) == 2
    assert "would replace another file of this run" in capsys.readouterr().err


def test_masks_are_kept_beside_and_replaced_by_the_next_run(data, stub_model):
    for _ in range(2):
        assert evaluate("--model", "m", "--images", "im", "--save", "new/masks", pred=None) == 0
    assert sorted(os.listdir("new/masks")) == ["a.png", "b.png"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), None])
def test_an_image_without_a_mask_is_named_and_the_others_scored(data, stub_model, error, monkeypatch, capsys):
    save(data / "im" / "b.png", np.zeros((9, 9, 3), np.uint8))

    def fail(images):
        if images.shape[1] == 9:
            if error is None:
                images.fill_(float("nan"))  # the mask will be no number
            else:
                raise error

    monkeypatch.setattr(stub_model, "fail", staticmethod(fail))
    assert evaluate("--model", "m", "--images", "im", pred=None) == 1
    captured = capsys.readouterr()
    assert "| truths | m " in captured.out
    assert "b.png" in captured.err
    assert "left out" in captured.err


def test_the_alpha_of_an_image_counts(data, stub_model):
    for stem in "ab":
        save(data / "im" / f"{stem}.png", np.dstack([np.full((20, 30, 3), 255, np.uint8), TRUTH]))
    assert evaluate("--model", "m", "--images", "im", "--json", "r.json", pred=None) == 0
    assert json.loads(Path("r.json").read_text())["MAE"] == 0


def test_a_sheet_shows_what_can_be_read(data, stub_model):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.zeros((30, 20, 3), np.uint8)).save(data / "im" / "a.png", exif=exif)
    (data / "im" / "b.png").write_bytes(b"no image")
    assert evaluate("--images", "im", "--sheet", "s.png") == 0
    assert Image.open("s.png").size[0] > 1000


def test_names_of_any_kind_are_written(data):
    odd = os.fsdecode(b"raw\xff")
    for folder in ("truths", "pred"):
        save(data / folder / f"{odd}.png")
        save(data / folder / "猫 \x1b[31m.png")
    files = ("--json", "r.json", "--csv", "r.csv", "--image-csv", "i.csv", "--markdown", "r.md", "--sheet", "s.png")
    assert evaluate("--pred", "$x^{=pred", *files, "--plot", "p.png", pred="a|b=pred") == 0
    assert odd in json.loads(Path("r.json").read_text("utf-8"))["results"][0]["images"]
    with open("i.csv", encoding="utf-8") as file:
        assert {row["image"] for row in csv.DictReader(file)} >= {"a", r"raw\udcff"}
    assert r"a\|b" in Path("r.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "=", "nothing"])
def test_folders_that_cannot_be_are_told(data, name, capsys):
    assert evaluate(pred=name) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_mask_too_large_for_memory_is_left_out(data, monkeypatch, capsys):
    from birefnet_core.metrics import protocol

    read = protocol.read_mask

    def exhausted(path, **options):
        if path.name == "b.png":
            raise MemoryError
        return read(path, **options)

    monkeypatch.setattr(protocol, "read_mask", exhausted)
    assert evaluate() == 1
    captured = capsys.readouterr()
    assert "| truths " in captured.out
    assert "too little memory" in captured.err


@pytest.mark.parametrize("flag", [*FILES, "--onnx"])
@pytest.mark.parametrize("link", [None, os.link, os.symlink])
@pytest.mark.parametrize("model", ["m.onnx", "folder/m.onnx"])
def test_the_model_is_not_replaced(data, capsys, flag, link, model):
    path = data / model
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"weights")
    out = data / "out.onnx" if link else path
    if link:
        link(path, out)
    given = path.parent if path.parent != data else path
    if flag == "--onnx":
        assert main(["export", "--model", str(given), "--onnx", str(out), "--overwrite"]) == 2
    else:
        assert evaluate("--model", given, "--images", "im", flag, out, pred=None) == 2
    assert "would replace a file that is read" in capsys.readouterr().err
    assert path.read_bytes() == b"weights"


def test_a_temporary_folder_is_needed_for_masks_alone(data, stub_model, monkeypatch, capsys):
    def mkdtemp(*args, **options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    assert evaluate() == 0
    assert evaluate("--model", "m", "--images", "im", "--save", "kept") == 0
    assert evaluate("--model", "m", "--images", "im") == 2
    assert "no temporary folder for the masks" in capsys.readouterr().err
