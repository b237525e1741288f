"""train/ablation.py and what it stands on."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from birefnet_core import BiRefNetConfig, ConfigError, DatasetError
from birefnet_core.cli.main import main
from birefnet_core.training import Recipe, TrainingData, ablation
from birefnet_core.training.ablation import PARTS, ROWS, Run, ablate, choose_rows
from birefnet_core.training.ablation_report import difference, paper_difference, report

from .conftest import write_shapes

SCRIPT = Path(__file__).parents[2] / "train" / "ablation.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablation")
    return write_shapes(root / "train", 4), write_shapes(root / "val", 2, first=20)


def arguments(folders, out):
    small = ["--size", "64", "--batch-size", "4", "--epochs", "1", "--device", "cpu", "--seeds", "1"]
    data = ["--data", str(folders[0]), "--val-data", str(folders[1]), "--out", str(out)]
    return [*data, "--rows", "inref", "baseline", *small]


@pytest.mark.slow
def test_script_compares_two_rows_and_does_not_run_them_twice(folders, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), *arguments(folders, out)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    table = (out / "ablation.md").read_text()
    assert table in first.stdout
    assert "| Tab. 2 | + InRef | baseline |" in table
    assert "(+0.040)" in table  # the paper's weighted F with InRef
    assert Image.open(out / "ablation.png").size[0] > 500
    assert len(list((out / "inref" / "seed0" / "masks").glob("*.png"))) == 2
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if not path.name.startswith("ablation")}
    assert main(["ablation", *arguments(folders, out)]) == 0
    assert (out / "ablation.md").read_text() == table
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_folder_of_another_ablation_is_refused(folders, tmp_path):
    folder = tmp_path / "baseline" / "seed0"
    folder.mkdir(parents=True)
    data, rows = TrainingData(sets=(folders[0],), validation=(folders[1],)), choose_rows(["baseline"])
    key = {"data": "", **rows[0].recipe(Recipe(epochs=1), 0).to_flat()}
    (folder / "scores.json").write_text(json.dumps({"run": {**key, "epochs": 7}}))
    with pytest.raises(ConfigError, match=r"data: .*epochs: 7 then, 1 now"):
        next(ablate(rows, Recipe(epochs=1), data, tmp_path, seeds=1))


def test_validation_without_a_folder_of_masks_is_refused(folders, tmp_path):
    Image.new("RGBA", (64, 64)).save(tmp_path / "cutout.png")
    data = TrainingData(sets=(folders[0],), validation=(tmp_path,))
    with pytest.raises(DatasetError, match="im/ and gt/"):
        next(ablate(ROWS, Recipe(), data, tmp_path, seeds=1))


@pytest.mark.parametrize("content", [b"", b'{"run": ', b"[]", b"{}", b"\xff", b"3"])
def test_damaged_scores_of_a_run_are_named(folders, tmp_path, content, capsys):
    run = tmp_path / "baseline/seed0"
    run.mkdir(parents=True)
    (run / "scores.json").write_bytes(content)
    assert main(["ablation", *arguments(folders, tmp_path), "--rows", "baseline"]) == 2
    error = capsys.readouterr().err
    assert "scores.json: not the scores of a run" in error and f"Delete {run}" in error


def test_a_state_that_another_run_has_removed_meanwhile_ends_no_ablation(folders, tmp_path, monkeypatch):
    """Two ablations in one folder may score the same training; the second ended with a traceback."""
    monkeypatch.setattr(ablation, "train", lambda *_, **__: SimpleNamespace(signal=None, steps=3))
    monkeypatch.setattr(ablation, "_score", lambda folder, *_: (folder.make(), ({"maxF": 0.5}, 7))[1])
    data = TrainingData(sets=(folders[0],), validation=(folders[1],))
    assert next(ablate(choose_rows(["rm"]), Recipe(epochs=1), data, tmp_path, seeds=1)).steps == 3


def test_masks_without_an_image_are_found_by_no_error_after_the_training(folders, tmp_path):
    validation = write_shapes(tmp_path / "validation", 2, first=40)
    (validation / "gt/extra.png").write_bytes((validation / "gt/shape40.png").read_bytes())
    flags = arguments((folders[0], validation), tmp_path / "out")
    assert main(["ablation", *flags, "--rows", "baseline"]) == 0


def test_unknown_rows_are_refused_and_known_ones_sorted():
    assert [row.name for row in choose_rows(["all", "rm"])] == ["rm", "all"]
    assert choose_rows([]) == ROWS
    with pytest.raises(ConfigError, match=r"row rn is not known.*baseline, rm"):
        choose_rows(["rn"])


def test_rows_are_the_networks_their_names_say():
    base = Recipe(backbone="pvt_v2_b0", epochs=3, rlft=1)
    recipes = {row.name: row.recipe(base, 5) for row in ROWS}
    assert len({json.dumps(recipe.to_flat()) for recipe in recipes.values()}) == len(ROWS)
    everything = BiRefNetConfig.from_dict({"backbone": "pvt_v2_b0", **recipes["all"].network})
    assert everything == BiRefNetConfig(backbone="pvt_v2_b0")
    assert recipes["no-mss"].network == {**recipes["all"].network, "multi_stage_supervision": False}
    assert {name for name, recipe in recipes.items() if recipe.rlft} == {"rlft", "all", "no-mss"}
    assert {recipe.seed for recipe in recipes.values()} == {5}
    assert {part for row in ROWS for part in row.parts} == set(PARTS)


def test_differences_are_those_of_the_paper():
    by_name = {row.name: row for row in ROWS}
    # "RM ... brings 2.2% F relative improvement", InRef and OutRef "2.9%", all of them "6.2%" (Sec. 4.4).
    for name, gain in (("rm", 2.2), ("inref-outref", 2.9), ("biref", 6.2)):
        relative = 100 * paper_difference(by_name[name], "maxF", ROWS) / by_name["baseline"].paper[0]
        assert round(relative, 1) == gain
    assert paper_difference(by_name["no-mss"], "HCE", ROWS) == 1207 - 1043
    assert paper_difference(by_name["outref"], "maxF", ROWS) is None


def test_differences_are_taken_seed_by_seed():
    scores = {("baseline", 0): 0.4, ("baseline", 1): 0.5, ("rm", 0): 0.5, ("rm", 1): 0.7, ("rm", 2): 0.9}
    runs = [
        Run(row=row, seed=seed, scores={"maxF": score, "MAE": 1 - score}, parameters=10**6, steps=9)
        for (row, seed), score in scores.items()
    ]
    rows = choose_rows(["baseline", "rm", "inref"])
    found = difference(rows[1], "maxF", runs)
    assert (found.mean, found.half) == pytest.approx((0.15, 0.05))
    text = report(rows, runs, Recipe(backbone="pvt_v2_b0"), (8, 2), "plot.png")
    assert "| + RM | baseline | +0.150 ± 0.050 (+0.018) | -0.150 ± 0.050 (-0.008) | 2 of 2, 2 clearly |" in text
    assert "InRef" not in text  # no run of it yet


def test_one_seed_claims_no_spread():
    runs = [
        Run(row=row, seed=0, scores={"maxF": score}, parameters=10**6, steps=9)
        for row, score in (("baseline", 0.4), ("rm", 0.5))
    ]
    text = report(choose_rows(["baseline", "rm"]), runs, Recipe(backbone="pvt_v2_b0"), (8, 2), "plot.png")
    assert "| + RM | baseline | +0.100 (+0.018) | 1 of 1 |" in text
    assert "±" not in text and "clearly" not in text
