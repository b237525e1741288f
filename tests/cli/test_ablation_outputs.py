"""`birefnet ablation` and `train --compare` replace nothing that they read, which is told before any work."""

import json
import os

import pytest

from birefnet_core.cli import ablation
from birefnet_core.cli.main import main
from birefnet_core.training import Recipe
from birefnet_core.training.ablation import SCORES_FILE

from ..training.conftest import write_shapes

needs_pipes = pytest.mark.skipif(os.name == "nt", reason="has no such pipes")
in_its_place = pytest.mark.parametrize(  # of a file that is to be written
    ("make", "words"),
    [(lambda path: path.mkdir(), "is a folder"), (lambda path: os.mkfifo(path), "is a pipe or a device")],
)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folders(tmp_path):
    return write_shapes(tmp_path / "train", 3), write_shapes(tmp_path / "val", 2, first=20)


@pytest.fixture
def run(folders, tmp_path, monkeypatch):
    """Runs the command, whose trainings must not begin, and gives its exit code."""
    monkeypatch.setattr(ablation, "ablate", lambda *_, **__: pytest.fail("work began"))

    def call(*flags, out=tmp_path / "out"):
        before = contents(tmp_path)
        data = ["--data", folders[0], "--val-data", folders[1], "--out", out, "--rows", "rm", "baseline"]
        code = main(["ablation", *map(str, [*data, *flags]), "--device", "cpu", "--backbone", "pvt_v2_b0"])
        assert contents(tmp_path) == before
        return code

    return call


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["ablation.md", "ablation.png"])
@pytest.mark.parametrize("source", ["train/im/shape00.png", "val/gt/shape20.png", "recipe.toml", "encoder.pth"])
def test_a_report_that_is_an_input_is_refused(run, tmp_path, source, name, link, capsys):
    (tmp_path / "recipe.toml").write_text(Recipe(epochs=1, init="", backbone="pvt_v2_b0").to_toml())
    (tmp_path / "encoder.pth").write_bytes(b"weights")
    assert (tmp_path / source).exists()
    (tmp_path / "out").mkdir()
    link(tmp_path / source, tmp_path / "out" / name)
    assert run("--recipe", tmp_path / "recipe.toml", "--encoder", tmp_path / "encoder.pth") == 2
    assert f"{name}: would replace a file that is read" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["masks/shape20.png", "best.safetensors", "samples/epoch_0001.png"])
def test_a_file_of_any_run_that_is_an_input_is_refused(run, tmp_path, name, seed, capsys):
    target = tmp_path / "out" / "rm" / f"seed{seed}" / name
    target.parent.mkdir(parents=True)
    encoder = tmp_path / "encoder.pth"
    encoder.write_bytes(b"weights")
    os.link(tmp_path / "val" / "im" / "shape21.png" if "png" in name else encoder, target)
    (tmp_path / "out" / "rm" / f"seed{seed}" / "metrics.jsonl").touch()  # as if a training had begun there
    assert run("--encoder", encoder) == 2
    said = capsys.readouterr().err
    assert "would replace a file that is read" in said or f"would be replaced by {name}" in said


def test_validation_masks_in_the_folder_of_a_run_are_not_replaced(run, tmp_path, folders, capsys):
    place = tmp_path / "out" / "baseline" / "seed1"
    place.mkdir(parents=True)
    (folders[1] / "im").rename(place / "images")
    (folders[1] / "gt").rename(place / "masks")
    assert run("--val-data", place) == 2
    assert "masks/shape20.png: would replace a file that is read" in capsys.readouterr().err


def test_the_weights_of_a_run_that_is_done_may_be_read(folders, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(ablation, "ablate", lambda *_, **__: begun.append(True) or iter(()))
    done = tmp_path / "out" / "rm" / "seed0"
    done.mkdir(parents=True)
    (done / "best.safetensors").write_bytes(b"weights")
    (done / SCORES_FILE).write_text("{}")
    (tmp_path / "out" / "ablation.md").write_text("# Ablation\n\n![p](ablation.png)\n")
    data = ["--data", folders[0], "--val-data", folders[1], "--out", tmp_path / "out", "--rows", "rm"]
    flags = ["--seeds", "1", "--encoder", done / "best.safetensors", "--backbone", "pvt_v2_b0"]
    assert main(["ablation", *map(str, [*data, *flags])]) == 0
    assert begun


@needs_pipes
@in_its_place
def test_a_report_that_cannot_be_written_is_told_before_any_work(run, tmp_path, make, words, capsys):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / "ablation.md")
    assert run() == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def trainings(tmp_path):
    """Two folders of trainings."""
    scores = dict.fromkeys(("Sm", "maxF", "meanF", "maxE", "meanE", "MAE"), 0.5)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text(Recipe().to_toml())
        row = {"kind": "validation", "epoch": 1, "step": 1, **scores}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return [str(tmp_path / name) for name in "ab"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["comparison.md", "comparison.png"])
@pytest.mark.parametrize("source", ["b/recipe.toml", "a/metrics.jsonl"])
def test_a_comparison_replaces_nothing_that_is_compared(trainings, tmp_path, source, name, link, capsys):
    (tmp_path / "out").mkdir()
    link(tmp_path / source, tmp_path / "out" / name)
    before = contents(tmp_path)
    assert main(["train", "--compare", *trainings, "--out", str(tmp_path / "out")]) == 2
    assert "which is compared. Give --out another folder" in capsys.readouterr().err
    assert contents(tmp_path) == before


@needs_pipes
@in_its_place
def test_a_comparison_that_cannot_be_written_is_told(trainings, tmp_path, make, words, capsys):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / "comparison.png")
    assert main(["train", "--compare", *trainings, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err


def test_a_comparison_may_be_written_again_and_beside_what_is_compared(trainings):
    for _ in range(2):
        assert main(["train", "--compare", *trainings, "--out", trainings[0]]) == 0


@pytest.mark.parametrize(("name", "kind"), [("md", ""), ("png", ""), ("md", "folder")])
@pytest.mark.parametrize("link", [False, True])
def test_files_that_are_of_no_report_stay(run, tmp_path, folders, name, kind, link, capsys):
    """``ablation`` and ``--compare`` wrote over notes of their user's, called as their reports."""
    out = tmp_path / "out"
    out.mkdir()
    for stem in ("ablation", "comparison"):
        place = out / f"{stem}.{name}"
        if kind:
            place.mkdir()
        elif link:
            (tmp_path / "mine").write_text("# Mine\n")
            place.symlink_to(tmp_path / "mine")
        else:
            place.write_text("# Mine\n")
    said = "is a folder" if kind else f"ablation.{name} would be replaced, and is of no such report"
    assert run() == 2
    assert said in capsys.readouterr().err
    for number in (1, 2):
        _write_run(tmp_path / f"run{number}")
    before = contents(tmp_path)
    assert main(["train", "--compare", str(tmp_path / "run1"), str(tmp_path / "run2"), "--out", str(out)]) == 2
    assert said.replace("ablation", "comparison") in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "text", ["", "\nNotes.\n", "\n![plot](images/ablation.png)\n", "\n![p](ablation.png)\n\nNotes.\n"]
)
def test_notes_with_the_title_of_a_report_stay(run, tmp_path, text, capsys):
    """Such as docs/ablation.md of this project."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ablation.md").write_text("# Ablation\n" + text)
    assert run() == 2
    assert "ablation.md would be replaced, and is of no such report" in capsys.readouterr().err


def test_a_report_in_the_home_folder_stays(run, tmp_path, monkeypatch, capsys):
    """With ``--out=~/out``, which shells leave alone, the check looked elsewhere than the trainings wrote."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ablation.md").write_text("# Mine\n")
    assert run(out="~/out") == 2
    assert "ablation.md would be replaced, and is of no such report" in capsys.readouterr().err


def test_a_report_in_the_home_folder_is_printed(run, tmp_path, monkeypatch, capsys):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ablation.md").write_text("# Ablation\n\n![differences](ablation.png)\n")
    monkeypatch.setattr(ablation, "ablate", lambda *_, **__: ())
    assert run(out="~/out") == 0
    assert "# Ablation" in capsys.readouterr().out


def test_a_comparison_is_written_anew(tmp_path, capsys):
    for number in (1, 2):
        _write_run(tmp_path / f"run{number}")
    command = ["train", "--compare", str(tmp_path / "run1"), str(tmp_path / "run2"), "--out", str(tmp_path / "out")]
    assert main(command) == main(command) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comparison.md", "comparison.png"}


def _write_run(folder):
    folder.mkdir()
    (folder / "recipe.toml").write_text(Recipe(name=folder.name, init="", backbone="pvt_v2_b0").to_toml())
    (folder / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 1, "step": 1, "loss": 1.0, "terms": {}}\n')
