"""birefnet train, and train/finetune.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import birefnet_core as bc
from birefnet_core.cli.main import main
from birefnet_core.losses import LOSS_PRESETS
from birefnet_core.training import from_values, load_recipe

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))
SMALL = ["--size", "64", "--batch-size", "2", "--workers", "0", "--quiet", "--device", "cpu"]
NETWORK = ["--backbone", "pvt_v2_b0", "--network", "reconstruction_block=residual", "image_pyramid=none"]


def test_script_runs_from_a_checkout(shapes, tmp_path):
    script = RECIPES.parent / "finetune.py"
    out = tmp_path / "out"
    flags = ["--data", str(shapes), "--out", str(out), "--epochs", "1", *SMALL, *NETWORK]
    command = [sys.executable, str(script), *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bc.load_model(out / "best.safetensors").config.backbone == "pvt_v2_b0"
    assert from_values(load_recipe(out / "recipe.toml")).network["reconstruction_block"] == "residual"


def test_adapter_is_trained_from_the_command_line_and_accepted(shapes, tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    flags = ["--data", str(shapes), "--out", str(out), "--init", str(tiny_checkpoint), "--train", "lora"]
    few = ["--epochs", "1", "--decoder-epochs", "0", "--validate-every", "1", "--lr", "0.01"]
    assert main(["train", *flags, *few, *SMALL]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["kind"] == "validation"
    assert rows[0]["step"] == 0
    merged = bc.load_model(out / "best.safetensors").state_dict()
    adapted = bc.load_model(tiny_checkpoint, adapter=out / "best_adapter.safetensors").state_dict()
    assert all(bc_equal(merged[name], adapted[name]) for name in merged)


def bc_equal(one, other) -> bool:
    return one.shape == other.shape and bool((one.float() - other.float()).abs().max() < 1e-5)


def test_resume_takes_the_recipe_from_the_folder(shapes, tmp_path):
    out = tmp_path / "out"
    flags = ["--data", str(shapes), "--out", str(out)]
    assert main(["train", *flags, "--epochs", "1", *SMALL, *NETWORK]) == 0
    assert main(["train", *flags, "--resume", "--quiet", "--device", "cpu"]) == 0
    assert main(["train", *flags, "--epochs", "1", *SMALL, *NETWORK]) == 2  # not without --resume


def test_dry_run_and_print_recipe_write_nothing(shapes, tmp_path, capsys):
    assert main(["train", "--data", str(shapes), "--dry-run", "--quiet"]) == 0
    assert "6 of 6 pairs can be used" in capsys.readouterr().out
    assert main(["train", "--recipe", "dis5k", "--loss-iou", "1.5", "--no-freeze-bn", "--print-recipe"]) == 0
    printed = tmp_path / "printed.toml"
    printed.write_text(capsys.readouterr().out)
    assert from_values(load_recipe(printed)).loss.iou == 1.5
    assert list(tmp_path.iterdir()) == [printed]


def test_wrong_use_says_what_to_do(shapes, tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path / "nothing"), "--dry-run"]) == 2
    assert main(["train", "--data", str(shapes), "--recipe", "dis6k", "--dry-run"]) == 2
    assert main(["train", "--data", str(shapes), "--quiet"]) == 2
    errors = capsys.readouterr().err
    assert "no such folder" in errors
    assert "choose one of cod, demo, demo_large, demo_lite, dis5k" in errors
    assert "--out DIR" in errors


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_valid_and_say_who_they_are(name):
    assert from_values(load_recipe(RECIPES / f"{name}.toml")).name == name


@pytest.mark.parametrize("name", sorted(LOSS_PRESETS))
def test_recipes_have_the_published_weights_on_our_scale(name):
    recipe = from_values(load_recipe(RECIPES / f"{name}.toml"))
    expected = LOSS_PRESETS[name].from_published(batch_size=4)
    if recipe.classes == "none":
        expected = expected.replace(ce=0)
    assert recipe.loss == expected


@pytest.mark.parametrize(("name", "epochs", "lr"), [("dis5k", 600, 1e-4), ("hrsod", 150, 1e-5), ("cod", 150, 1e-5)])
def test_recipes_of_the_paper_have_its_numbers(name, epochs, lr):
    recipe = from_values(load_recipe(RECIPES / f"{name}.toml"))
    assert (recipe.epochs, recipe.lr, recipe.rlft, recipe.batch_size) == (epochs, lr, 20, 4)
    assert (recipe.optimizer, recipe.size, recipe.augment.flip) == ("adam", (1024, 1024), 0.5)
    changes = ("crop", "rotate", "colour", "pepper", "plain_background", "composite_background")
    assert all(getattr(recipe.augment, change) == 0 for change in changes)
