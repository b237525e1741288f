"""A training's folder may hold files of others, which no training replaces."""

import os
from contextlib import nullcontext

import pytest
import torch
from PIL import Image

import birefnet_core as bc
from birefnet_core.images import write_mask
from birefnet_core.training.report import save_png
from birefnet_core.training.run_folder import RunFolder

needs_pipes = pytest.mark.skipif(os.name == "nt", reason="has no such pipes")
NAMES = ("recipe.toml", "report.md", "curves.png", "data_examples.png", "samples/epoch_0003.png")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("link", [False, True])
def test_a_new_training_replaces_no_recipe_or_report_of_others(tmp_path, resume, name, link):
    """``train --out project`` wrote over a recipe.toml of the project's."""
    place = tmp_path / "project" / name
    place.parent.mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"mine")
    place.symlink_to(tmp_path / "mine") if link else os.rename(tmp_path / "mine", place)
    with pytest.raises(bc.ConfigError, match=f"{name} would be replaced.*came from none.*--out another"):
        RunFolder(tmp_path / "project").prepare_output_dir(resume=resume)
    assert place.read_bytes() == b"mine"


@pytest.mark.parametrize("name", NAMES)
def test_a_start_that_was_killed_is_begun_again(tmp_path, name):
    """Before the first state there are a log, which may be empty, the recipe and what was drawn."""
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"a training's")
    RunFolder(tmp_path).prepare_output_dir(resume=True)


@pytest.mark.parametrize("link", [False, True])
def test_a_log_of_another_program_stays(tmp_path, link):
    """``train --resume`` emptied a metrics.jsonl of another tool, and so did ``ablation``, which always resumes."""
    place, mine = tmp_path / "project" / "metrics.jsonl", b'{"iter": 1, "loss": 2.5}\n{"iter": 2, "loss": 2.0}\n'
    place.parent.mkdir()
    (tmp_path / "mine").write_bytes(mine)
    place.symlink_to(tmp_path / "mine") if link else os.rename(tmp_path / "mine", place)
    for resume in (False, True):
        with pytest.raises(bc.ConfigError, match=r"metrics\.jsonl.*choose another|is the log of none.*--out another"):
            RunFolder(tmp_path / "project").prepare_output_dir(resume=resume)
    with pytest.raises(bc.ConfigError, match="is the log of none"):
        RunFolder(tmp_path / "project").check_own()
    assert place.read_bytes() == mine


def test_a_log_whose_first_line_was_cut_off_is_begun_again(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"kind": "val')
    RunFolder(tmp_path).prepare_output_dir(resume=True)


def test_the_command_says_so_before_it_trains(tmp_path, shapes, capsys):
    from birefnet_core.cli.main import main

    (tmp_path / "recipe.toml").write_text("# mine\n")
    arguments = ["train", "--data", str(shapes), "--out", str(tmp_path), "--backbone", "pvt_v2_b0"]
    for more in ([], ["--dry-run"], ["--recipe", "demo", "--resume"]):
        assert main([*arguments, *more]) == 2
        assert "recipe.toml would be replaced by this training, and came from none" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    assert (tmp_path / "recipe.toml").read_text() == "# mine\n"


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".png")])
def test_what_a_training_drew_is_drawn_anew(tmp_path, name):
    """A look at the data leaves its examples, and metrics.jsonl may have been deleted to begin again."""
    save_png(Image.new("RGB", (8, 8)), tmp_path / name)
    RunFolder(tmp_path).prepare_output_dir(resume=False)


@pytest.mark.parametrize("dry", [False, True])
def test_masks_with_the_names_of_drawings_stay(tmp_path, dry, shapes, capsys):
    """Masks are marked too, as outputs of this package, but were not drawn by a training."""
    from birefnet_core.cli.main import main

    names = [name for name in NAMES if name.endswith(".png")]
    for name in names:
        write_mask(tmp_path / name, torch.ones(8, 8))
    before = {name: (tmp_path / name).read_bytes() for name in names}
    flags = ["train", "--data", str(shapes), "--out", str(tmp_path), "--backbone", "pvt_v2_b0"]
    assert main([*flags, "--dry-run"] if dry else flags) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in names) and "came from none" in said
    assert before == {name: (tmp_path / name).read_bytes() for name in names}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("make", ["mkdir", pytest.param("mkfifo", marks=needs_pipes)])
@pytest.mark.parametrize("name", ["last.pt", "best.safetensors", "metrics.jsonl", "report.md", "curves.png"])
def test_what_is_no_file_is_told_before_the_work(tmp_path, resume, make, name):
    """A pipe in the place of the log was waited for, and a folder in that of the curves told of after an epoch."""
    getattr(os, make)(tmp_path / name)
    with pytest.raises(bc.ConfigError, match=rf"{name} is no file, which this training would write\. Move it"):
        RunFolder(tmp_path).check(resume=resume)


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_the_place_of_the_sheets_is_told_before_the_work(tmp_path, resume):
    (tmp_path / "samples").write_text("mine")
    with pytest.raises(bc.ConfigError, match="samples is no folder"):
        RunFolder(tmp_path).check(resume=resume)


@pytest.mark.parametrize("resume", [False, True])
def test_a_link_that_leads_nowhere_is_no_training(tmp_path, resume):
    """Beside a broken link called last.pt, recipe.toml was taken for a training's."""
    (tmp_path / "last.pt").symlink_to("nowhere")
    (tmp_path / "recipe.toml").write_text("mine")
    with pytest.raises(bc.ConfigError, match=r"recipe\.toml would be replaced"):
        RunFolder(tmp_path).check(resume=resume)
    (tmp_path / "recipe.toml").unlink()
    with nullcontext() if resume else pytest.raises(bc.ConfigError, match="holds another run"):
        RunFolder(tmp_path).check(resume=resume)
