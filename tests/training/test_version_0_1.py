"""Runs that version 0.1 left unfinished.

The fixture holds what version 0.1 wrote without the numbers: names, shapes and the order of the parameters. When it was
recorded, four such runs (decoder alone at first, growing sizes in channels_last, LoRA, activation checkpointing) were
resumed by 0.1 and by its successor, on the same network: the bits were the same.
"""

import copy
import json
import shutil

import pytest
import torch

import birefnet_core as bc
from birefnet_core.stop_signal import StopSignal
from birefnet_core.training import TrainingData, from_values, load_datasets, load_recipe
from birefnet_core.training.distributed import Ranks
from birefnet_core.training.loop import Trainer
from birefnet_core.training.run_folder import RunFolder

from ..conftest import FIXTURES
from .conftest import assert_same

RECORDED = FIXTURES / "run_0_1"


@pytest.fixture(scope="module")
def resumed(shapes, tmp_path_factory):
    """What 0.1 left in a folder, a training that goes on with it, and its state before its first step."""
    fixture = json.loads((RECORDED / "last.json").read_text())
    recipe = from_values(load_recipe(RECORDED / "recipe.toml"))
    data = load_datasets(recipe, TrainingData(sets=(shapes,)))
    generator = torch.Generator().manual_seed(0)

    def tensor(name: str, shape: list[int]) -> torch.Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(4)
        return 0.1 * torch.rand(shape, generator=generator)  # positive, as variances are

    moments = {
        int(i): {"step": torch.tensor(4.0), "exp_avg": tensor("", shape), "exp_avg_sq": tensor("", shape)}
        for i, shape in fixture["state"].items()
    }
    state = {
        "format": fixture["format"], "recipe": fixture["recipe"], "position": fixture["position"],
        "data": data.fingerprint,
        "model": {name: tensor(name, shape) for name, shape in fixture["model"].items()},
        "optimizer": {"state": moments, "param_groups": fixture["param_groups"]},
        "scaler": fixture["scaler"],
        "ema": {
            "steps": fixture["ema_steps"],
            "state": {name: tensor(name, shape) for name, shape in fixture["model"].items()},
        },
    }  # fmt: skip
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    torch.save(state, folder.last)
    shutil.copy(RECORDED / "recipe.toml", folder.path)
    trainer = Trainer(recipe, data, folder, Ranks())
    trainer.start(resume=True)
    return state, trainer, copy.deepcopy(trainer.state.state_dict())


def test_state_of_version_0_1_is_taken_up_to_the_bit(resumed):
    state, trainer, loaded = resumed
    for part in ("position", "model", "scaler", "ema"):
        assert_same(loaded[part], state[part], part)
    assert_same(loaded["optimizer"]["state"], state["optimizer"]["state"])
    assert trainer.schedule == trainer.recipe  # whose phases 0.1 did not fit to the number of steps
    # Weights and their moments belong together by their order alone.
    named = dict(trainer.state.model.named_parameters())
    numbers = [i for group in state["optimizer"]["param_groups"] for i in group["params"]]
    parameters = [p for group in trainer.state.optimizer.param_groups for p in group["params"]]
    assert len(parameters) == len(numbers) == len(named)
    for i, parameter in zip(numbers, parameters, strict=True):
        assert parameter.shape == state["optimizer"]["state"][i]["exp_avg"].shape


def test_run_of_version_0_1_is_finished_by_its_own_recipe(resumed):
    state, trainer, _ = resumed
    folder, recipe, data = trainer.folder, trainer.recipe, trainer.datasets
    result = trainer.run(StopSignal())
    assert result.finished
    assert result.steps == state["position"]["step"] + 2
    assert bc.load_model(folder.best).config.backbone == recipe.backbone
    with pytest.raises(bc.ConfigError, match=r"another recipe \(lr: 0.001 then, 0.5 now\)"):
        folder.load(recipe.replace(lr=0.5), data.fingerprint)
