"""A training's folder may hold files of others, which no training replaces."""

import os

import pytest

import birefnet_core as bc
from birefnet_core.training.run_folder import RunFolder

NAMES = ("recipe.toml", "report.md", "curves.png")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("link", [False, True])
def test_a_new_training_replaces_no_recipe_or_report_of_others(tmp_path, resume, name, link):
    """``train --out project`` wrote over a recipe.toml of the project's."""
    place = tmp_path / "project" / name
    place.parent.mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    place.symlink_to(tmp_path / "mine") if link else os.rename(tmp_path / "mine", place)
    with pytest.raises(bc.ConfigError, match=f"{name}: of no training.*--out another folder, or move"):
        RunFolder(place.parent).prepare_output_dir(resume=resume)
    assert place.read_bytes() == b"mine"


@pytest.mark.parametrize("name", NAMES)
def test_a_start_that_was_killed_is_begun_again(tmp_path, name):
    """Before the first state there are a log, which may be empty, the recipe and what was drawn."""
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / name).write_bytes(b"a training's")
    RunFolder(tmp_path).prepare_output_dir(resume=True)


def test_the_command_says_so_before_it_trains(tmp_path, shapes, capsys):
    from birefnet_core.cli.main import main

    (tmp_path / "recipe.toml").write_text("# mine\n")
    arguments = ["train", "--data", str(shapes), "--out", str(tmp_path), "--backbone", "pvt_v2_b0"]
    for more in ([], ["--dry-run"], ["--recipe", "demo", "--resume"]):
        assert main([*arguments, *more]) == 2
        assert "recipe.toml: of no training" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    assert (tmp_path / "recipe.toml").read_text() == "# mine\n"
