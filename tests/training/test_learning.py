"""That training learns: minutes on a CPU."""

import shutil
from pathlib import Path

import pytest

import birefnet_core as bc
from birefnet_core.cli.main import main as segment
from birefnet_core.training import TrainingData, from_values, load_recipe, train
from birefnet_core.training.data import find_set
from birefnet_core.training.data.dataset import SegmentationDataset
from birefnet_core.training.validation import validate

from .conftest import write_shapes

pytestmark = pytest.mark.slow

RECIPES = Path(__file__).parents[2] / "train" / "recipes"


def score(checkpoint: Path, folder: Path) -> dict[str, float]:
    """Scores of a checkpoint on a data set."""
    dataset = SegmentationDataset(find_set(folder).pairs, from_values({}).augment)
    model = bc.load_model(checkpoint)
    return validate(model, dataset, (128, 128)).scores


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    """Eight shapes overfitted: PVTv2-b0 from scratch at 128 x 128, 160 steps."""
    folder = tmp_path_factory.mktemp("overfit")
    shapes = write_shapes(folder / "shapes", 8, side=128)
    shutil.copytree(shapes, folder / "same")  # validated on what it was trained on
    recipe = from_values(load_recipe(RECIPES / "shapes.toml")).replace(**{"augment.flip": 0})
    data = TrainingData(sets=(shapes,), validation=(folder / "same",))
    return folder, train(recipe, data, folder / "out", device="cpu")


def test_eight_images_are_overfitted(overfitted):
    _, result = overfitted
    assert result.steps <= 300
    assert result.scores["meanF"] >= 0.95


def test_fine_tuning_improves_on_faded_shapes_and_the_result_segments(overfitted, tmp_path):
    _, result = overfitted
    new, held = (
        write_shapes(tmp_path / name, count, first, side=128, contrast=0.3)
        for name, count, first in (("new", 16, 100), ("held", 8, 200))
    )
    start = result.folder / "best.safetensors"
    recipe = from_values(load_recipe(RECIPES / "finetune.toml")).replace(
        init=str(start), size=128, batch_size=4, accumulate=1, epochs=15, decoder_epochs=2, lr=3e-4, backbone_lr=1e-4,
        workers=0, checkpoint_activations=False, ema=0.9, warmup_steps=5,
    )  # fmt: skip
    out = tmp_path / "out"
    train(recipe, TrainingData(sets=(new,), validation=(held,)), out, device="cpu")
    before, after = score(start, held), score(out / "best.safetensors", held)
    assert after["Sm"] > before["Sm"] + 0.1
    assert after["meanF"] > before["meanF"] + 0.2
    assert after["MAE"] < before["MAE"]
    arguments = ["segment", str(held / "im"), "-o", str(tmp_path / "masks"), "--model", str(out / "best.safetensors")]
    assert segment([*arguments, "--quiet", "--device", "cpu"]) == 0
    scores = bc.evaluate(tmp_path / "masks", held / "gt", metrics=["MAE"])
    assert scores["MAE"] == pytest.approx(after["MAE"], abs=0.01)
