"""birefnet train, and train/finetune.py."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import birefnet_core as bc
from birefnet_core.cli.main import build_parser, main
from birefnet_core.cli.train import recipe_of
from birefnet_core.losses import LOSS_PRESETS
from birefnet_core.training import Recipe, TrainingResult, from_values, load_recipe
from birefnet_core.training.report import COLOURS

from .conftest import TINY_FLAGS, write_shapes

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))
SMALL = ["--size", "64", "--batch-size", "6", "--workers", "0", "--quiet", "--device", "cpu"]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """What train/finetune.py leaves and says, by a quiet training from another folder on data with mistakes."""
    folder = tmp_path_factory.mktemp("script")
    data = write_shapes(folder / "set", 3)
    Image.new("L", (96, 96)).save(data / "gt/shape00.png")
    (data / "im/shape02.png").write_bytes(b"no image")
    flags = ["--data", str(data), "--out", str(folder / "out"), "--skip-bad", "--epochs", "1", *SMALL, *TINY_FLAGS]
    command = [sys.executable, str(RECIPES.parent / "finetune.py"), *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_script_runs_from_a_checkout(script):
    out = script[0] / "out"
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
    before = bc.load_file(tiny_checkpoint).state_dict()
    assert not all(bc_equal(merged[name], before[name]) for name in merged)


def bc_equal(one, other) -> bool:
    return one.shape == other.shape and bool((one.float() - other.float()).abs().max() < 1e-5)


@pytest.fixture(scope="module")
def odd_run(shapes, tmp_path_factory):
    """The flags of a finished training with odd names."""
    flags = ["--data", str(shapes), "--out", str(tmp_path_factory.mktemp("odd") / "lauf 😀 𠮷")]
    assert main(["train", *flags, "--name", "😀 𠮷野", "--epochs", "1", *SMALL, *TINY_FLAGS]) == 0
    return flags


def test_resume_takes_the_recipe_from_the_folder(odd_run):
    assert main(["train", *odd_run, "--resume", "--quiet", "--device", "cpu"]) == 0
    assert main(["train", *odd_run, "--epochs", "1", *SMALL, *TINY_FLAGS]) == 2  # not without --resume


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_was_stopped_says_so_by_its_exit_code_whatever_the_signal(
    shapes, tmp_path, monkeypatch, number
):
    from birefnet_core.cli import train as command

    def stopped(*_, **__):
        return TrainingResult(folder=tmp_path, signal=number, steps=3, best=None, scores={})

    monkeypatch.setattr(command, "train", stopped)
    assert main(["train", "--data", str(shapes), "--out", str(tmp_path), "--quiet"]) == 130


@pytest.mark.parametrize("part", ["decoder", "lora"])
def test_parts_are_trained_by_the_default_recipe_as_documented(shapes, tiny_checkpoint, tmp_path, part):
    out = tmp_path / "out"
    flags = ["--data", str(shapes), "--out", str(out), "--init", str(tiny_checkpoint), "--train", part]
    assert main(["train", *flags, "--epochs", "1", *SMALL]) == 0
    recipe = from_values(load_recipe(out / "recipe.toml"))
    assert (recipe.name, recipe.train, recipe.decoder_epochs) == ("finetune", part, 0)


def test_decoder_epochs_that_are_asked_for_need_an_encoder_that_is_trained(shapes, capsys):
    flags = ["--data", str(shapes), "--train", "decoder", "--decoder-epochs", "3", "--dry-run"]
    assert main(["train", *flags]) == 2
    assert "decoder_epochs=3 needs train='all'" in capsys.readouterr().err


def test_a_rank_above_that_of_all_weights_is_refused(shapes, tiny_checkpoint, tmp_path, capsys):
    flags = ["--data", str(shapes), "--out", str(tmp_path), "--init", str(tiny_checkpoint), "--train", "lora"]
    assert main(["train", *flags, "--lora-rank", "5000", *SMALL]) == 2
    assert "lora_rank=5000: no weight has more" in capsys.readouterr().err


def recipe_by(*flags: str) -> Recipe:
    return recipe_of(build_parser("train").parse_args(["train", *flags]))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--lr-epochs", "30"], "--lr-epochs has no effect with schedule='cosine': add --schedule step, or leave"),
        (["--lora-rank", "8"], "--lora-rank has no effect with train='all': add --train lora"),
        (["--schedule", "constant", "--lr-floor", "0.1"], "--lr-floor has no effect"),
        (["--schedule", "step", "--lr-epochs", "30", "--lr-factor", "0.5"], None),
        (["--lr-epochs"], None),
        (["--augment-rotate", "0", "--augment-rotate-degrees", "30"],
         "--augment-rotate-degrees has no effect with augment.rotate=0: add --augment-rotate 0.5, or leave"),
        (["--recipe", "dis5k", "--augment-crop-least", "0.5"], "--augment-crop-least has no effect"),
        (["--recipe", "dis5k", "--augment-colour-strength", "0.5"], "--augment-colour-strength has no effect"),
        (["--recipe", "dis5k", "--augment-pepper-share", "0.5"], "--augment-pepper-share has no effect"),
        (["--augment-crop-least", "0.5", "--augment-rotate-degrees", "5", "--augment-pepper-share", "0.1"], None),
        (["--train", "decoder", "--backbone-lr", "1e-5"], "--backbone-lr has no effect with train='decoder'"),
        (["--train", "decoder", "--backbone-lr", "0"], None),
        (["--train", "lora", "--backbone-lr", "1e-5"], None),
        (["--val-fraction", "0.2", "--val-data", "x"], "--val-fraction has no effect with --val-data"),
        (["--val-fraction", "0.2"], None),
    ],
)  # fmt: skip
def test_flags_that_mean_nothing_together_are_refused(flags, expected):
    if expected is None:
        recipe_by(*flags)
        return
    with pytest.raises(bc.ConfigError) as caught:
        recipe_by(*flags)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("values", "learns"),
    [({"lr": 0}, False), ({"lr": 0, "backbone_lr": 1e-5, "train": "decoder"}, False),
     ({"lr": 0, "backbone_lr": 1e-5}, True), ({"lr": 1e-300}, True)],
)  # fmt: skip
def test_a_rate_of_0_is_refused_where_nothing_would_be_learned(values, learns):
    if learns:
        assert Recipe(**values).lr == values["lr"]
    else:
        with pytest.raises(bc.ConfigError, match="lr=0: nothing would be learned"):
            Recipe(**values)


def test_rates_are_those_of_a_new_network_where_there_is_no_checkpoint():
    assert (recipe_by().lr, recipe_by().backbone_lr) == (1e-4, 1e-5)
    new = recipe_by("--backbone", "pvt_v2_b0")
    assert (new.init, new.lr, new.backbone_lr, new.decoder_epochs) == ("", 1e-3, 0, 0)
    assert recipe_by("--backbone", "pvt_v2_b0", "--lr", "3e-4").lr == 3e-4
    assert recipe_by("--backbone", "pvt_v2_b0", "--encoder", "x.pth").backbone_lr == 1e-4
    assert recipe_by("--recipe", "cod", "--backbone", "pvt_v2_b0").lr == 1e-5  # which is for a new network anyway


def test_adapters_learn_at_ten_times_the_rates_of_whole_weights(tmp_path):
    rates = [(1e-4, 1e-5), (1e-3, 1e-4), (3e-4, 1e-4), (1e-3, 2e-5)]
    flags = [(), ("--train", "lora"), ("--train", "lora", "--lr", "3e-4"), ("--train", "lora", "--backbone-lr", "2e-5")]
    for expected, given in zip(rates, flags, strict=True):
        assert (recipe_by(*given).lr, recipe_by(*given).backbone_lr) == pytest.approx(expected)
    path = tmp_path / "own.toml"
    path.write_text('init = "demo"\ntrain = "lora"\nlr = 1e-4\n')  # made for adapters
    assert recipe_by("--recipe", str(path)).lr == recipe_by("--recipe", str(path), "--train", "lora").lr == 1e-4
    path.write_text('init = "demo"\n')
    assert recipe_by("--recipe", str(path), "--train", "lora").lr == pytest.approx(10 * Recipe.lr)
    path.write_text('init = "demo"\nlr = true\n')
    with pytest.raises(bc.ConfigError, match="lr=True: expected a number"):
        recipe_by("--recipe", str(path), "--train", "lora")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = " + b"[" * 5000, "not a recipe in TOML"),
        (b"x" * 300_000, "more than 256 KiB"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "a Git LFS pointer: run `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"<html>" + b"x" * 300_000, "a web page"),
        (b'name = "\xff"', "not a recipe in TOML"),
        (b"[[loss]]\nbce = 1", "loss"),
        (b"[loss.bce]\nx = 1", "loss.bce"),
        (b"network = 3", "network=3"),
        (b"lr = 1979-05-27", "lr="),
        (b"lr = nan", "lr=nan"),
        (b"epochs = 1" + b"0" * 400, "a whole number"),
        (b"size = [[64]]", "a whole number"),
        (b"lr = 1\nlr = 2", "not a recipe in TOML"),
        (".".join("abcdefgh" * 100).encode() + b" = 1", "is not known"),
    ],
)
def test_odd_recipe_files_are_refused_in_a_sentence(tmp_path, content, words, capsys):
    (tmp_path / "odd.toml").write_bytes(content)
    assert main(["train", "--recipe", str(tmp_path / "odd.toml"), "--print-recipe"]) == 2
    assert words in capsys.readouterr().err


def test_a_recipe_that_begins_with_a_mark_is_read(tmp_path, capsys):
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfepochs = 7")
    assert main(["train", "--recipe", str(tmp_path / "a.toml"), "--print-recipe"]) == 0
    assert "epochs = 7" in capsys.readouterr().out


def test_a_run_with_odd_names_is_resumed(odd_run):
    assert main(["train", *odd_run, "--resume", "--quiet", "--device", "cpu"]) == 0
    assert from_values(load_recipe(Path(odd_run[-1]) / "recipe.toml")).name == "😀 𠮷野"


def test_runs_are_compared_in_one_report(tmp_path, capsys):
    for name, lr, score in (("slow", 1e-4, 0.5), ("fast", 1e-3, 0.75)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recipe.toml").write_text(Recipe(lr=lr, name=name).to_toml())
        scores = {"Sm": score, "maxF": score, "meanF": None, "maxE": score, "meanE": score, "MAE": 1 - score}
        half = {key: value and value / 2 for key, value in scores.items()}
        rows = [
            {"kind": "epoch", "epoch": 1, "step": 9, "loss": 3.5, "terms": {}},
            {"kind": "validation", "epoch": 1, "step": 9, **half},
            {"kind": "validation", "epoch": 2, "step": 18, **scores},
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{cut")
    runs = [str(tmp_path / name) for name in ("slow", "fast")]
    assert main(["train", "--compare", *runs, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "| run | lr | name | steps | loss | best epoch | Sm |" in text
    assert "| fast | 0.001 | fast | 18 | 3.5 | 2 | 0.7500 | 0.7500 | - |" in text
    assert (tmp_path / "out/comparison.md").read_text().startswith("# Trainings compared")
    assert (tmp_path / "out/comparison.png").stat().st_size > 1000
    assert main(["train", "--data", str(tmp_path), "--out", runs[0], "--dry-run"]) == 2
    assert "holds another run" in capsys.readouterr().err  # whose examples would be replaced
    (Path(runs[1]) / "recipe.toml").write_text("future = 1")
    assert main(["train", "--compare", *runs]) == 2
    assert "recipe.toml: field 'future' is not known" in capsys.readouterr().err
    assert main(["train", "--compare", runs[0]]) == 2
    assert main(["train", "--compare", runs[0], str(tmp_path)]) == 2
    assert "no training in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names",
    [("lr1_the_long_name_of_a_run", "lr2_the_long_name_of_a_run"), ("one", "other"), ("a/run", "b/run"),
     ("\u6f22\n1", "\u5b57|2")],
)  # fmt: skip
def test_runs_with_names_that_end_alike_have_curves_of_their_own(tmp_path, names):
    scores = dict.fromkeys(("Sm", "maxF", "meanF", "maxE", "meanE", "MAE"))
    for height, name in enumerate(names):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "recipe.toml").write_text(Recipe().to_toml())
        rows = [{"kind": "validation", "epoch": e, "step": e, **scores, "Sm": 0.2 + 0.5 * height} for e in range(3)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["train", "--compare", *(str(tmp_path / name) for name in names), "--out", str(tmp_path / "out")]) == 0
    colours = {colour for _, colour in Image.open(tmp_path / "out/comparison.png").getcolors(1 << 16)}
    assert set(COLOURS[:2]) <= colours
    table = [line for line in (tmp_path / "out/comparison.md").read_text("utf-8").splitlines() if line[:1] == "|"]
    assert len(table) == 4 and len({line.replace("\\|", "").count("|") for line in table}) == 1


@pytest.mark.parametrize("options", [[{}, {"image_pyramid": "none"}], [{"image_pyramid": "none"}, {}]])
def test_options_that_one_run_alone_has_are_compared_in_any_order(tmp_path, capsys, options):
    for number, network in enumerate(options):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "recipe.toml").write_text(Recipe(backbone="pvt_v2_b0", network=network).to_toml())
        (folder / "metrics.jsonl").write_text("")
    assert main(["train", "--compare", *(str(tmp_path / str(number)) for number in (0, 1))]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    assert table[0].startswith("| run | network.image_pyramid | steps |")
    assert [row.split(" | ")[1] for row in table[2:]] == [network.get("image_pyramid", "-") for network in options]


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
    assert "choose one of cod, demo, dis5k" in errors
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


def test_warnings_of_the_data_are_seen_in_a_quiet_training(script):
    """In a process of its own, whose log is set up by the command."""
    folder, errors = script
    assert "warning: 1 masks are empty (set/shape00)" in errors
    assert f"problem: {folder / 'set/im/shape02.png'}" in errors
    assert "pairs can be used" not in errors
